// Many small problems on few threads, each thread with work space of its own.
#pragma once

#include <atomic>

#include "kernels/carve.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {

/// Which thread takes a problem is chance: no result may depend on whose work space it had.
class Slots {
 public:
  /// `size` doubles of work space a thread; `flops` of all problems together say how many threads
  /// are worth waking: one for every 20 us or so.
  Slots(const Cpu& be, int64_t size, double flops)
      : be_(be),
        size_(size),
        count_(std::min<int64_t>(thread_count(be), 1 + int64_t(flops / 1e6))) {}

  size_t bytes() const { return carve_bytes<double>(count_ * size_); }

  /// body(i, work space) for i < n.
  template <class F>
  void run(int64_t n, Scratch scratch, F&& body) const {
    double* const work = carve<double>(scratch, count_ * size_);
    std::atomic<int64_t> next{0};
    parallel_for(be_, std::min(count_, n), [&](int64_t slot) {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;)
        body(i, work + slot * size_);
    });
  }

 private:
  Cpu be_;
  int64_t size_, count_;
};

}  // namespace decalign::inline DECALIGN_REAL
