// What the simulated device counts: a test compares two moments.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sim {

/// Calls of the host since the program started. What a replayed graph does is no call.
struct Counters {
  uint64_t allocations = 0, frees = 0;
  uint64_t synchronisations = 0;  // of a stream, an event or the device, and copies that wait
  uint64_t uploads = 0, downloads = 0, device_copies = 0, memsets = 0;
  uint64_t kernels = 0, blas = 0, graph_launches = 0, graph_updates = 0;

  friend Counters operator-(Counters a, const Counters& b) {
    a.allocations -= b.allocations, a.frees -= b.frees;
    a.synchronisations -= b.synchronisations;
    a.uploads -= b.uploads, a.downloads -= b.downloads;
    a.device_copies -= b.device_copies, a.memsets -= b.memsets;
    a.kernels -= b.kernels, a.blas -= b.blas, a.graph_launches -= b.graph_launches;
    a.graph_updates -= b.graph_updates;
    return a;
  }
};
const Counters& counters();

/// The nodes of a graph; a call of cuBLAS counts as one.
struct GraphNodes {
  int kernels = 0, copies = 0, memsets = 0, blas = 0, host = 0;
  int total() const { return kernels + copies + memsets + blas + host; }
};
GraphNodes graph_nodes(cudaGraphExec_t graph);

}  // namespace sim
