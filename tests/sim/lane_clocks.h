// What the lanes of a warp know of each other's memory accesses.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sim {

/// Every lane has a clock that advances where it meets others in a step that orders memory; all who
/// meet leave with the same time. An access of `other` at its time t is ordered before what `lane`
/// does now if lane knows of other's time t.
class LaneClocks {
 public:
  static constexpr uint32_t kEnd = 1u << 24;  // a clock's end: what an Access can hold

  void reset() {
    std::fill(std::begin(time_), std::end(time_), 1u);
    all_know_ = 0;
    apart_ = false;
  }

  uint32_t time(int lane) const { return time_[lane]; }
  bool knows(int lane, int other, uint32_t time) const {
    return time <= all_know_ || (apart_ && time <= known_[lane][other]);
  }
  uint32_t known(int lane, int other) const {
    return apart_ ? std::max(all_know_, known_[lane][other]) : all_know_;
  }

  /// The lanes of `mask` meet; `everyone`: no lane is missing. False if a clock is at its end.
  bool meet(uint32_t mask, bool everyone) {
    uint32_t latest = 0;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) latest = std::max(latest, time_[i]);
    if (everyone) {
      all_know_ = latest;
      apart_ = false;
    } else {
      share(mask, latest);
    }
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) time_[i] = latest + 1;
    return latest + 1 < kEnd;
  }

 private:
  void share(uint32_t mask, uint32_t latest) {
    if (!apart_)
      for (auto& lane : known_) std::fill(std::begin(lane), std::end(lane), all_know_);
    apart_ = true;
    uint32_t joined[32] = {};
    for (int i = 0; i < 32; ++i)
      for (int k = 0; k < 32 && mask >> i & 1; ++k) joined[k] = std::max(joined[k], known_[i][k]);
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) joined[i] = latest;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1) std::copy(std::begin(joined), std::end(joined), known_[i]);
  }

  uint32_t time_[32];
  uint32_t all_know_ = 0;  // every lane knows of every other's accesses up to here
  bool apart_ = false;     // some have met without the others since: known_ counts
  uint32_t known_[32][32];
};

}  // namespace sim
