// The simulated device finds planted faults and nothing else; what it counts.
#include <catch2/catch.hpp>

#include "tests/sim/control.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/counters.h"
#include "tests/sim/faults.h"

using namespace decalign;
using namespace decalign::test;

namespace {

constexpr uint64_t kSeeds = 20;

std::string report_of(const Fault& fault, bool planted) {
  std::string report;
  try {
    fault.run(planted);
    CUDA_CHECK(cudaDeviceSynchronize());
  } catch (const cuda_error& error) {
    report = error.what();
  }
  sim::forget_error();
  return report;
}

void require_found(const std::vector<Fault>& faults) {
  for (const Fault& fault : faults)
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      sim::set_seed(seed);
      INFO(fault.name << ", seed " << seed);
      REQUIRE_THAT(report_of(fault, true), Catch::Contains(fault.report));
      REQUIRE(report_of(fault, false) == "");
    }
}

class Captured {
 public:
  template <class F>
  Captured(const Cuda& be, F f) : stream_(be.stream) {
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    f();
    CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&graph_, graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  ~Captured() { (void)cudaGraphExecDestroy(graph_); }
  void replay() const { CUDA_CHECK(cudaGraphLaunch(graph_, stream_)); }
  sim::GraphNodes nodes() const { return sim::graph_nodes(graph_); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

void queue_some_work(const Cuda& be, cublasHandle_t blas, float* x, float* y) {
  const float one = 1, zero = 0;
  queue_adds(be, x, 2);
  CUDA_CHECK(cudaMemsetAsync(y, 0, 64 * sizeof(float), be.stream));
  CUDA_CHECK(cudaMemcpyAsync(y, x, 64 * sizeof(float), cudaMemcpyDeviceToDevice, be.stream));
  CUDA_CHECK(cublasSetStream(blas, be.stream));
  CUDA_CHECK(cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_T, 8, 8, 8, &one, x, 8, x, 8, &zero, y, 8));
}

}  // namespace

TEST_CASE("sim: finds faults of memory", "[sim]") { require_found(memory_faults()); }
TEST_CASE("sim: finds faults of order", "[sim]") { require_found(order_faults()); }
TEST_CASE("sim: finds misuse of the runtime", "[sim]") { require_found(runtime_faults()); }

TEST_CASE("sim: counts what the host does, and the nodes of a graph", "[sim]") {
  const Stream stream;
  cublasHandle_t blas;
  CUDA_CHECK(cublasCreate(&blas));
  const sim::Counters start = sim::counters();
  {
    const Array<float> x(64, 1), y(64);
    const sim::Counters allocated = sim::counters();
    const Captured graph(stream, [&] { queue_some_work(stream, blas, x.get(), y.get()); });
    REQUIRE(graph.nodes().kernels == 2);
    REQUIRE(graph.nodes().memsets == 1);
    REQUIRE(graph.nodes().copies == 1);
    REQUIRE(graph.nodes().blas == 1);
    REQUIRE(graph.nodes().total() == 5);
    for (int i = 0; i < 3; ++i) graph.replay();
    sim::Counters done = sim::counters() - allocated;
    REQUIRE(done.graph_launches == 3);
    REQUIRE(done.kernels + done.blas + done.memsets + done.device_copies == 0);
    REQUIRE(done.allocations + done.synchronisations + done.uploads + done.downloads == 0);

    queue_some_work(stream, blas, x.get(), y.get());
    CUDA_CHECK(cudaStreamSynchronize(stream.get()));
    y.download();
    done = sim::counters() - allocated;
    REQUIRE(done.kernels == 2);
    REQUIRE(done.memsets == 1);
    REQUIRE(done.device_copies == 1);
    REQUIRE(done.blas == 1);
    REQUIRE(done.downloads == 1);
    REQUIRE(done.synchronisations == 2);
  }
  const sim::Counters all = sim::counters() - start;
  REQUIRE(all.allocations == 2);
  REQUIRE(all.frees == 2);
  REQUIRE(all.uploads == 1);
  CUDA_CHECK(cublasDestroy(blas));
}

TEST_CASE("sim: streams and graphs give results", "[sim]") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    sim::set_seed(seed);
    const Stream stream;
    const Array<float> x(64, 1);
    queue_adds(stream, x.get(), 3);
    const Captured graph(stream, [&] { queue_adds(stream, x.get(), 2); });
    for (int i = 0; i < 4; ++i) graph.replay();
    std::vector<float> got(64);
    CUDA_CHECK(cudaMemcpyAsync(got.data(), x.get(), 64 * sizeof(float), cudaMemcpyDeviceToHost,
                               stream.get()));
    CUDA_CHECK(cudaStreamSynchronize(stream.get()));
    REQUIRE(got == std::vector<float>(64, 12));
  }
}

TEST_CASE("sim: counts what kernels cost", "[sim]") {
  sim::start_costs();
  run_known_costs();
  CUDA_CHECK(cudaDeviceSynchronize());
  sim::stop_costs();
  const std::vector<sim::KernelCost> all = sim::costs();
  const auto cost = [&](const std::string& kernel) {
    for (const sim::KernelCost& c : all)
      if (c.kernel == kernel) return c;
    FAIL(kernel << " was not counted");
    return sim::KernelCost();
  };

  const sim::KernelCost coalesced = cost("coalesced_kernel");
  REQUIRE(coalesced.file == "known_costs.cu");
  REQUIRE((coalesced.launches == 3 && coalesced.blocks == 2 && coalesced.threads == 64));
  REQUIRE((coalesced.bytes_read == 3 * 512 && coalesced.bytes_written == 3 * 512));
  REQUIRE((coalesced.distinct_read == 3 * 512 && coalesced.distinct_written == 3 * 512));
  REQUIRE((coalesced.sectors == 3 * 2 * 16 && coalesced.ideal_sectors == 3 * 2 * 16));
  REQUIRE(coalesced.scattered.empty());

  const sim::KernelCost vector = cost("vector_kernel");
  REQUIRE((vector.bytes_read == 2048 && vector.sectors == 128 && vector.ideal_sectors == 128));

  const sim::KernelCost scattered = cost("scattered_kernel");
  REQUIRE((scattered.bytes_read == 512 && scattered.distinct_read == 4096));
  REQUIRE((scattered.sectors == 128 + 16 && scattered.ideal_sectors == 16 + 16));
  REQUIRE(scattered.scattered.size() == 1);
  REQUIRE_THAT(scattered.scattered[0].line, Catch::Contains("known_costs.cu:"));
  REQUIRE(scattered.scattered[0].ratio() == 8);

  // A whole first turn, then every other lane's second: 128 bytes of a warp, then half of them.
  const sim::KernelCost diverged = cost("diverged_kernel");
  REQUIRE(
      (diverged.bytes_read == 256 + 128 && diverged.sectors == 24 && diverged.ideal_sectors == 20));

  const sim::KernelCost conflict = cost("bank_kernel<32>"), padded = cost("bank_kernel<33>");
  REQUIRE((conflict.most_ways == 32 && conflict.shared_accesses == 2));
  REQUIRE((conflict.shared_passes == 64 && conflict.ideal_passes == 2));
  REQUIRE(conflict.conflicting.size() == 2);
  REQUIRE((padded.most_ways == 1 && padded.conflicting.empty()));
  REQUIRE(padded.barriers == 1);

  const sim::KernelCost pairs = cost("pairs_kernel");
  REQUIRE((pairs.most_ways == 1 && pairs.shared_accesses == 4 && pairs.ideal_passes == 8));
}
