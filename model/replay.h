// `decalign replay`: given weights and batches, the network's outputs, losses and gradients, or a
// training curve.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/types.h"

namespace decalign {

struct ReplayOptions {
  std::string config, weights, batch, out;  ///< files; docs/formats.md
  int64_t steps = 0;         ///< 0: one forward and backward pass; N: N steps of Adam
  double learning_rate = 0;  ///< with steps
  int threads = 0;
  std::string device = "cpu";  ///< see open_device
};

inline namespace DECALIGN_REAL {

/// Runs in this build's precision. Throws input_error for files that do not fit; `out` appears
/// whole or not at all.
void replay(const ReplayOptions& options);

}  // namespace DECALIGN_REAL
}  // namespace decalign
