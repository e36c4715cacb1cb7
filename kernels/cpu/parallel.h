// Threads for CPU kernels. Work is cut into tasks by the problem alone, never by the number of
// threads, so that every thread count gives the same bits.
#pragma once

#include <omp.h>

#include <algorithm>

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

inline int thread_count(const Cpu& cpu) {
  return cpu.threads > 0 ? cpu.threads : omp_get_max_threads();
}

/// One copy of the task's code for every number of threads: inlined twice, a loop may be contracted
/// or vectorised in two ways, with different bits.
template <class F>
#ifdef __clang__
[[gnu::noinline]]
#else
[[gnu::noinline, gnu::noclone]]
#endif
void run_task(F& task, int64_t i) {
  task(i);
}

/// task(i) for i in [0, tasks), on as many threads as the backend allows. Tasks must not depend on
/// each other.
template <class F>
void parallel_for(const Cpu& cpu, int64_t tasks, F&& task) {
  const int threads = int(std::min<int64_t>(thread_count(cpu), tasks));
  if (threads <= 1) {
    for (int64_t i = 0; i < tasks; ++i) run_task(task, i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (int64_t i = 0; i < tasks; ++i) run_task(task, i);
}

/// body(begin, end) over [0, n) in pieces of `grain` elements.
template <class F>
void parallel_ranges(const Cpu& cpu, int64_t n, int64_t grain, F&& body) {
  parallel_for(cpu, (n + grain - 1) / grain,
               [&](int64_t i) { body(i * grain, std::min(n, (i + 1) * grain)); });
}

}  // namespace decalign::inline DECALIGN_REAL
