#include "tests/sim/faults.h"

namespace decalign::test {
namespace {

constexpr int kThreads = 64;
constexpr size_t kBytes = kThreads * sizeof(float);

__global__ void add_kernel(float* y) { y[threadIdx.x] += 1; }

// A graph of `stream` that adds to y; `within` runs during the capture.
template <class F>
cudaGraphExec_t captured(const Stream& stream, float* y, F within) {
  cudaGraph_t graph = nullptr;
  CUDA_CHECK(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeGlobal));
  launch(stream, add_kernel, 1, kThreads, 0, y);
  try {
    within();
  } catch (...) {
    (void)cudaStreamEndCapture(stream.get(), &graph);
    throw;
  }
  CUDA_CHECK(cudaStreamEndCapture(stream.get(), &graph));
  cudaGraphExec_t exec = nullptr;
  CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  CUDA_CHECK(cudaGraphDestroy(graph));
  return exec;
}

void replay(cudaGraphExec_t exec, const Stream& stream) {
  for (int i = 0; i < 3; ++i) CUDA_CHECK(cudaGraphLaunch(exec, stream.get()));
  CUDA_CHECK(cudaStreamSynchronize(stream.get()));
  CUDA_CHECK(cudaGraphExecDestroy(exec));
}

void synchronisation_in_capture(bool fault) {
  const Array<float> y(kThreads, 0);
  const Stream stream;
  replay(captured(stream, y.get(),
                  [&] {
                    if (fault) CUDA_CHECK(cudaStreamSynchronize(stream.get()));
                  }),
         stream);
}

void allocation_in_capture(bool fault) {
  const Array<float> y(kThreads, 0);
  const Stream stream;
  replay(captured(stream, y.get(),
                  [&] {
                    if (fault) Array<float> more(1);
                  }),
         stream);
}

// Another stream joins the capture; its work must be waited for.
void unjoined_capture(bool fault) {
  const Array<float> y(kThreads, 0), z(kThreads, 0);
  const Stream stream, other;
  cudaEvent_t fork, join;
  CUDA_CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  CUDA_CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  const auto within = [&] {
    CUDA_CHECK(cudaEventRecord(fork, stream.get()));
    CUDA_CHECK(cudaStreamWaitEvent(other.get(), fork, 0));
    launch(other, add_kernel, 1, kThreads, 0, z.get());
    launch(other, add_kernel, 1, kThreads, 0, y.get());
    CUDA_CHECK(cudaEventRecord(join, other.get()));
    if (!fault) CUDA_CHECK(cudaStreamWaitEvent(stream.get(), join, 0));
  };
  replay(captured(stream, y.get(), within), stream);
  CUDA_CHECK(cudaEventDestroy(fork));
  CUDA_CHECK(cudaEventDestroy(join));
}

// Two branches of a graph that nothing orders.
void race_in_graph(bool fault) {
  const Array<float> y(kThreads, 0), z(kThreads, 0);
  const Stream stream, other;
  cudaEvent_t fork, join;
  CUDA_CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
  CUDA_CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
  const auto within = [&] {
    CUDA_CHECK(cudaEventRecord(fork, stream.get()));
    CUDA_CHECK(cudaStreamWaitEvent(other.get(), fork, 0));
    launch(other, add_kernel, 1, kThreads, 0, z.get());
    launch(stream, add_kernel, 1, kThreads, 0, fault ? z.get() : y.get());
    CUDA_CHECK(cudaEventRecord(join, other.get()));
    CUDA_CHECK(cudaStreamWaitEvent(stream.get(), join, 0));
  };
  replay(captured(stream, y.get(), within), stream);
  CUDA_CHECK(cudaEventDestroy(fork));
  CUDA_CHECK(cudaEventDestroy(join));
}

void graph_of_freed_memory(bool fault) {
  const Stream stream;
  auto y = std::make_unique<Array<float>>(kThreads, 0.f);
  const cudaGraphExec_t exec = captured(stream, y->get(), [] {});
  if (fault) y.reset();
  replay(exec, stream);
}

void destroyed_stream(bool fault) {
  const Array<float> y(kThreads, 0);
  Cuda be;
  CUDA_CHECK(cudaStreamCreateWithFlags(&be.stream, cudaStreamNonBlocking));
  if (fault) CUDA_CHECK(cudaStreamDestroy(be.stream));
  launch(be, add_kernel, 1, kThreads, 0, y.get());
  if (!fault) CUDA_CHECK(cudaStreamDestroy(be.stream));
}

void double_free(bool fault) {
  void* memory = nullptr;
  CUDA_CHECK(cudaMalloc(&memory, kBytes));
  CUDA_CHECK(cudaFree(memory));
  if (fault) CUDA_CHECK(cudaFree(memory));
}

void gemm(int rows, int leading) {
  const Array<float> a(64, 1), b(64, 1), c(64);
  const float one = 1, zero = 0;
  const Stream stream;
  cublasHandle_t blas;
  CUDA_CHECK(cublasCreate(&blas));
  CUDA_CHECK(cublasSetStream(blas, stream.get()));
  CUDA_CHECK(cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, rows, 8, 8, &one, a.get(), leading,
                         b.get(), 8, &zero, c.get(), leading));
  CUDA_CHECK(cudaDeviceSynchronize());
  CUDA_CHECK(cublasDestroy(blas));
}

}  // namespace

void queue_adds(const Cuda& be, float* x, int count) {
  for (int i = 0; i < count; ++i) launch(be, add_kernel, 1, kThreads, 0, x);
}

std::vector<Fault> runtime_faults() {
  return {
      {"a copy in the wrong direction",
       "invalid value: a copy: the source is not the device's memory",
       [](bool fault) {
         const Array<float> y(kThreads);
         const std::vector<float> x(kThreads);
         CUDA_CHECK(cudaMemcpy(y.get(), x.data(), kBytes,
                               fault ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice));
       }},
      {"a copy of too much", "invalid value: a copy: 257 bytes from device memory, byte 0 of 256",
       [](bool fault) {
         const Array<float> y(kThreads);
         const std::vector<float> x(kThreads + 1);
         CUDA_CHECK(cudaMemcpy(y.get(), x.data(), kBytes + fault, cudaMemcpyHostToDevice));
       }},
      {"a fill of the host's memory", "cudaMemset: memory of the host",
       [](bool fault) {
         const Array<float> y(kThreads);
         std::vector<float> x(kThreads);
         CUDA_CHECK(cudaMemset(fault ? x.data() : y.get(), 0, kBytes));
       }},
      {"too many threads", "more than 1024 threads in a block",
       [](bool fault) {
         const Array<float> y(1025, 0);
         launch(Cuda{}, add_kernel, 1, 1024 + fault, 0, y.get());
       }},
      {"more dynamic shared memory than a block has", "more dynamic shared memory",
       [](bool fault) {
         const Array<float> y(kThreads, 0);
         launch(Cuda{}, add_kernel, 1, kThreads, 227 * 1024 + fault, y.get());
       }},
      {"synchronisation in a capture", "not permitted when a stream is capturing",
       synchronisation_in_capture},
      {"allocation in a capture", "not permitted when a stream is capturing: cudaMalloc",
       allocation_in_capture},
      {"a capture that was not joined", "the capture was not joined", unjoined_capture},
      {"a race in a graph", "which no event or wait orders before this", race_in_graph},
      {"a graph of freed memory", "freed device memory", graph_of_freed_memory},
      {"a destroyed stream", "no such stream, or it was destroyed", destroyed_stream},
      {"memory freed twice", "cudaFree: freed before, or never allocated", double_free},
      {"cuBLAS beyond a matrix", "cuBLAS: out of bounds",
       [](bool fault) { gemm(8, fault ? 9 : 8); }},
      {"cuBLAS and a leading dimension that is too small", "cuBLAS status 7",
       [](bool fault) { gemm(8, fault ? 7 : 8); }},
  };
}

}  // namespace decalign::test
