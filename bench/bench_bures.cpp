// Bures-Wasserstein costs: forward and backward, GFLOP/s.
#include <cmath>

#include "bench/support.h"
#include "kernels/bures.h"
#include "tests/symmetric.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t modalities, components, width;
  Pairing pairing;
};
constexpr Case kCases[] = {{"M 3, K 7, d 32", 3, 7, 32, Pairing::all},
                           {"M 3, K 7, d 64", 3, 7, 64, Pairing::all},
                           {"1000 pairs, d 4", 2, 1000, 4, Pairing::matched},
                           {"1000 pairs, d 16", 2, 1000, 16, Pairing::matched},
                           {"1000 pairs, d 64", 2, 1000, 64, Pairing::matched},
                           {"100 pairs, d 128", 2, 100, 128, Pairing::matched},
                           {"20 pairs, d 256", 2, 20, 256, Pairing::matched}};

struct alignas(64) Line {
  std::byte bytes[64];
};

// A problem with everything that it needs.
struct Problem {
  BuresShape shape;
  Cpu be;
  Values means, spread, cost, kept, ones, dmeans, dspread;
  std::vector<Line> work;

  Problem(const BuresShape& s, int threads, Values given)
      : shape(s),
        be{threads},
        means(size_t(s.prototypes() * s.width)),
        spread(std::move(given)),
        cost(size_t(s.pairs())),
        kept(size_t(s.kept_size())),
        ones(cost.size(), 1),
        dmeans(means.size()),
        dspread(spread.size()),
        work(bures_scratch_bytes(be, s) / sizeof(Line) + 1) {}

  Scratch scratch() { return std::as_writable_bytes(std::span(work)); }
  void forward() { bures_forward(be, shape, means, spread, cost, kept, scratch()); }
  void backward() {
    bures_backward(be, shape, means, spread, kept, ones, dmeans, dspread, scratch());
  }
};

// a a^T / d + 0.01 I
Values covariances(int64_t count, int64_t d) {
  const Values a = uniform(count * d * d, 1);
  Values s(a.size());
  for (int64_t c = 0; c < count; ++c)
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j < d; ++j) {
        const real *x = a.data() + (c * d + i) * d, *y = a.data() + (c * d + j) * d;
        double sum = 0;
        for (int64_t k = 0; k < d; ++k) sum += double(x[k]) * double(y[k]);
        s[size_t((c * d + i) * d + j)] = real(sum / double(d) + (i == j ? 0.01 : 0));
      }
  return s;
}

test::Matrix matrix_at(const Values& s, int64_t d, int64_t index) {
  test::Matrix m{int(d)};
  for (int64_t i = 0; i < d * d; ++i) m.a[size_t(i)] = s[size_t(index * d * d + i)];
  return m;
}

// A step by products alone has three, two of them symmetric; eight or nine steps.
double flops(const BuresShape& s, bool backward) {
  const double cube = double(s.width * s.width) * double(s.width);
  return backward ? double(s.prototypes()) * cube * 4 / 3 : double(s.pairs()) * cube * (9 * 4 + 6);
}

void bures(benchmark::State& state, const Case& c, bool backward) {
  const BuresShape s{c.modalities, c.components, c.width, c.width, {Spread::covariance, c.pairing}};
  Problem p(s, int(state.range(0)), covariances(s.prototypes(), c.width));
  p.forward();
  if (c.width <= 64) {
    const double want = double(test::bures_by_roots(matrix_at(p.spread, c.width, 0),
                                                    matrix_at(p.spread, c.width, c.components)));
    if (!(std::abs(double(p.cost[0]) - want) <= 1e-6 * want))
      return state.SkipWithError("wrong result");
  }
  Best best;
  for (auto _ : state) best.time(state, [&] { backward ? p.backward() : p.forward(); });
  best.report(state, flops(s, backward), p.be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, bures); }
