#include "autograd/graph.h"

#ifdef DECALIGN_CUDA

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
    device.release(lists.device, bytes);
  }
  Device device;
  size_t bytes, nodes = 0;
  Lists::Recording lists;
  cudaGraphExec_t executable = nullptr;
};

Graph::Graph(Graph&&) noexcept = default;
Graph::~Graph() = default;

Graph::Graph(const Device& device, size_t list_bytes, const std::function<void()>& f)
    : recorded_(std::make_unique<Recorded>(device, list_bytes + 256)) {
  const Cuda& be = cuda_of(device);
  cudaGraph_t graph = nullptr;
  const auto end = [&] {
    be.lists->record(nullptr);
    return cudaStreamEndCapture(be.stream, &graph);
  };
  be.lists->record(&recorded_->lists);
  CUDA_CHECK(cudaStreamBeginCapture(be.stream, cudaStreamCaptureModeThreadLocal));
  try {
    f();
  } catch (...) {
    (void)end();
    if (graph) (void)cudaGraphDestroy(graph);
    throw;
  }
  CUDA_CHECK(end());
  const cudaError_t status = cudaGraphInstantiate(&recorded_->executable, graph, 0);
  (void)cudaGraphGetNodes(graph, nullptr, &recorded_->nodes);
  (void)cudaGraphDestroy(graph);
  CUDA_CHECK(status);
  recorded_->lists.upload(be.stream);
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
