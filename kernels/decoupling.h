// Cosine decoupling loss between the unique and the common features of each sequence.
#pragma once

#include "kernels/backend.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

enum class DecouplingLoss {
  cos2_mean,  ///< mean over the active modalities of the batch mean of cos^2 (release)
  cos_sum     ///< sum over the active modalities of the batch mean of cos (paper, eq. 2)
};

struct DecouplingShape {
  Rows rows;
  int64_t width = 0;                ///< s and c are [rows.total(), width]
  std::span<const uint8_t> active;  ///< [M] of 0 and 1 in host memory, or empty: every modality
  DecouplingLoss loss = DecouplingLoss::cos2_mean;
};

/// All rows of sequence (m, b) are one vector:  cos = s . c / (max(|s|, 1e-8) max(|c|, 1e-8)).
///
///   stats [M B, 4]  kept for the backward pass: cos and the factors of c, s, c in
///                   dcos/ds = stats[1] c - stats[2] s,  dcos/dc = stats[1] s - stats[3] c
///   value [1]
///
/// A clamped norm still passes the gradient of the norm, and a zero vector's norm has gradient 0
/// (torch.nn.functional.cosine_similarity). An empty sequence has cos 0. No active modality or no
/// batch: 0. Throws std::invalid_argument for a span that does not fit.
void decoupling_forward(const Cpu&, const DecouplingShape&, In s, In c, Out stats, Out value);
void decoupling_forward(const Cuda&, const DecouplingShape&, In s, In c, Out stats, Out value);

/// ds += dvalue * dvalue/ds, dc likewise.   dvalue [1]
void decoupling_backward(const Cpu&, const DecouplingShape&, In s, In c, In stats, In dvalue,
                         InOut ds, InOut dc);
void decoupling_backward(const Cuda&, const DecouplingShape&, In s, In c, In stats, In dvalue,
                         InOut ds, InOut dc);

}  // namespace decalign::inline DECALIGN_REAL
