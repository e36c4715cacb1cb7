// The distribution encoder of the homogeneous alignment: two small dense layers per modality.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

/// One modality's weights.
struct DistributionEncoderGroup {
  In weight1;      ///< [hidden, width]
  In bias1;        ///< [hidden]
  In weight2;      ///< [outputs, hidden]
  In bias2;        ///< [outputs]
  InOut dweight1;  ///< as weight1, backward only; empty skips it, as with the next three
  InOut dbias1, dweight2, dbias2;
};

struct DistributionEncoderShape {
  int64_t batch = 0, width = 0, hidden = 0, outputs = 0;
  Dropout dropout;  ///< after the ReLU; element = (m batch + n) hidden + column
};

/// z_m = drop(relu(x_m w1_m^T + b1_m)) w2_m^T + b2_m for the modalities m = 0 .. groups.size() - 1
/// (paper: the latent distributions that moments and MMD compare).
///
///   x [M, B, width];  z [M, B, outputs];  rest as z, or empty: what rounding takes from z;
///   hidden [M, B, hidden]: the layer between, kept for the backward pass
///
/// In double inside: z may vary little about a large mean, and covariance, skewness and MMD see
/// what varies; z + rest keeps it. Throws std::invalid_argument for a span that does not fit.
void distribution_encoder_forward(const Cpu&, const DistributionEncoderShape&,
                                  std::span<const DistributionEncoderGroup>, In x, Out z, Out rest,
                                  std::span<double> hidden);
void distribution_encoder_forward(const Cuda&, const DistributionEncoderShape&,
                                  std::span<const DistributionEncoderGroup>, In x, Out z, Out rest,
                                  std::span<double> hidden);

/// Adds the gradients of x and of every weight; an empty one is skipped. That of z is dz + drest,
/// where `drest` is not empty. No two gradients may overlap.
void distribution_encoder_backward(const Cpu&, const DistributionEncoderShape&,
                                   std::span<const DistributionEncoderGroup>, In x,
                                   std::span<const double> hidden, In dz, In drest, InOut dx,
                                   Scratch);
void distribution_encoder_backward(const Cuda&, const DistributionEncoderShape&,
                                   std::span<const DistributionEncoderGroup>, In x,
                                   std::span<const double> hidden, In dz, In drest, InOut dx,
                                   Scratch);

/// Work space of the backward pass, in bytes.
size_t distribution_encoder_scratch_bytes(const Cpu&, const DistributionEncoderShape&,
                                          int64_t modalities);
size_t distribution_encoder_scratch_bytes(const Cuda&, const DistributionEncoderShape&,
                                          int64_t modalities);

}  // namespace decalign::inline DECALIGN_REAL
