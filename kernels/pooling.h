// Masked mean over the rows of each sequence, and temporal resampling.
#pragma once

#include "kernels/backend.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

/// y[s] = sum_t mask_t x_t / max(sum_t mask_t, 1) over the rows of sequence s. x [R, width], y [M
/// B, width]; mask [R] of 0 and 1, or empty: all 1. An empty sequence gives 0.
void pooling_forward(const Cpu&, const Rows&, int64_t width, In x, In mask, Out y);
void pooling_forward(const Cuda&, const Rows&, int64_t width, In x, In mask, Out y);

/// dx_t += mask_t dy[s] / max(sum mask, 1).
void pooling_backward(const Cpu&, const Rows&, int64_t width, In mask, In dy, InOut dx);
void pooling_backward(const Cuda&, const Rows&, int64_t width, In mask, In dy, InOut dx);

/// Adaptive average pooling: step i of a sequence of `to` with n steps is the mean of steps floor(i
/// L / n) .. ceil((i + 1) L / n) of the same sequence of `from` with L steps
/// (torch.nn.AdaptiveAvgPool1d's windows). A sequence with L = 0 gives zeros. x [from.total(),
/// width], y [to.total(), width].
void temporal_pooling_forward(const Cpu&, const Rows& from, const Rows& to, int64_t width, In x,
                              Out y);
void temporal_pooling_forward(const Cuda&, const Rows& from, const Rows& to, int64_t width, In x,
                              Out y);
void temporal_pooling_backward(const Cpu&, const Rows& from, const Rows& to, int64_t width, In dy,
                               InOut dx);
void temporal_pooling_backward(const Cuda&, const Rows& from, const Rows& to, int64_t width, In dy,
                               InOut dx);

}  // namespace decalign::inline DECALIGN_REAL
