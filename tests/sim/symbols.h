// Names of kernels and lines of the source from the program's debug information.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/sim.h"

namespace sim {

struct KernelName {
  std::string name;  // "forward_kernel<2>"
  std::string file;  // "layer_norm.cu"
};
const KernelName& kernel_name(const void* function);

/// "layer_norm.cu:42" of a place in the program; with the lines that it was inlined into, where it
/// is in a header.
const std::string& source_line(uint32_t place);
/// Looks up many at once, which is faster.
void look_up_lines(const std::vector<uint32_t>& places);

std::string site_text(Site site);

}  // namespace sim
