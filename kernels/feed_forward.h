// The feed-forward layer of a transformer: two dense layers with ReLU and dropout between them,
// weights per row range.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// The weights of a row range (one per modality). The groups cover all rows once, in ascending
/// order.
struct FeedForwardGroup {
  int64_t row = 0, rows = 0;
  In weight1;      ///< [hidden, width]
  In bias1;        ///< [hidden] or empty
  In weight2;      ///< [width, hidden]
  In bias2;        ///< [width] or empty
  InOut dweight1;  ///< [hidden, width], backward only; empty skips it
  InOut dbias1;    ///< [hidden], backward only; empty skips it
  InOut dweight2;  ///< [width, hidden], backward only; empty skips it
  InOut dbias2;    ///< [width], backward only; empty skips it
};

struct FeedForwardShape {
  int64_t rows = 0, width = 0, hidden = 0;
  Dropout dropout;  ///< after the ReLU; element = row * hidden + column
};

/// h = drop(relu(x w1^T + b1)),  y = h w2^T + b2.   x, y [rows, width]; h [rows, hidden] is kept
/// for the backward pass. No two arrays may overlap. Throws std::invalid_argument for a span or a
/// group that does not fit.
void feed_forward_forward(const Cpu&, const FeedForwardShape&, std::span<const FeedForwardGroup>,
                          In x, Out h, Out y, Scratch);
void feed_forward_forward(const Cuda&, const FeedForwardShape&, std::span<const FeedForwardGroup>,
                          In x, Out h, Out y, Scratch);

/// With dz = dy w2 * scale where h > 0 and 0 elsewhere:  dx += dz w1,  dweight1 += dz^T x,  dbias1
/// += sum over rows of dz,  dweight2 += dy^T h,  dbias2 += sum over rows of dy. Empty dx skips it.
/// Groups may share a gradient, but two gradients must not overlap partly.
void feed_forward_backward(const Cpu&, const FeedForwardShape&, std::span<const FeedForwardGroup>,
                           In x, In h, In dy, InOut dx, Scratch);
void feed_forward_backward(const Cuda&, const FeedForwardShape&, std::span<const FeedForwardGroup>,
                           In x, In h, In dy, InOut dx, Scratch);

/// Work space that either direction needs, in bytes.
size_t feed_forward_scratch_bytes(const Cpu&, const FeedForwardShape&,
                                  std::span<const FeedForwardGroup>);
size_t feed_forward_scratch_bytes(const Cuda&, const FeedForwardShape&,
                                  std::span<const FeedForwardGroup>);

}  // namespace decalign::inline DECALIGN_REAL
