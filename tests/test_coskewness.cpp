// Co-skewness against a cotangent.
#include <array>

#include "kernels/coskewness.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

Doubles mean_of(const Values& x, int64_t n, int64_t d) {
  Doubles mean(size_t(d), 0.0);
  for (int64_t i = 0; i < n * d; ++i) mean[size_t(i % d)] += double(x[size_t(i)]) / double(n);
  return mean;
}

double reference(const Values& x, const Values& w, int64_t n, int64_t d) {
  const Doubles mean = mean_of(x, n, d);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto y = [&](int64_t j) { return double(x[size_t(i * d + j)]) - mean[size_t(j)]; };
    for (int64_t j = 0; j < d; ++j)
      for (int64_t k = 0; k < d; ++k)
        for (int64_t l = 0; l < d; ++l)
          sum += double(w[size_t((j * d + k) * d + l)]) * y(j) * y(k) * y(l) / double(n);
  }
  return sum;
}

struct Result {
  Values value, dx;
};
Result run(const Cpu& be, const Values& x, const Values& w, int64_t n, int64_t d) {
  Guarded value(1), dx(n * d), alone(1);
  const CoskewnessShape s{n, d};
  Workspace scratch(coskewness_scratch_bytes(be, s));
  coskewness_forward(be, s, x, w, mean_of(x, n, d), value.span(), dx.span(), scratch.span());
  coskewness_forward(be, s, x, w, mean_of(x, n, d), alone.span(), {}, scratch.span());
  REQUIRE((value.intact() && dx.intact() && alone.intact() && value.values() == alone.values()));
  return {value.values(), dx.values()};
}

}  // namespace

TEST_CASE("coskewness: matches the definition, on any number of threads", "[kernels][coskewness]") {
  for (const auto& [n, d] : std::vector<std::array<int64_t, 2>>{
           {0, 3}, {1, 1}, {7, 7}, {33, 1}, {129, 33}, {200, 9}, {5, 0}}) {
    const Values x = uniform(n * d, -1, 2, 1), w = uniform(d * d * d, -1, 1, 2);
    const Result one = run(Cpu{1}, x, w, n, d), two = run(Cpu{2}, x, w, n, d);
    REQUIRE((one.value == two.value && one.dx == two.dx));
    require_close(one.value, {n == 0 ? 0 : reference(x, w, n, d)}, 64, double(d));
  }
}

TEST_CASE("coskewness: the gradient", "[kernels][coskewness]") {
  const int64_t n = 9, d = 4;
  Values x = uniform(n * d, -1, 2, 1);
  const Values w = uniform(d * d * d, -1, 1, 2);
  const Result got = run(Cpu{1}, x, w, n, d);
  for (int64_t at = 0; at < n * d; ++at) {  // the definition is cubic: two differences are exact
    const real start = x[size_t(at)];
    const auto slope = [&](double h) {
      x[size_t(at)] = real(double(start) + h);
      const double up = reference(x, w, n, d);
      x[size_t(at)] = real(double(start) - h);
      const double down = reference(x, w, n, d);
      x[size_t(at)] = start;
      return (up - down) / (2 * h);
    };
    const double want = (4 * slope(0.125) - slope(0.25)) / 3;
    const double tolerance = sizeof(real) == 8 ? 1e-12 : 3e-6;
    REQUIRE(std::abs(double(got.dx[size_t(at)]) - want) <= tolerance);
  }
}

TEST_CASE("coskewness: spans are checked", "[kernels][coskewness][errors]") {
  Values x(6), w(8), value(1), two(2);
  const Doubles mean(2);
  Workspace scratch(1 << 20);
  const auto f = [&](In cotangent, std::span<const double> m, Out v, Out dx, size_t bytes) {
    coskewness_forward(Cpu{}, {3, 2}, x, cotangent, m, v, dx, scratch.span().first(bytes));
  };
  REQUIRE_NOTHROW(f(w, mean, value, {}, 1 << 20));
  REQUIRE_THROWS_AS(f(x, mean, value, {}, 1 << 20), std::invalid_argument);
  REQUIRE_THROWS_AS(f(w, {}, value, {}, 1 << 20), std::invalid_argument);
  REQUIRE_THROWS_AS(f(w, mean, two, {}, 1 << 20), std::invalid_argument);
  REQUIRE_THROWS_AS(f(w, mean, value, two, 1 << 20), std::invalid_argument);
  REQUIRE_THROWS_AS(f(w, mean, value, {}, 0), std::invalid_argument);
}
