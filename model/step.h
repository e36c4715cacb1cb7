// The state of one forward pass, shared by the network's parts.
#pragma once

#include "autograd/matmul.h"
#include "kernels/rows.h"
#include "model/network.h"

namespace decalign::inline DECALIGN_REAL {

/// Values of a batch where kernels read them: on the device already, the host's own memory if that
/// is it, or else uploaded for this step.
template <class T>
std::span<const T> on_device(Tape& tape, std::span<const T> there, std::span<const T> host) {
  if (!there.empty()) return there;
  return tape.device().on_host() ? host : tape.upload<T>(host);
}

struct Network::Step {
  Tape& tape;
  const RandomState* random;
  Rows rows{};                   // of the active modalities, after the projection
  std::span<const real> mask{};  // [R] or empty
  uint32_t ops = 0;              // dropout ops so far

  Dropout dropout(double rate) {
    const uint32_t op = ops++;
    return random ? Dropout{rate, random, op} : Dropout{};
  }

  /// A weight per active modality on its own rows: y = x w_m^T + b_m.
  template <class WeightOf>
  std::vector<MatmulPart> per_modality(int64_t n, WeightOf&& weight_of) const {
    std::vector<MatmulPart> parts;
    for (int64_t m = 0; m < rows.modalities; ++m) {
      MatmulPart part = weight_of(size_t(m));
      part.x_row = part.y_row = rows.modality_begin(m);
      part.rows = rows.modality_rows(m);
      part.n = n;
      parts.push_back(part);
    }
    return parts;
  }
};

}  // namespace decalign::inline DECALIGN_REAL
