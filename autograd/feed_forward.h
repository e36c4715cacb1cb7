// The feed-forward layer of a transformer. See kernels/feed_forward.h.
#pragma once

#include "autograd/tape.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// The weights of rows row .. row + rows. The parts cover all rows once, in ascending order.
struct FeedForwardPart {
  int64_t row = 0, rows = 0;
  Tensor weight1;  ///< [hidden, width], the same hidden for every part
  Tensor bias1;    ///< [hidden]; default: none
  Tensor weight2;  ///< [width, hidden]
  Tensor bias2;    ///< [width]; default: none
};

/// x [rows, width] -> drop(relu(x w1^T + b1)) w2^T + b2.
Tensor feed_forward(Tape&, const Tensor& x, std::span<const FeedForwardPart> parts,
                    const Dropout& dropout = {});

}  // namespace decalign::inline DECALIGN_REAL
