// Bures-Wasserstein costs: forward and backward, GFLOP/s. `--accuracy`: errors against references
// in long double, for docs/kernels/bures.md.
#include <cmath>
#include <cstdio>
#include <cstring>

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

// |got - want| / |want|
double error_of(const Values& got, const test::Matrix& want) {
  long double off = 0, size = 0;
  for (size_t i = 0; i < want.a.size(); ++i) {
    off += (got[i] - want.a[i]) * (got[i] - want.a[i]);
    size += want.a[i] * want.a[i];
  }
  return double(std::sqrt(off / size));
}

// One row a case; the covariances go to `file`, if there is one, for bench/peers.
void accuracy(const char* path) {
  constexpr int d = 40;
  std::FILE* file = path ? std::fopen(path, "wb") : nullptr;
  std::printf("%-28s %12s %12s %12s\n", "", "cost", "cost error", "gradient");
  for (const double condition : {1e2, 1e4, 1e6})
    for (const char* kind : {"independent", "near", "equal"}) {
      Values spread;
      const auto append = [&](const test::Matrix& m) {
        for (auto x : m.a) spread.push_back(real(x));
      };
      test::Matrix a = test::random_covariance(d, condition, 1), b = a;
      if (kind[0] == 'i') b = test::random_covariance(d, condition, 2);
      const test::Matrix step = test::random_covariance(d, 10, 7);
      for (size_t i = 0; i < step.a.size() && kind[0] == 'n'; ++i) b.a[i] += 1e-4L * step.a[i];
      append(a), append(b);
      for (int64_t m = 0; m < 2; ++m)  // rounding must not leave them asymmetric
        for (int64_t i = 0; i < d; ++i)
          for (int64_t j = 0; j < i; ++j)
            spread[size_t((m * d + i) * d + j)] = spread[size_t((m * d + j) * d + i)];
      Problem p({2, 1, d, d, {}}, 1, spread);
      p.forward(), p.backward();
      a = matrix_at(spread, d, 0), b = matrix_at(spread, d, 1);
      const double want = kind[0] == 'e' ? 0 : double(test::bures_by_roots(a, b));
      const test::Matrix slope = test::bures_gradient_by_roots(a, b);
      double size = 0;
      for (int i = 0; i < d * d; ++i) size += std::pow(double(p.dspread[size_t(i)]), 2);
      std::printf("condition %.0e %-12s %12.3e %12.1e %12.1e\n", condition, kind, want,
                  want > 0 ? std::abs(double(p.cost[0]) - want) / want : double(p.cost[0]),
                  want > 0 ? error_of(p.dspread, slope) : std::sqrt(size));
      if (!file) continue;
      const std::vector<double> given(spread.begin(), spread.end());
      std::vector<double> expected{want};
      for (auto x : slope.a) expected.push_back(want > 0 ? double(x) : 0);
      std::fwrite(given.data(), sizeof(double), given.size(), file);
      std::fwrite(expected.data(), sizeof(double), expected.size(), file);
    }
  if (file) std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--accuracy") == 0) {
    accuracy(argc > 2 ? argv[2] : nullptr);
    return 0;
  }
  run_both_ways(argc, argv, kCases, bures);
}
