#include "autograd/graph.h"

#ifdef DECALIGN_CUDA

#include <cstring>

namespace decalign::inline DECALIGN_REAL {
namespace {

const Cuda& cuda_of(const Device& device) {
  const Cuda* be = device.cuda();
  expect(be != nullptr, "Graph: the device is the host");
  return *be;
}

}  // namespace

struct Graph::Recorded {
  explicit Recorded(const Device& d, size_t list_bytes) : device(d), bytes(list_bytes) {
    lists.device = device.allocate(bytes);
    lists.bytes = bytes;
  }
  ~Recorded() {
    if (executable) (void)cudaGraphExecDestroy(executable);
    for (cudaEvent_t event : sent)
      if (event) (void)cudaEventDestroy(event);
    if (pinned) (void)cudaFreeHost(pinned);
    device.release(lists.device, bytes);
  }
  cudaGraph_t capture(const std::function<void()>& f);
  void instantiate(cudaGraph_t graph);
  void send_lists();

  static constexpr size_t kSlots = 4;  // recordings whose lists may be on their way
  Device device;
  size_t bytes, nodes = 0;
  Lists::Recording lists;
  cudaGraphExec_t executable = nullptr;
  std::byte* pinned = nullptr;  // [kSlots, bytes]
  cudaEvent_t sent[kSlots] = {};
  size_t sends = 0;
};

Graph::Graph(Graph&&) noexcept = default;
Graph::~Graph() = default;

// What `f` queues; its lists in `lists`.
cudaGraph_t Graph::Recorded::capture(const std::function<void()>& f) {
  const Cuda& be = cuda_of(device);
  cudaGraph_t graph = nullptr;
  const auto end = [&] {
    be.lists->record(nullptr);
    return cudaStreamEndCapture(be.stream, &graph);
  };
  lists.contents.clear();
  lists.entries.clear();
  be.lists->record(&lists);
  CUDA_CHECK(cudaStreamBeginCapture(be.stream, cudaStreamCaptureModeThreadLocal));
  try {
    f();
  } catch (...) {
    (void)end();
    if (graph) (void)cudaGraphDestroy(graph);
    throw;
  }
  CUDA_CHECK(end());
  return graph;
}

// The executable form of `graph`: the one that there is with other parameters, or, where nodes
// have come or gone, another one.
void Graph::Recorded::instantiate(cudaGraph_t graph) {
  (void)cudaGraphGetNodes(graph, nullptr, &nodes);
  cudaGraphExecUpdateResultInfo info{};
  cudaError_t status = executable ? cudaGraphExecUpdate(executable, graph, &info) : cudaSuccess;
  if (executable && status != cudaSuccess) {
    (void)cudaGetLastError();
    (void)cudaGraphExecDestroy(executable);
    executable = nullptr;
  }
  if (!executable) status = cudaGraphInstantiate(&executable, graph, 0);
  (void)cudaGraphDestroy(graph);
  CUDA_CHECK(status);
}

// To the device behind what reads the lists before, without a wait while slots are free.
void Graph::Recorded::send_lists() {
  const cudaStream_t stream = cuda_of(device).stream;
  if (!pinned) {
    CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&pinned), kSlots * bytes));
    for (cudaEvent_t& event : sent)
      CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  const size_t slot = sends % kSlots;
  if (sends++ >= kSlots) CUDA_CHECK(cudaEventSynchronize(sent[slot]));
  std::byte* const from = pinned + slot * bytes;
  std::memcpy(from, lists.contents.data(), lists.contents.size());
  if (!lists.contents.empty())
    CUDA_CHECK(
        cudaMemcpyAsync(lists.device, from, lists.contents.size(), cudaMemcpyHostToDevice, stream));
  CUDA_CHECK(cudaEventRecord(sent[slot], stream));
}

Graph::Graph(const Device& device, size_t list_bytes, const std::function<void()>& f)
    : recorded_(std::make_unique<Recorded>(device, list_bytes + 256)) {
  recorded_->instantiate(recorded_->capture(f));
  recorded_->lists.upload(cuda_of(device).stream);
}

void Graph::record(const std::function<void()>& f) {
  recorded_->instantiate(recorded_->capture(f));
  recorded_->send_lists();
}

void Graph::replay() const {
  CUDA_CHECK(cudaGraphLaunch(recorded_->executable, cuda_of(recorded_->device).stream));
}

size_t Graph::nodes() const { return recorded_->nodes; }

struct Readback::Rows {
  Rows(const Device& d, size_t slots, size_t w) : device(d), width(w), arrived(slots) {
    CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&memory), slots * width * sizeof(real)));
    for (cudaEvent_t& event : arrived)
      CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  ~Rows() {
    for (cudaEvent_t event : arrived)
      if (event) (void)cudaEventDestroy(event);
    (void)cudaFreeHost(memory);
  }
  Device device;
  size_t width;
  real* memory = nullptr;
  std::vector<cudaEvent_t> arrived;
  size_t sent = 0, received = 0;
};

Readback::Readback(const Device& device, size_t slots, size_t width)
    : rows_(std::make_unique<Rows>(device, slots, width)) {}
Readback::Readback(Readback&&) noexcept = default;
Readback::~Readback() = default;

void Readback::send(In row) {
  Rows& r = *rows_;
  expect(row.size() == r.width, "Readback::send: size of the row");
  expect(r.sent - r.received < r.arrived.size(), "Readback::send: every slot is on its way");
  const size_t slot = r.sent++ % r.arrived.size();
  const cudaStream_t stream = cuda_of(r.device).stream;
  CUDA_CHECK(cudaMemcpyAsync(r.memory + slot * r.width, row.data(), row.size_bytes(),
                             cudaMemcpyDeviceToHost, stream));
  CUDA_CHECK(cudaEventRecord(r.arrived[slot], stream));
}

In Readback::receive(bool wait) {
  Rows& r = *rows_;
  if (r.received == r.sent) return {};
  const size_t slot = r.received % r.arrived.size();
  if (wait) {
    CUDA_CHECK(cudaEventSynchronize(r.arrived[slot]));
  } else {
    const cudaError_t status = cudaEventQuery(r.arrived[slot]);
    if (status == cudaErrorNotReady) return {};
    CUDA_CHECK(status);
  }
  ++r.received;
  return {r.memory + slot * r.width, r.width};
}

}  // namespace decalign::inline DECALIGN_REAL

#else

namespace decalign::inline DECALIGN_REAL {

struct Graph::Recorded {};
Graph::Graph(Graph&&) noexcept = default;
Graph::~Graph() = default;
Graph::Graph(const Device&, size_t, const std::function<void()>&) {
  throw std::logic_error("Graph: this program was built without CUDA");
}
void Graph::record(const std::function<void()>&) {}
void Graph::replay() const {}
size_t Graph::nodes() const { return 0; }

struct Readback::Rows {};
Readback::Readback(const Device&, size_t, size_t) {
  throw std::logic_error("Readback: this program was built without CUDA");
}
Readback::Readback(Readback&&) noexcept = default;
Readback::~Readback() = default;
void Readback::send(In) {}
In Readback::receive(bool) { return {}; }

}  // namespace decalign::inline DECALIGN_REAL

#endif
