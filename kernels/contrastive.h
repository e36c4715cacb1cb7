// Supervised contrastive loss.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct ContrastiveShape {
  int64_t batch = 0, width = 0;  ///< features are [B, F]
  double temperature = 0.1;      ///< != 0
};

/// With f = features / max(|features|, 1e-12) and l_ij = f_i . f_j / temperature - max_j (f_i . f_j
/// / temperature), the maximum (over every j, i too) a constant:
///   log p_ij = l_ij - log max(sum_{j != i} exp l_ij, 1e-8)
///   value = -mean over the rows with a positive of mean over its positives of log p_ij
/// (Khosla et al. 2020, eq. 2, and the release's clamps). Positives: j != i of the same class.
///
///   features [B, F];  classes [B] in backend memory;  value [1];  gradient [B, F]:
///   dvalue/dfeatures, or empty: not computed
///
/// No row with a positive: value and gradient are 0. The way back is scaled_add(dvalue, gradient,
/// dfeatures).
void contrastive_forward(const Cpu&, const ContrastiveShape&, In features,
                         std::span<const int32_t> classes, Out value, Out gradient, Scratch);
void contrastive_forward(const Cuda&, const ContrastiveShape&, In features,
                         std::span<const int32_t> classes, Out value, Out gradient, Scratch);

size_t contrastive_scratch_bytes(const Cpu&, const ContrastiveShape&);
size_t contrastive_scratch_bytes(const Cuda&, const ContrastiveShape&);

/// The class of a sentiment label: clamp(label, -3, 3) rounded, halves to even. -3 .. 3; NaN gives
/// 0.
int32_t sentiment_class(double label);

}  // namespace decalign::inline DECALIGN_REAL
