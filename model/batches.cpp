#include "model/batches.h"

#include <algorithm>
#include <numeric>

#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

std::vector<int64_t> shuffled(int64_t n, uint64_t seed, uint64_t epoch) {
  constexpr uint32_t kShuffle = 0xfffffffe;  // no dropout op has this number
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t(0));
  for (int64_t i = n - 1; i > 0; --i) {
    const auto word = philox({uint32_t(i), uint32_t(uint64_t(i) >> 32), kShuffle, uint32_t(epoch)},
                             {uint32_t(seed), uint32_t(seed >> 32)});
    const uint64_t random = (uint64_t(word[0]) << 32) | word[1];
    std::swap(order[size_t(i)], order[size_t(random % uint64_t(i + 1))]);
  }
  return order;
}

void gather_tokens(const Split& split, std::span<const int64_t> samples, Batch& batch) {
  for (size_t m = 0; m < split.modalities.size(); ++m) {
    const Sequences& s = split.modalities[m];
    BatchModality& out = batch.modalities[m];
    out.tokens.clear();
    out.lengths.clear();
    for (int64_t n : samples) {
      if (!s.tokens.empty()) {
        const auto first = s.tokens.begin() + n * 3 * s.steps;
        out.tokens.insert(out.tokens.end(), first, first + 3 * s.steps);
      }
      out.lengths.push_back(s.lengths.empty() ? int32_t(s.steps) : s.lengths[size_t(n)]);
    }
  }
}

void gather(const Split& split, std::span<const int64_t> samples, Batch& batch) {
  batch.count = std::ssize(samples);
  batch.modalities.resize(split.modalities.size());
  batch.labels.clear();
  for (size_t m = 0; m < split.modalities.size(); ++m) {
    const Sequences& s = split.modalities[m];
    BatchModality& out = batch.modalities[m];
    out.steps = s.steps;
    out.width = s.width;
    out.x.resize(s.values.empty() ? 0 : size_t(batch.count * s.steps * s.width));
    auto next = out.x.begin();
    for (int64_t n : samples) {
      if (s.values.empty()) break;
      const auto sample = s.sample(n);
      next = std::copy(sample.begin(), sample.end(), next);
    }
  }
  gather_tokens(split, samples, batch);
  if (split.labels.empty()) return;
  for (int64_t n : samples) batch.labels.push_back(split.labels[size_t(n)]);
}

std::vector<ModalitySize> modality_sizes(const Split& split) {
  std::vector<ModalitySize> sizes;
  for (const Sequences& s : split.modalities) sizes.push_back({s.name, s.steps, s.width});
  return sizes;
}

}  // namespace decalign::inline DECALIGN_REAL
