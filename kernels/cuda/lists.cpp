#include <algorithm>
#include <cstring>

#include "kernels/cuda/backend.h"

namespace decalign {
namespace {
constexpr size_t kAlignment = 16;
}

const void* Lists::stage(cudaStream_t stream, const void* source, size_t bytes) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (recording_)
    for (const Entry& e : entries_)
      if (e.bytes == bytes && std::memcmp(shadow_.data() + e.offset, source, bytes) == 0)
        return device_ + e.offset;
  if (!recording_ && used_ + rounded > bytes_) used_ = 0;
  if (used_ + rounded > bytes_)
    throw std::length_error("Cuda: " + std::to_string(used_ + rounded) +
                            " bytes of index lists are more than the " + std::to_string(bytes_) +
                            " that the backend was given");
  const size_t offset = used_;
  used_ += rounded;
  if (recording_) {
    shadow_.resize(used_);
    std::memcpy(shadow_.data() + offset, source, bytes);
    entries_.push_back({offset, bytes});
  } else {
    CUDA_CHECK(cudaMemcpyAsync(device_ + offset, source, bytes, cudaMemcpyHostToDevice, stream));
  }
  return device_ + offset;
}

void Lists::record() {
  recording_ = true;
  used_ = 0;
  shadow_.clear();
  entries_.clear();
}

void Lists::upload(cudaStream_t stream) {
  if (used_ > 0)
    CUDA_CHECK(cudaMemcpyAsync(device_, shadow_.data(), used_, cudaMemcpyHostToDevice, stream));
}

}  // namespace decalign
