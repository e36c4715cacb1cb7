#include "autograd/cuda_device.h"

namespace decalign::inline DECALIGN_REAL {

#ifdef DECALIGN_CUDA

namespace {
constexpr size_t kListBytes = size_t(4) << 20;
constexpr size_t kBlasBytes = size_t(32) << 20;  // what cuBLAS recommends for sm_90
}  // namespace

struct CudaDevice::Handles {
  Cuda be;
  void* memory = nullptr;  // index lists, cuBLAS's work space, counters
  std::unique_ptr<Lists> lists;
  ~Handles() {
    if (be.blas) (void)cublasDestroy(be.blas);
    if (be.stream) (void)cudaStreamDestroy(be.stream);
    (void)cudaFree(memory);
  }
};

CudaDevice::CudaDevice() : handles_(std::make_unique<Handles>()) {
  Handles& h = *handles_;
  CUDA_CHECK(cudaSetDevice(0));
  constexpr size_t kCounterBytes = kCounters * sizeof(unsigned);
  CUDA_CHECK(cudaMalloc(&h.memory, kListBytes + kBlasBytes + kCounterBytes));
  auto* const memory = static_cast<std::byte*>(h.memory);
  h.lists = std::make_unique<Lists>(memory, kListBytes);
  h.be.lists = h.lists.get();
  CUDA_CHECK(cudaStreamCreateWithFlags(&h.be.stream, cudaStreamNonBlocking));
  h.be.counters = reinterpret_cast<unsigned*>(memory + kListBytes + kBlasBytes);
  CUDA_CHECK(cudaMemsetAsync(h.be.counters, 0, kCounterBytes, h.be.stream));
  CUDA_CHECK(cublasCreate(&h.be.blas));
  CUDA_CHECK(cublasSetStream(h.be.blas, h.be.stream));
  // Of our own, so that a captured step keeps it.
  CUDA_CHECK(cublasSetWorkspace(h.be.blas, memory + kListBytes, kBlasBytes));
  CUDA_CHECK(cudaDeviceGetAttribute(&h.be.multiprocessors, cudaDevAttrMultiProcessorCount, 0));
}

CudaDevice::~CudaDevice() = default;

Device CudaDevice::device(Precision precision) const {
  Cuda be = handles_->be;
  be.precision = precision;
  return Device(be);
}

std::string CudaDevice::description() const {
  cudaDeviceProp p{};
  CUDA_CHECK(cudaGetDeviceProperties(&p, 0));
  return std::string(p.name) + ", " + std::to_string(p.totalGlobalMem >> 20) + " MB, sm_" +
         std::to_string(p.major) + std::to_string(p.minor);
}

std::string why_no_cuda() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (status == cudaErrorInsufficientDriver)
    return "CUDA: no driver, or one that is older than this program's CUDA " +
           std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION / 10 % 100);
  if (status != cudaSuccess) return std::string("CUDA: ") + cudaGetErrorString(status);
  return count > 0 ? "" : "CUDA: no GPU";
}

#else

struct CudaDevice::Handles {};
CudaDevice::CudaDevice() { throw std::runtime_error(why_no_cuda()); }
CudaDevice::~CudaDevice() = default;
Device CudaDevice::device(Precision) const { return {}; }
std::string CudaDevice::description() const { return {}; }
std::string why_no_cuda() { return "this program was built without CUDA"; }

#endif

OpenDevice open_device(const std::string& name, int threads, const std::string& precision) {
  const std::string missing = name == "cpu" ? "cpu was asked for" : why_no_cuda();
  if (missing.empty()) {
    auto cuda = std::make_unique<CudaDevice>();
    const auto device = cuda->device(precision == "bf16"   ? Precision::bf16
                                     : precision == "tf32" ? Precision::tf32
                                                           : Precision::fp32);
    const std::string products = precision == "fp32" ? "" : ", products in " + precision;
    return {device, cuda->description() + products, std::move(cuda)};
  }
  if (name == "cuda") throw device_error("--device cuda: " + missing);
  const std::string other =
      precision == "fp32" ? ""
                          : "; precision " + precision + " is a GPU's, this one computes in fp32";
  return {Device(Cpu{threads}), "CPU" + other, nullptr};
}

}  // namespace decalign::inline DECALIGN_REAL
