// Streams, events and captured graphs of the simulated device. A queue runs as late as what the
// host waits for allows, in an order between streams that the seed draws.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/checker.h"
#include "tests/sim/counters.h"
#include "tests/sim/host_access.h"

namespace sim {

struct Work {
  enum class Kind { kernel, copy, memset, blas, host } kind;
  std::function<void()> run;
  std::string what;
  const void* function = nullptr;  // a kernel's
};

struct EventState {
  uint64_t recorded = 0, done = 0;  // how often
  Clock clock;                      // what comes before it
  double milliseconds = 0;          // of the host's clock
};

struct StreamEntry {
  enum class Kind { work, record, wait } kind;
  Work work{};
  std::shared_ptr<EventState> event;
  uint64_t sequence = 0;  // of the event's records
  Clock before;           // work: what it comes after
  uint64_t position = 0;
};

/// A stream that a capture reaches is one of the graph's lanes.
struct Capture {
  CUgraph_st* graph;
  CUstream_st* origin;
  cudaStreamCaptureMode mode;
  bool invalid = false;
};

/// Remembers an error for cudaGetLastError; `why` becomes part of its text.
cudaError_t set_error(cudaError_t code, const std::string& why = "");

Counters& count();

/// The stream of a handle; null, with the error set, if there is no such stream.
CUstream_st* find_stream(cudaStream_t handle);
/// Streams are numbered; a graph's lanes run on internal ones.
CUstream_st* new_stream(bool blocking, bool internal);

cudaError_t submit(cudaStream_t stream, Work work);
cudaError_t submit_work(CUstream_st* stream, Work work);
cudaError_t submit_record(CUstream_st* stream, const std::shared_ptr<EventState>& event);
cudaError_t submit_wait(CUstream_st* stream, const std::shared_ptr<EventState>& event);

/// Waits of the host.
cudaError_t wait_for_stream(CUstream_st* stream);
cudaError_t wait_for_device();

// graphs.cpp

/// The error of a call that a capture in progress forbids, which also spoils it; else cudaSuccess.
cudaError_t forbid_in_capture(const char* call);
cudaError_t spoil(Capture& capture, cudaError_t code, const std::string& why);
/// Adds to the graph that `stream` is captured into.
cudaError_t capture_work(CUstream_st* stream, Work work);
cudaError_t capture_record(CUstream_st* stream, CUevent_st* event);
cudaError_t capture_wait(CUstream_st* stream, CUevent_st* event);
bool captured(const CUevent_st* event);

const std::vector<CUstream_st*>& streams();

}  // namespace sim

struct CUstream_st {
  int number = 0;
  bool blocking = false, internal = false;
  std::deque<sim::StreamEntry> queue;
  sim::Clock clock;  // what its next entry comes after
  uint64_t submitted = 0;
  std::shared_ptr<sim::Capture> capture;
  int lane = 0;
};

struct CUevent_st {
  std::shared_ptr<sim::EventState> state = std::make_shared<sim::EventState>();
  std::weak_ptr<sim::Capture> capture;  // where it was recorded last, if that was a capture
  int slot = 0;
};
