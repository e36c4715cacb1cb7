// Global norm and Adam.
#include "kernels/adam.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

struct Run {
  Values parameter, m, v;
  double squared_norm = 0;
};

Run steps(const Cpu& be, const AdamOptions& o, int64_t n, int count) {
  Values p = uniform(n, -1, 1, 1);
  Guarded parameter(n), m(n, 0), v(n, 0);
  std::copy(p.begin(), p.end(), parameter.span().begin());
  AdamState state{1e-2, 0, 0};
  Workspace scratch(global_norm_scratch_bytes(be, n));
  for (int t = 0; t < count; ++t) {
    const Values g = uniform(n, -1, 1, unsigned(10 + t));
    global_norm(be, g, false, {&state.squared_norm, 1}, scratch.span());
    adam_advance(be, &state);
    adam(be, o, &state, g, parameter.span(), m.span(), v.span());
  }
  REQUIRE((parameter.intact() && m.intact() && v.intact() && state.step == count));
  return {parameter.values(), m.values(), v.values(), state.squared_norm};
}

}  // namespace

TEST_CASE("adam: matches the formula over several steps", "[kernels][adam]") {
  for (int64_t n : {0, 1, 7, 33, 129, 100003})
    for (double decay : {0.0, 0.1})
      for (double clip : {0.0, 0.3, 1e6}) {
        AdamOptions o;
        o.weight_decay = decay;
        o.clip = clip;
        const Run got = steps(Cpu{1}, o, n, 5);
        for (int threads : {2, 5})
          REQUIRE((steps(Cpu{threads}, o, n, 5).parameter == got.parameter));
        const Values start = uniform(n, -1, 1, 1);
        std::vector<double> p(start.begin(), start.end()), m(p.size(), 0.0), v(p.size(), 0.0);
        for (int t = 1; t <= 5; ++t) {
          const Values g = uniform(n, -1, 1, unsigned(9 + t));
          double norm = 0;
          for (real e : g) norm += double(e) * double(e);
          const double scale = clip > 0 ? std::min(1.0, clip / (std::sqrt(norm) + 1e-6)) : 1;
          if (t == 5) REQUIRE(std::abs(got.squared_norm - norm) <= 1e-12 * norm);
          for (size_t i = 0; i < p.size(); ++i) {
            const double e = scale * double(g[i]) + decay * p[i];
            m[i] = 0.9 * m[i] + 0.1 * e;
            v[i] = 0.999 * v[i] + 0.001 * e * e;
            p[i] -= 1e-2 / (1 - std::pow(0.9, t)) * m[i] /
                    (std::sqrt(v[i]) / std::sqrt(1 - std::pow(0.999, t)) + 1e-8);
          }
        }
        require_close(got.m, m, 16);
        require_close(got.v, v, 16);
        // A gradient near 0 leaves m / sqrt(v) ill-conditioned; a step is at most about 1e-2.
        for (size_t i = 0; i < p.size(); ++i)
          if (!close(got.parameter[i], p[i], 64))
            REQUIRE(std::abs(double(got.parameter[i]) - p[i]) <
                    1e-4 * std::sqrt(double(std::numeric_limits<real>::epsilon() / 1.2e-7)));
      }
}

TEST_CASE("global_norm: adds up ranges; NaN reaches the parameters", "[kernels][adam]") {
  const Values g = uniform(100003, -1, 1);
  Workspace scratch(global_norm_scratch_bytes(Cpu{}, 100003));
  double whole = -1, parts = -1;
  global_norm(Cpu{}, g, false, {&whole, 1}, scratch.span());
  global_norm(Cpu{}, In(g).first(40000), false, {&parts, 1}, scratch.span());
  global_norm(Cpu{}, In(g).subspan(40000), true, {&parts, 1}, scratch.span());
  REQUIRE(std::abs(whole - parts) < 1e-12 * whole);
  AdamState state{1e-3, 1, NAN};
  AdamOptions o;
  o.clip = 1;
  Values p{1}, m{0}, v{0}, one{1};
  adam(Cpu{}, o, &state, one, p, m, v);
  REQUIRE(std::isnan(p[0]));
}

TEST_CASE("adam: arguments are checked", "[kernels][adam][errors]") {
  Values a(3), b(2);
  AdamState fresh, state{1e-3, 1, 0};
  AdamOptions bad;
  bad.beta1 = 1;
  double norm = 0;
  REQUIRE_NOTHROW(adam(Cpu{}, {}, &state, a, a, a, a));
  REQUIRE_THROWS_AS(adam(Cpu{}, {}, nullptr, a, a, a, a), std::invalid_argument);
  REQUIRE_THROWS_AS(adam(Cpu{}, {}, &fresh, a, a, a, a), std::invalid_argument);
  REQUIRE_THROWS_AS(adam(Cpu{}, {}, &state, a, b, a, a), std::invalid_argument);
  REQUIRE_THROWS_AS(adam(Cpu{}, bad, &state, a, a, a, a), std::invalid_argument);
  REQUIRE_THROWS_AS(global_norm(Cpu{}, a, false, {&norm, 1}, {}), std::invalid_argument);
}
