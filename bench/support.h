// Benchmark helpers: inputs, the processor's measured peak, columns.
#pragma once

#include <benchmark/benchmark.h>

#include <chrono>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL::bench {

using Values = std::vector<real>;

inline Values uniform(int64_t n, unsigned seed) {
  std::mt19937 rng(seed);
  Values v(static_cast<size_t>(n));
  for (real& e : v) e = real(double(rng()) / 2147483648.0 - 1);
  return v;
}

/// GFLOP/s of independent fused multiply-adds in registers on this many threads, best of several.
inline double peak_gflops(int threads) {
  constexpr int kChains = 12;
  constexpr int64_t kSteps = 400000;
  double best = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    real sink = 0;
#pragma omp parallel num_threads(threads) reduction(+ : sink)
    {
      vreal acc[kChains];
      for (int c = 0; c < kChains; ++c) acc[c] = broadcast(real(c));
      vreal a = broadcast(real(0.999)), b = broadcast(real(1e-3));
      asm volatile("" : "+v"(a), "+v"(b));
      for (int64_t i = 0; i < kSteps; ++i)
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) acc[c] = acc[c] * a + b;
      for (int c = 0; c < kChains; ++c) sink += sum_lanes(acc[c]);
    }
    benchmark::DoNotOptimize(sink);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best =
        std::max(best, 2e-9 * double(kSteps) * kChains * double(kLanes) * threads / time.count());
  }
  return best;
}

/// GB/s read and written by copying arrays larger than any cache, best of several.
inline double copy_gbytes(int threads) {
  const size_t n = size_t(1) << 24;
  Values from(n, 1), to(n);
  double best = 0;
  for (int repeat = 0; repeat < 8; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel for num_threads(threads)
    for (size_t i = 0; i < n; ++i) to[i] = from[i];
    benchmark::DoNotOptimize(to.data());
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2e-9 * double(n * sizeof(real)) / time.count());
  }
  return best;
}

/// Columns GFLOP/s and, in percent, of the peak, from the iteration that used the least processor
/// time per thread: the machine may be shared. best_us is the shortest iteration by the clock.
/// OMP_WAIT_POLICY=passive keeps waiting threads out of the processor time.
class Best {
 public:
  template <class F>
  void time(benchmark::State& state, F f) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t used = std::clock();
    f();
    busy_ = std::min(busy_, double(std::clock() - used) / CLOCKS_PER_SEC);
    const std::chrono::duration<double> t = std::chrono::steady_clock::now() - start;
    state.SetIterationTime(t.count());
    seconds_ = std::min(seconds_, t.count());
  }
  void report(benchmark::State& state, double flop, int threads) const {
    static const double peak[] = {peak_gflops(1), peak_gflops(2)};
    const double seconds = std::max(busy_ / threads, 1e-7), gflops = flop / seconds * 1e-9;
    state.counters["best_us"] = seconds_ * 1e6;
    state.counters["busy_us"] = seconds * 1e6;
    state.counters["GFLOP/s"] = gflops;
    state.counters["peak%"] = 100 * gflops / peak[threads > 1];
  }
  /// Columns GB/s and, in percent, of what copying reaches; beyond 100 from the caches.
  void report_bytes(benchmark::State& state, double bytes, int threads) const {
    static const double copy[] = {copy_gbytes(1), copy_gbytes(2)};
    const double seconds = std::max(busy_ / threads, 1e-7), rate = bytes / seconds * 1e-9;
    state.counters["best_us"] = seconds_ * 1e6;
    state.counters["busy_us"] = seconds * 1e6;
    state.counters["GB/s"] = rate;
    state.counters["copy%"] = 100 * rate / copy[threads > 1];
  }

 private:
  double seconds_ = 1e9, busy_ = 1e9;
};

/// f(state, case, backward), forward and backward of every case on one and two threads.
template <class Case, size_t N, class F>
void run_both_ways(int argc, char** argv, const Case (&cases)[N], F f) {
  for (const bool backward : {false, true})
    for (const Case& c : cases)
      benchmark::RegisterBenchmark(
          (std::string(backward ? "backward " : "forward ") + c.name).c_str(),
          [&c, backward, f](benchmark::State& s) { f(s, c, backward); })
          ->Arg(1)
          ->Arg(2)
          ->UseManualTime();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}

}  // namespace decalign::inline DECALIGN_REAL::bench
