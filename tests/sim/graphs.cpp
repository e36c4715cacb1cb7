// A captured graph is the list of what its streams were told, and is told to them again at a
// launch.
#include <algorithm>
#include <map>

#include "tests/sim/control.h"
#include "tests/sim/streams.h"

namespace sim {
struct GraphEntry {
  StreamEntry::Kind kind;
  int lane;      // the stream: 0 is where the graph is launched
  int slot = 0;  // the event
  Work work{};
};
}  // namespace sim

struct CUgraph_st {
  std::vector<sim::GraphEntry> entries;
  int lanes = 1, slots = 0;
};

struct CUgraphExec_st {
  CUgraph_st graph;
  std::vector<CUstream_st*> lanes;  // but the first
};

namespace sim {
namespace {

cudaError_t check_valid(const Capture& capture) {
  return capture.invalid ? set_error(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}

// Whether lane 0 waited, at its end, for all work of the other lanes.
bool joined(const CUgraph_st& graph) {
  std::vector<std::vector<int>> knows(size_t(graph.lanes), std::vector<int>(size_t(graph.lanes)));
  std::vector<std::vector<int>> slots(size_t(graph.slots), std::vector<int>(size_t(graph.lanes)));
  for (const GraphEntry& entry : graph.entries) {
    auto& mine = knows[size_t(entry.lane)];
    if (entry.kind == StreamEntry::Kind::work) ++mine[size_t(entry.lane)];
    if (entry.kind == StreamEntry::Kind::record) slots[size_t(entry.slot)] = mine;
    if (entry.kind == StreamEntry::Kind::wait)
      for (size_t l = 0; l < mine.size(); ++l)
        mine[l] = std::max(mine[l], slots[size_t(entry.slot)][l]);
  }
  for (size_t l = 1; l < knows.size(); ++l)
    if (knows[0][l] < knows[l][l]) return false;
  return true;
}

cudaError_t launch_graph(CUgraphExec_st* exec, CUstream_st* stream) {
  const CUgraph_st& graph = exec->graph;
  while (int(exec->lanes.size()) < graph.lanes - 1) exec->lanes.push_back(new_stream(false, true));
  const auto fork = std::make_shared<EventState>();
  std::vector<CUstream_st*> lanes{stream};
  if (graph.lanes > 1)
    if (cudaError_t status = submit_record(stream, fork)) return status;
  for (CUstream_st* lane : exec->lanes) {
    lanes.push_back(lane);
    if (cudaError_t status = submit_wait(lane, fork)) return status;
  }
  std::vector<std::shared_ptr<EventState>> events(size_t(graph.slots));
  for (const GraphEntry& entry : graph.entries) {
    CUstream_st* lane = lanes[size_t(entry.lane)];
    cudaError_t status = cudaSuccess;
    if (entry.kind == StreamEntry::Kind::work) {
      status = submit_work(lane, entry.work);
    } else if (entry.kind == StreamEntry::Kind::record) {
      events[size_t(entry.slot)] = std::make_shared<EventState>();
      status = submit_record(lane, events[size_t(entry.slot)]);
    } else {
      status = submit_wait(lane, events[size_t(entry.slot)]);
    }
    if (status) return status;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t spoil(Capture& capture, cudaError_t code, const std::string& why) {
  capture.invalid = true;
  return set_error(code, why);
}

cudaError_t forbid_in_capture(const char* call) {
  for (const CUstream_st* s : streams())
    if (s->capture && s->capture->mode != cudaStreamCaptureModeRelaxed)
      return spoil(*s->capture, cudaErrorStreamCaptureUnsupported, call);
  return cudaSuccess;
}

bool captured(const CUevent_st* event) { return !event->capture.expired(); }

cudaError_t capture_work(CUstream_st* stream, Work work) {
  if (cudaError_t status = check_valid(*stream->capture)) return status;
  stream->capture->graph->entries.push_back(
      {StreamEntry::Kind::work, stream->lane, 0, std::move(work)});
  return cudaSuccess;
}

cudaError_t capture_record(CUstream_st* stream, CUevent_st* event) {
  if (cudaError_t status = check_valid(*stream->capture)) return status;
  CUgraph_st& graph = *stream->capture->graph;
  event->capture = stream->capture;
  event->slot = graph.slots++;
  graph.entries.push_back({StreamEntry::Kind::record, stream->lane, event->slot, {}});
  return cudaSuccess;
}

cudaError_t capture_wait(CUstream_st* stream, CUevent_st* event) {
  const auto capture = event->capture.lock();
  if (!capture || (stream->capture && stream->capture != capture))
    return spoil(*stream->capture, cudaErrorStreamCaptureIsolation,
                 "a captured stream waits for an event outside of its capture");
  if (cudaError_t status = check_valid(*capture)) return status;
  if (!stream->capture) {
    stream->capture = capture;
    stream->lane = capture->graph->lanes++;
  }
  capture->graph->entries.push_back({StreamEntry::Kind::wait, stream->lane, event->slot, {}});
  return cudaSuccess;
}

GraphNodes graph_nodes(cudaGraphExec_t exec) {
  GraphNodes nodes;
  for (const GraphEntry& entry : exec->graph.entries) {
    if (entry.kind != StreamEntry::Kind::work) continue;
    const Work::Kind kind = entry.work.kind;
    ++(kind == Work::Kind::kernel   ? nodes.kernels
       : kind == Work::Kind::copy   ? nodes.copies
       : kind == Work::Kind::memset ? nodes.memsets
       : kind == Work::Kind::blas   ? nodes.blas
                                    : nodes.host);
  }
  return nodes;
}

}  // namespace sim

using namespace sim;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (!handle || handle == cudaStreamLegacy)
    return set_error(cudaErrorStreamCaptureUnsupported, "the null stream cannot be captured");
  if (stream->capture) return set_error(cudaErrorIllegalState, "the stream is captured already");
  stream->capture = std::make_shared<Capture>(Capture{new CUgraph_st, stream, mode});
  stream->lane = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  *status = !stream->capture           ? cudaStreamCaptureStatusNone
            : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const RuntimeLock lock;
  *graph = nullptr;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return set_error(cudaErrorIllegalState, "the stream is not captured");
  if (capture->origin != stream)
    return set_error(cudaErrorStreamCaptureUnmatched, "the capture began on another stream");
  for (CUstream_st* s : streams())
    if (s->capture == capture) s->capture = nullptr;
  const std::unique_ptr<CUgraph_st> made(capture->graph);
  if (capture->invalid) return set_error(cudaErrorStreamCaptureInvalidated);
  if (!joined(*made))
    return set_error(cudaErrorStreamCaptureUnjoined,
                     "work of another stream that nothing waits for");
  *graph = new CUgraph_st(*made);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{*graph, {}};
  return cudaSuccess;
}

// Takes the same nodes with other parameters. What was launched before stays as it was.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  const RuntimeLock lock;
  const auto same = [](const GraphEntry& a, const GraphEntry& b) {
    return a.kind == b.kind && a.lane == b.lane && a.slot == b.slot && a.work.kind == b.work.kind;
  };
  const bool fits = std::equal(exec->graph.entries.begin(), exec->graph.entries.end(),
                               graph->entries.begin(), graph->entries.end(), same);
  info->result = fits ? cudaGraphExecUpdateSuccess : cudaGraphExecUpdateErrorTopologyChanged;
  if (!fits) return set_error(cudaErrorGraphExecUpdateFailure);
  exec->graph = *graph;
  ++count().graph_updates;
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* number) {
  if (nodes) return set_error(cudaErrorNotSupported, "the nodes themselves");
  *number = size_t(std::count_if(graph->entries.begin(), graph->entries.end(),
                                 [](const auto& e) { return e.kind == StreamEntry::Kind::work; }));
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle);
  if (!stream) return cudaErrorInvalidResourceHandle;
  if (stream->capture)
    return spoil(*stream->capture, cudaErrorNotSupported,
                 "a graph within a graph is not simulated");
  ++count().graph_launches;
  return launch_graph(exec, stream);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  const RuntimeLock lock;
  delete exec;
  return cudaSuccess;
}
}
