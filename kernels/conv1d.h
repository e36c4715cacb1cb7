// Temporal convolution of padded sequences into rows.
#pragma once

#include "kernels/backend.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

/// One modality's projection: x [B, steps, width] -> rows of modality `modality`.
struct Conv1dShape {
  int64_t batch = 0, steps = 0, width = 0;  ///< x is [batch, steps, width]
  int64_t channels = 0;                     ///< d, columns of y
  int64_t kernel = 1;                       ///< taps; kernel <= steps
  int64_t modality = 0;                     ///< whose rows of y are written
};

/// y[first(b) + t, j] = sum_{u < kernel} sum_i w[j, i, u] x[b, t + u, i] for t < length of sequence
/// (modality, b), which must be at most steps - kernel + 1 (valid convolution: no padding, no bias;
/// torch.nn.Conv1d's weight layout).
///
///   weight [channels, width, kernel];  y [rows.total(), channels], only this modality's rows are
///   written
void conv1d_forward(const Cpu&, const Conv1dShape&, const Rows&, In x, In weight, Out y, Scratch);
void conv1d_forward(const Cuda&, const Conv1dShape&, const Rows&, In x, In weight, Out y, Scratch);

/// dweight += dy * x, dx += dy * w (dx empty for data).
void conv1d_backward(const Cpu&, const Conv1dShape&, const Rows&, In x, In weight, In dy, InOut dx,
                     InOut dweight, Scratch);
void conv1d_backward(const Cuda&, const Conv1dShape&, const Rows&, In x, In weight, In dy, InOut dx,
                     InOut dweight, Scratch);

size_t conv1d_scratch_bytes(const Cpu&, const Conv1dShape&);
size_t conv1d_scratch_bytes(const Cuda&, const Conv1dShape&);

}  // namespace decalign::inline DECALIGN_REAL
