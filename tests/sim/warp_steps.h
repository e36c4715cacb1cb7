// Barriers, fences, shuffles and votes of the simulated device.
#pragma once

#include <cstring>

#include "tests/sim/sim.h"

namespace sim {

/// A place in a kernel's source.
struct Site {
  const char* file;
  int line;
};
#define SIM_SITE ::sim::Site site = {__builtin_FILE(), __builtin_LINE()}

/// What the lanes of a warp brought to a step that they take together.
struct Lanes {
  void* payload[32];
  uint32_t mask;
};
using Combine = void (*)(Lanes&);

int lane_index();

/// Waits for the lanes of `mask`; `combine` then runs once for all. A step that orders memory makes
/// what one lane wrote before visible to the others, as __syncwarp does and a shuffle does not.
void warp_step(const char* kind, uint32_t mask, void* payload, Combine combine, bool orders_memory,
               Site site);

enum class Vote { count, all, any };
void block_barrier(Site site);
int block_vote(int predicate, Vote vote, Site site);
void device_fence();

template <class T>
struct ShuffleLane {
  T in, out;
  int source;
};

template <class T>
T shuffle(uint32_t mask, T value, int source, const char* kind, Site site) {
  ShuffleLane<T> lane{value, value, source};
  const auto exchange = [](Lanes& lanes) {
    for (int i = 0; i < 32; ++i) {
      if (!(lanes.mask >> i & 1)) continue;
      auto* me = static_cast<ShuffleLane<T>*>(lanes.payload[i]);
      if (lanes.mask >> me->source & 1)
        me->out = static_cast<ShuffleLane<T>*>(lanes.payload[me->source])->in;
      else  // undefined on a GPU: NaN, or a large negative number
        std::memset(static_cast<void*>(&me->out), 0xFF, sizeof(T));
    }
  };
  warp_step(kind, mask, &lane, exchange, false, site);
  return lane.out;
}

/// The lane at `place` of this lane's group of `width`; this lane if it lies outside.
inline int group_lane(int place, int width) {
  const int lane = lane_index();
  return place >= 0 && place < width ? (lane & ~(width - 1)) + place : lane;
}

struct VoteLane {
  int64_t in, out;
};

/// Folds the lanes' values with `f`, a lambda without captures, in every lane.
template <class F>
int64_t fold_lanes(uint32_t mask, int64_t value, const char* kind, Site site, F) {
  VoteLane lane{value, 0};
  const auto fold = [](Lanes& lanes) {
    bool first = true;
    int64_t total = 0;
    for (int i = 0; i < 32; ++i) {
      if (!(lanes.mask >> i & 1)) continue;
      const int64_t in = static_cast<VoteLane*>(lanes.payload[i])->in;
      total = first ? in : F{}(total, in);
      first = false;
    }
    for (int i = 0; i < 32; ++i)
      if (lanes.mask >> i & 1) static_cast<VoteLane*>(lanes.payload[i])->out = total;
  };
  warp_step(kind, mask, &lane, fold, false, site);
  return lane.out;
}

}  // namespace sim

inline void __syncthreads(SIM_SITE) { sim::block_barrier(site); }
inline int __syncthreads_count(int predicate, SIM_SITE) {
  return sim::block_vote(predicate != 0, sim::Vote::count, site);
}
inline int __syncthreads_and(int predicate, SIM_SITE) {
  return sim::block_vote(predicate != 0, sim::Vote::all, site);
}
inline int __syncthreads_or(int predicate, SIM_SITE) {
  return sim::block_vote(predicate != 0, sim::Vote::any, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIM_SITE) {
  sim::warp_step("__syncwarp", mask, nullptr, nullptr, true, site);
}
inline void __threadfence() { sim::device_fence(); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIM_SITE) {
  return sim::shuffle(mask, value, sim::group_lane(source & (width - 1), width), "__shfl_sync",
                      site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIM_SITE) {
  const int place = (sim::lane_index() & (width - 1)) ^ bits;
  return sim::shuffle(mask, value, sim::group_lane(place, width), "__shfl_xor_sync", site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIM_SITE) {
  const int place = (sim::lane_index() & (width - 1)) + int(delta);
  return sim::shuffle(mask, value, sim::group_lane(place, width), "__shfl_down_sync", site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIM_SITE) {
  const int place = (sim::lane_index() & (width - 1)) - int(delta);
  return sim::shuffle(mask, value, sim::group_lane(place, width), "__shfl_up_sync", site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIM_SITE) {
  const int64_t bit = predicate != 0 ? int64_t(1) << sim::lane_index() : 0;
  return unsigned(sim::fold_lanes(mask, bit, "__ballot_sync", site,
                                  [](int64_t a, int64_t b) { return a | b; }));
}
inline int __any_sync(unsigned mask, int predicate, SIM_SITE) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIM_SITE) {
  return __ballot_sync(mask, !predicate, site) == 0;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, SIM_SITE) {
  return T(sim::fold_lanes(mask, value, "__reduce_add_sync", site,
                           [](int64_t a, int64_t b) { return a + b; }));
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, SIM_SITE) {
  return T(sim::fold_lanes(mask, value, "__reduce_max_sync", site,
                           [](int64_t a, int64_t b) { return a > b ? a : b; }));
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, SIM_SITE) {
  return T(sim::fold_lanes(mask, value, "__reduce_min_sync", site,
                           [](int64_t a, int64_t b) { return a < b ? a : b; }));
}
