// What tests may ask of the simulated device beyond CUDA's functions.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace sim {

/// A fault of a kernel or a copy; the runtime turns it into cudaErrorLaunchFailure, whose
/// cudaGetErrorString is the report.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Starts the order of threads, blocks and streams anew. SIM_SEED is the first seed, 1 without it.
void set_seed(uint64_t seed);
uint64_t seed();
/// How many seeds there were, this one included.
uint64_t seeds();

/// False: kernels and calls of cuBLAS are queued, counted and recorded, and do nothing, so that
/// work too large for a simulation can be counted.
void set_execution(bool on);
bool execution();

/// Forgets an error and what is queued, which on a GPU takes a new process. Memory stays.
void forget_error();

}  // namespace sim
