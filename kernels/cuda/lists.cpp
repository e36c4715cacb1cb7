#include <cstring>

#include "kernels/cuda/backend.h"

namespace decalign {
namespace {

size_t rounded(size_t bytes) { return (bytes + 15) / 16 * 16; }

void require_room(size_t needed, size_t bytes) {
  if (needed > bytes)
    throw std::length_error("Cuda: " + std::to_string(needed) +
                            " bytes of index lists are more than the " + std::to_string(bytes) +
                            " that the backend was given");
}

const void* keep(Lists::Recording& r, const void* source, size_t bytes) {
  for (const auto& [offset, size] : r.entries)
    if (size == bytes && std::memcmp(r.contents.data() + offset, source, bytes) == 0)
      return r.device + offset;
  const size_t offset = r.contents.size();
  require_room(offset + rounded(bytes), r.bytes);
  r.contents.resize(offset + rounded(bytes));
  std::memcpy(r.contents.data() + offset, source, bytes);
  r.entries.emplace_back(offset, bytes);
  return r.device + offset;
}

}  // namespace

const void* Lists::stage(cudaStream_t stream, const void* source, size_t bytes) {
  if (recording_) return keep(*recording_, source, bytes);
  require_room(rounded(bytes), bytes_);
  if (used_ + rounded(bytes) > bytes_) used_ = 0;
  std::byte* const target = device_ + used_;
  used_ += rounded(bytes);
  staged_ += rounded(bytes);
  CUDA_CHECK(cudaMemcpyAsync(target, source, bytes, cudaMemcpyHostToDevice, stream));
  return target;
}

void Lists::Recording::upload(cudaStream_t stream) const {
  if (!contents.empty())
    CUDA_CHECK(
        cudaMemcpyAsync(device, contents.data(), contents.size(), cudaMemcpyHostToDevice, stream));
}

}  // namespace decalign
