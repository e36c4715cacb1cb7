#include "autograd/uploads.h"

#include <stdexcept>

namespace decalign::inline DECALIGN_REAL {

#ifdef DECALIGN_CUDA

struct Uploads::Slots {
  struct Slot {
    float *host = nullptr, *device = nullptr;
    cudaEvent_t arrived = nullptr;  // in `device`
    cudaEvent_t taken = nullptr;    // from `device`
  };
  Slots(const Device& d, size_t n) : owner(d), values(n) {
    expect(d.cuda() != nullptr, "Uploads: the device is the host");
    const size_t bytes = n * sizeof(float);
    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (Slot& slot : slots) {
      CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&slot.host), bytes));
      slot.device = reinterpret_cast<float*>(owner.allocate(bytes));
      for (cudaEvent_t* event : {&slot.arrived, &slot.taken})
        CUDA_CHECK(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    }
    there = reinterpret_cast<float*>(owner.allocate(bytes));
  }
  ~Slots() {
    if (stream) (void)cudaStreamSynchronize(stream);
    for (const Slot& slot : slots) {
      for (cudaEvent_t event : {slot.arrived, slot.taken})
        if (event) (void)cudaEventDestroy(event);
      if (slot.device)
        owner.release(reinterpret_cast<std::byte*>(slot.device), values * sizeof(float));
      if (slot.host) (void)cudaFreeHost(slot.host);
    }
    if (there) owner.release(reinterpret_cast<std::byte*>(there), values * sizeof(float));
    if (stream) (void)cudaStreamDestroy(stream);
  }
  Slot& next() { return slots[sent % 2]; }

  Device owner;
  size_t values, sent = 0;
  cudaStream_t stream = nullptr;
  Slot slots[2];
  float* there = nullptr;
};

Uploads::Uploads(const Device& device, size_t values)
    : slots_(std::make_unique<Slots>(device, values)) {}

std::span<float> Uploads::host() {
  Slots& s = *slots_;
  if (s.sent >= 2) CUDA_CHECK(cudaEventSynchronize(s.next().arrived));
  return {s.next().host, s.values};
}

std::span<const float> Uploads::there() const { return {slots_->there, slots_->values}; }

void Uploads::send(size_t count) {
  Slots& s = *slots_;
  expect(count <= s.values, "Uploads::send: more than there is room for");
  const cudaStream_t compute = s.owner.cuda()->stream;
  const size_t bytes = count * sizeof(float);
  Slots::Slot& slot = s.next();
  if (s.sent++ >= 2) CUDA_CHECK(cudaStreamWaitEvent(s.stream, slot.taken, 0));
  CUDA_CHECK(cudaMemcpyAsync(slot.device, slot.host, bytes, cudaMemcpyHostToDevice, s.stream));
  CUDA_CHECK(cudaEventRecord(slot.arrived, s.stream));
  // A recorded step reads one address.
  CUDA_CHECK(cudaStreamWaitEvent(compute, slot.arrived, 0));
  CUDA_CHECK(cudaMemcpyAsync(s.there, slot.device, bytes, cudaMemcpyDeviceToDevice, compute));
  CUDA_CHECK(cudaEventRecord(slot.taken, compute));
}

#else

struct Uploads::Slots {};
Uploads::Uploads(const Device&, size_t) {
  throw std::logic_error("Uploads: this program was built without CUDA");
}
std::span<float> Uploads::host() { return {}; }
std::span<const float> Uploads::there() const { return {}; }
void Uploads::send(size_t) {}

#endif

Uploads::Uploads(Uploads&&) noexcept = default;
Uploads::~Uploads() = default;

}  // namespace decalign::inline DECALIGN_REAL
