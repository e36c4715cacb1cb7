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
  long double sum = 0;  // of millions of terms
  for (int64_t i = 0; i < n; ++i) {
    const auto y = [&](int64_t j) { return double(x[size_t(i * d + j)]) - mean[size_t(j)]; };
    for (int64_t j = 0; j < d; ++j)
      for (int64_t k = 0; k < d; ++k)
        for (int64_t l = 0; l < d; ++l)
          sum += double(w[size_t((j * d + k) * d + l)]) * y(j) * y(k) * y(l) / double(n);
  }
  return double(sum);
}

// The gradient, in double.
Doubles reference_gradient(const Values& x, const Values& w, int64_t n, int64_t d) {
  const Doubles mean = mean_of(x, n, d);
  Doubles q(size_t(n * d), 0.0);
  for (int64_t i = 0; i < n; ++i) {
    const auto y = [&](int64_t j) { return double(x[size_t(i * d + j)]) - mean[size_t(j)]; };
    const auto add = [&](int64_t j, double value) { q[size_t(i * d + j)] += value / double(n); };
    for (int64_t j = 0; j < d; ++j)
      for (int64_t k = 0; k < d; ++k)
        for (int64_t l = 0; l < d; ++l) {
          const double e = double(w[size_t((j * d + k) * d + l)]);
          add(j, e * y(k) * y(l));
          add(k, e * y(j) * y(l));
          add(l, e * y(j) * y(k));
        }
  }
  for (int64_t j = 0; j < d; ++j) {  // the mean moves with every row
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += q[size_t(i * d + j)] / double(n);
    for (int64_t i = 0; i < n; ++i) q[size_t(i * d + j)] -= sum;
  }
  return q;
}

struct Result {
  Values value, dx;
};
template <class Backend>
Result run(const Backend& be, const Values& x, const Values& w, int64_t n, int64_t d) {
  Guarded value(1), dx(n * d), alone(1);
  const Doubles mean = mean_of(x, n, d);
  const Shared<double> shared(mean.begin(), mean.end());
  const CoskewnessShape s{n, d};
  Workspace scratch(coskewness_scratch_bytes(be, s));
  coskewness_forward(be, s, x, w, shared, value.span(), dx.span(), scratch.span());
  coskewness_forward(be, s, x, w, shared, alone.span(), {}, scratch.span());
  REQUIRE((value.intact() && dx.intact() && alone.intact() && value.values() == alone.values()));
  return {value.values(), dx.values()};
}

double error_of(In got, const Doubles& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(double(got[i]) - want[i]);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}  // namespace

TEST_CASE("coskewness: matches the definition on every device", "[kernels][coskewness]") {
  constexpr double kEps = std::numeric_limits<real>::epsilon();
  for (const auto& [n, d] : std::vector<std::array<int64_t, 2>>{
           {0, 3}, {1, 1}, {7, 7}, {33, 1}, {129, 33}, {200, 9}, {3, 65}, {5, 0}}) {
    const Values x = uniform(n * d, -1, 2, 1), w = uniform(d * d * d, -1, 1, 2);
    const Doubles value{n == 0 ? 0 : reference(x, w, n, d)};
    const Doubles gradient = reference_gradient(x, w, n, d);
    double size = 0;
    for (const double g : gradient) size = std::max(size, std::abs(g));
    const Result host = run(Cpu{1}, x, w, n, d);
    Bits bits;
    for (const Device& device : devices())
      device.run([&, n = n, d = d](const auto& be) {
        const Result got = run(be, x, w, n, d);
        require_close(got.value, value, 64, double(d));
        REQUIRE(error_of(got.value, value) <=
                2 * error_of(host.value, value) + 16 * kEps * double(d));
        REQUIRE(error_of(got.dx, gradient) <= 2 * error_of(host.dx, gradient) + 8 * kEps * size);
        bits.require(device, {got.value, got.dx});
      });
  }
}

TEST_CASE("coskewness: a mean of 1e3 costs no digits", "[kernels][coskewness]") {
  const int64_t n = 40, d = 5;
  Values x = uniform(n * d, -1, 2, 1);
  for (real& e : x) e = real(int(1024 * double(e))) / 1024 + 1000;
  const Values w = uniform(d * d * d, -1, 1, 2);
  const Doubles value{reference(x, w, n, d)}, gradient = reference_gradient(x, w, n, d);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const Result got = run(be, x, w, n, d);
      const double ulps = sizeof(real) == 8 ? 1e5 : 64;  // double knows a mean of 1e3 to 1e-13
      require_close(got.value, value, ulps);
      require_close(got.dx, gradient, ulps);
    });
}

TEST_CASE("coskewness: the gradient", "[kernels][coskewness]") {
  const int64_t n = 9, d = 4;
  Values x = uniform(n * d, -1, 2, 1);
  const Values w = uniform(d * d * d, -1, 1, 2);
  const Result got = run(Cpu{1}, x, w, n, d);
  const Doubles by_formula = reference_gradient(x, w, n, d);
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
    REQUIRE(std::abs(by_formula[size_t(at)] - want) <= tolerance);
  }
}

TEST_CASE("coskewness: spans are checked", "[kernels][coskewness][errors]") {
  Values x(6), w(8), value(1), two(2);
  const Shared<double> mean(2), none;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(1 << 20);
      const auto f = [&](In cotangent, const Shared<double>& m, Out v, Out dx, size_t bytes) {
        coskewness_forward(be, {3, 2}, x, cotangent, m, v, dx, scratch.span().first(bytes));
      };
      REQUIRE_NOTHROW(f(w, mean, value, {}, 1 << 20));
      REQUIRE_THROWS_AS(f(x, mean, value, {}, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(f(w, none, value, {}, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(f(w, mean, two, {}, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(f(w, mean, value, two, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(f(w, mean, value, {}, 0), std::invalid_argument);
      device.wait();
    });
}
