// Gaussian error linear unit: definition down to the tail, ends, gradients.
#include "autograd/gelu.h"
#include "kernels/gelu.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

constexpr double kLowest = sizeof(real) == 4 ? -13 : -37.4;  // results are normal numbers above

long double cdf(long double x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; }
long double density(long double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0L));
}
long double slope(long double x) { return cdf(x) + x * density(x); }

Values inputs() {
  Values x = uniform(20001, kLowest, 10, 1);
  const Values near = uniform(20000, -2, 2, 2), tiny = uniform(1000, -1e-6, 1e-6, 3);
  x.insert(x.end(), near.begin(), near.end());
  x.insert(x.end(), tiny.begin(), tiny.end());
  return x;
}

}  // namespace

TEST_CASE("gelu: within a few ulp of its definition, the negative tail too", "[kernels][gelu]") {
  const Values x = inputs(), one(x.size(), 1);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values y(x.size()), dx(x.size());
      gelu_forward(be, x, y);
      gelu_backward(be, x, one, dx);
      device.wait();
      const double eps = std::numeric_limits<real>::epsilon();
      double worst = 0, worst_slope = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const long double at = x[i], want = at * cdf(at);
        if (at == 0) continue;
        const double off = double(std::abs(y[i] - want) / std::abs(want));
        if (!(off <= worst)) worst = off;
        // The slope has a zero at -0.75; what it is the sum of gives its scale.
        const long double scale = cdf(at) + std::abs(at) * density(at);
        const double slope_off = double(std::abs(dx[i] - slope(at)) / scale);
        if (!(slope_off <= worst_slope)) worst_slope = slope_off;
      }
      INFO("in eps: " << worst / eps << ", slope " << worst_slope / eps);
      REQUIRE(worst <= 4 * eps);
      REQUIRE(worst_slope <= 4 * eps);
    });
}

TEST_CASE("gelu: any length, every thread count gives the same bits", "[kernels][gelu]") {
  for (int64_t n : {0, 1, 7, 33, 129, 8192, 20000}) {
    const Values x = uniform(n, -4, 4, 1), dy = uniform(n, -1, 1, 2);
    std::vector<double> y(x.size()), dx(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = double(x[i] * cdf(x[i]));
      dx[i] = double(1 + dy[i] * slope(x[i]));
    }
    Bits bits;
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded gy(n), gx(n, 1);
        gelu_forward(be, x, gy.span());
        gelu_backward(be, x, dy, gx.span());
        gelu_backward(be, x, dy, {});
        require_close(gy.span(), y, 4);
        require_close(gx.span(), dx, 4);
        REQUIRE((gy.intact() && gx.intact()));
        Values same = x;
        gelu_forward(be, same, same);
        const std::vector<Values> got{gy.values(), gx.values()};
        REQUIRE(same == got[0]);
        bits.require(device, got);
      });
  }
}

TEST_CASE("gelu: infinities, NaN and values far out", "[kernels][gelu]") {
  const real infinity = std::numeric_limits<real>::infinity(),
             largest = std::numeric_limits<real>::max();
  const Values x{-infinity, infinity, real(NAN), -largest, largest, -1000, 1000, 0, real(-0.0)};
  const Values want{0, infinity, 0, 0, largest, 0, 1000, 0, 0},
      want_dx{0, 1, 0, 0, 1, 0, 1, real(0.5), real(0.5)};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values y(x.size()), dx(x.size());
      gelu_forward(be, x, y);
      gelu_backward(be, x, Values(x.size(), 1), dx);
      device.wait();
      for (size_t i = 0; i < x.size(); ++i) {
        INFO("x " << x[i] << ": " << y[i] << ", slope " << dx[i]);
        if (std::isnan(x[i])) {
          REQUIRE((std::isnan(y[i]) && std::isnan(dx[i])));
        } else {
          REQUIRE(y[i] == want[i]);
          REQUIRE(close(double(dx[i]), double(want_dx[i]), 1, 0));
        }
      }
    });
}

TEST_CASE("gelu: rejects what does not fit", "[kernels][gelu][errors]") {
  Values x(5), y(4);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(gelu_forward(be, x, y), std::invalid_argument);
      REQUIRE_THROWS_AS(gelu_backward(be, x, y, x), std::invalid_argument);
      REQUIRE_THROWS_AS(gelu_backward(be, x, x, y), std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("gelu: gradients", "[autograd][gelu]") {
  for (const Device& device : devices())
    gradcheck(device, {{3, 21}}, {uniform(63, -4, 4)},
              [](Tape& tape, const std::vector<Tensor>& in) { return gelu(tape, in[0]); });
}
#endif
