// Gaussian-kernel maximum mean discrepancy between modalities.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

struct MmdShape {
  int64_t modalities = 0, batch = 0, width = 0;  ///< z is [M, B, p]
  double bandwidth = 1;                          ///< > 0
};

/// value = mean over pairs i < j of E k(x_i, x_i') + E k(x_j, x_j') - 2 E k(x_i, x_j),
/// k(x, y) = exp(-|x - y|^2 / (2 bandwidth)), biased: the diagonal counts (Gretton et al. 2012, eq.
/// 5).
///
///   z [M, B, p], or z + rest where `rest` is not empty (see moments.h);  gradient [M, B, p]:
///   dvalue/dz, or empty: not computed;  value [1]
///
///   gradient_rest as gradient, or empty: what rounding took from it
///
/// Distances are sums of squared differences, so
/// none is negative. One modality or no batch: 0. Throws std::invalid_argument for a bandwidth not
/// > 0.
void mmd_forward(const Cpu&, const MmdShape&, In z, In rest, Out value, Out gradient,
                 Out gradient_rest, Scratch);
void mmd_forward(const Cuda&, const MmdShape&, In z, In rest, Out value, Out gradient,
                 Out gradient_rest, Scratch);

/// dz + drest += dvalue (gradient + gradient_rest). `gradient_rest` and `drest` may be empty.
void mmd_backward(const Cpu&, In gradient, In gradient_rest, In dvalue, InOut dz, InOut drest);
void mmd_backward(const Cuda&, In gradient, In gradient_rest, In dvalue, InOut dz, InOut drest);

size_t mmd_scratch_bytes(const Cpu&, const MmdShape&);
size_t mmd_scratch_bytes(const Cuda&, const MmdShape&);

}  // namespace decalign::inline DECALIGN_REAL
