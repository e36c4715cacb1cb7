// Moments of a sample: mean, variance and skewness, their way back, and the covariance. GB/s of
// what has to be read and written once; covariance: GFLOP/s, of half of the products.
#include <cmath>

#include "autograd/arena.h"
#include "bench/support.h"
#include "kernels/sample_moments.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t rows, width;
  bool covariance;
};
constexpr Case kCases[] = {
    {"32 x 40", 32, 40, false},
    {"10000 x 128", 10000, 128, false},
    {"1000000 x 3", 1000000, 3, false},
    {"1000000 x 128", 1000000, 128, false},
    {"1000 x 100000", 1000, 100000, false},
    {"32 x 40, covariance", 32, 40, true},
    {"1000000 x 128, covariance", 1000000, 128, true},
    {"100000 x 1024, covariance", 100000, 1024, true},
};

void moments(benchmark::State& state, const Case& c, bool backward) {
  const Cpu be{int(state.range(0))};
  const SampleMomentsShape s{c.rows, c.width, c.covariance};
  const int64_t d = c.width;
  const Values x = uniform(c.rows * d, 1);
  Values dx(backward ? x.size() : 0), mean(size_t(d), 0), variance(mean), skewness(mean),
      covariance(size_t(c.covariance ? d * d : 0));
  std::vector<double> known(size_t(sample_moments_state_size(s)));
  Arena arena{Device()};
  const Scratch scratch = arena.bytes(sample_moments_scratch_bytes(be, s));
  const auto forward = [&] {
    sample_moments_collect(be, s, x, known, scratch);
    sample_moments_forward(be, s, known, mean, variance, skewness, covariance);
  };
  forward();
  const int64_t j = d / 2;  // a column by the definition
  double mu = 0, m2 = 0, m3 = 0;
  for (int64_t i = 0; i < c.rows; ++i) mu += double(x[size_t(i * d + j)]) / double(c.rows);
  for (int64_t i = 0; i < c.rows; ++i) {
    const double y = double(x[size_t(i * d + j)]) - mu;
    m2 += y * y, m3 += y * y * y;
  }
  const double v = m2 / double(c.rows), want = m3 / double(c.rows) / (v * std::sqrt(v));
  const size_t diagonal = size_t(j * d + j);
  if (!(std::abs(double(skewness[size_t(j)]) - want) <= 1e-5) ||
      (c.covariance &&
       !(std::abs(double(covariance[diagonal]) - m2 / double(c.rows - 1)) <= 1e-4 * v)))
    return state.SkipWithError("wrong result");
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        sample_moments_backward(be, s, x, known, mean, variance, skewness, covariance, dx, scratch);
      else
        forward();
    });
  const double elements = double(c.rows) * double(d);
  if (c.covariance)
    best.report(state, elements * double(d) * (backward ? 2 : 1), be.threads);
  else
    best.report_bytes(state, elements * sizeof(real) * (backward ? 3 : 1), be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, moments); }
