// Maximum mean discrepancy of two samples, value alone and with all gradients: GFLOP/s, three
// multiply-adds a pair and column (distance, and what either row is pulled by).
#include <cmath>

#include "autograd/arena.h"
#include "bench/support.h"
#include "kernels/mmd_two_sample.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t rows, width, bandwidths;
};
constexpr Case kCases[] = {{"32 x 40", 32, 40, 1},      {"256 x 64", 256, 64, 1},
                           {"4096 x 64", 4096, 64, 1},  {"4096 x 64, 5 widths", 4096, 64, 5},
                           {"4096 x 3", 4096, 3, 1},    {"4096 x 768", 4096, 768, 1},
                           {"16384 x 64", 16384, 64, 1}};

// What pulls the first row of x, by the definition.
double first_gradient(const Case& c, const Values& x, const Values& y, double b, int64_t t) {
  double sum = 0;
  const double n = double(c.rows);
  for (int64_t j = 0; j < 2 * c.rows; ++j) {
    const real* row = (j < c.rows ? x.data() : y.data() - c.rows * c.width) + j * c.width;
    double distance = 0;
    for (int64_t l = 0; l < c.width; ++l)
      distance += std::pow(double(x[size_t(l)]) - double(row[l]), 2);
    double slope = 0;
    for (int64_t l = 0; l < c.bandwidths; ++l) slope += std::exp(-distance / (2 * b)) / b, b /= 2;
    b *= std::pow(2, c.bandwidths);
    sum += (j < c.rows ? -2 : 2) / (n * n) * slope * (double(x[size_t(t)]) - double(row[t]));
  }
  return sum;
}

void mmd(benchmark::State& state, const Case& c, bool gradients) {
  const Cpu be{int(state.range(0))};
  const MmdTwoSampleShape s{c.rows, c.rows, c.width, c.bandwidths};
  const int64_t size = c.rows * c.width;
  const double widest = double(c.width);
  Values x = uniform(size, 1), y = uniform(size, 2), dx(x.size()), dy(y.size()), db, value(1);
  Values bandwidths, weights(size_t(c.bandwidths), 1);
  for (real& e : y) e += real(0.2);
  for (int64_t l = 0; l < c.bandwidths; ++l)
    bandwidths.push_back(real(widest / double(int64_t(1) << l)));
  Arena arena{Device()};
  const Scratch scratch = arena.bytes(mmd_two_sample_scratch_bytes(be, s));
  const auto run = [&] {
    mmd_two_sample_forward(be, s, x, y, bandwidths, weights, value, gradients ? Out(dx) : Out(),
                           gradients ? Out(dy) : Out(), db, scratch);
  };
  run();
  for (int64_t t = 0; gradients && t < c.width; ++t) {
    const double want = first_gradient(c, x, y, widest, t), size = 1 / double(c.rows);
    if (!(std::abs(double(dx[size_t(t)]) - want) <= 1e-5 * size))
      return state.SkipWithError("wrong result");
  }
  Best best;
  for (auto _ : state) best.time(state, run);
  const double pairs = double(c.rows) * double(2 * c.rows - 1);
  best.report(state, 2 * pairs * double(c.width) * (gradients ? 3 : 1), be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, mmd); }
