// Multi-marginal transport of three modalities, 50 sweeps: forward, and forward with either
// gradient, GFLOP/s of the matrix products. Argument: threads.
#include <cmath>

#include "bench/support.h"
#include "kernels/mot.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

enum class Way { forward, envelope, unrolled };
struct Case {
  const char* name;
  int64_t batch, K;
  Way way;
};
constexpr Case kCases[] = {
    {"K 7 forward", 1, 7, Way::forward},         {"K 7 envelope", 1, 7, Way::envelope},
    {"K 7 unrolled", 1, 7, Way::unrolled},       {"K 7 x 256 unrolled", 256, 7, Way::unrolled},
    {"K 64 forward", 1, 64, Way::forward},       {"K 64 envelope", 1, 64, Way::envelope},
    {"K 64 unrolled", 1, 64, Way::unrolled},     {"K 192 forward", 1, 192, Way::forward},
    {"K 192 envelope", 1, 192, Way::envelope},   {"K 192 unrolled", 1, 192, Way::unrolled},
    {"K 1024 envelope", 1, 1024, Way::envelope}, {"K 1024 unrolled", 1, 1024, Way::unrolled}};
constexpr int64_t kSweeps = 50;

void mot(benchmark::State& state, const Case& c) {
  const Cpu be{int(state.range(0))};
  MotShape s;
  s.batch = c.batch;
  s.modalities = 3;
  s.components = c.K;
  s.options.epsilon = 0.1;
  s.options.max_sweeps = kSweeps;
  s.options.gradient = c.way == Way::unrolled ? MotGradient::unrolled : MotGradient::converged;
  const int64_t K = c.K;
  Values cost = uniform(c.batch * 3 * K * K, 1),
         marginals(size_t(c.batch * 3 * K), real(1) / real(K));
  for (real& e : cost) e = (e + 1) / 2;
  Values value(size_t(c.batch)), report(size_t(4 * c.batch)), dvalue(value.size(), 1),
      dcost(cost.size());
  std::vector<double> potentials(static_cast<size_t>(mot_state_size(s)));
  struct alignas(64) Line {
    std::byte b[64];
  };
  std::vector<Line> memory(mot_scratch_bytes(be, s) / 64 + 1);
  const Scratch scratch{reinterpret_cast<std::byte*>(memory.data()), memory.size() * 64};
  const auto run = [&] {
    mot_forward(be, s, cost, marginals, potentials, value, {}, report, scratch);
    if (c.way != Way::forward)
      mot_backward(be, s, cost, marginals, potentials, report, dvalue, {}, dcost, {}, {}, scratch);
  };
  run();
  if (!(report[1] < 1e-3 && std::abs(report[0] - 1) < 1e-5 && report[2] == kSweeps))
    return state.SkipWithError("wrong result");
  if (c.way != Way::forward) {  // the gradient is about the plan's pair sums, of mass 1
    double sum = 0;
    for (const real e : dcost) sum += double(e);
    if (!(std::abs(sum - 3 * double(c.batch)) < 1e-2 * double(c.batch)))
      return state.SkipWithError("wrong gradient");
  }
  Best best;
  for (auto _ : state) best.time(state, run);
  const double forward = 1.5 * kSweeps + 3, back = c.way == Way::unrolled   ? 6 * kSweeps + 4
                                                   : c.way == Way::envelope ? 3
                                                                            : 0;
  best.report(state, 2 * double(c.batch) * double(K * K * K) * (forward + back), be.threads);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Case& c : kCases)
    benchmark::RegisterBenchmark(c.name, [&c](benchmark::State& s) { mot(s, c); })
        ->Arg(1)
        ->Arg(2)
        ->UseManualTime();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
