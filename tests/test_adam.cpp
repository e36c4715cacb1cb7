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

Run steps(const Device& device, const AdamOptions& o, int64_t n, int count) {
  return device.run([&](const auto& be) {
    Values p = uniform(n, -1, 1, 1);
    Guarded parameter(n), m(n, 0), v(n, 0);
    std::copy(p.begin(), p.end(), parameter.span().begin());
    Shared<AdamState> state{{1e-2, 0, 0}};
    Workspace scratch(global_norm_scratch_bytes(be, n));
    for (int t = 0; t < count; ++t) {
      const Values g = uniform(n, -1, 1, unsigned(10 + t));
      global_norm(be, g, false, {&state[0].squared_norm, 1}, scratch.span());
      adam_advance(be, &state[0]);
      adam(be, o, &state[0], g, parameter.span(), m.span(), v.span());
    }
    REQUIRE((parameter.intact() && m.intact() && v.intact() && state[0].step == count));
    return Run{parameter.values(), m.values(), v.values(), state[0].squared_norm};
  });
}

// The same in double.
void require_steps(const Run& got, const AdamOptions& o, int64_t n, int count) {
  const Values start = uniform(n, -1, 1, 1);
  std::vector<double> p(start.begin(), start.end()), m(p.size(), 0.0), v(p.size(), 0.0);
  for (int t = 1; t <= count; ++t) {
    const Values g = uniform(n, -1, 1, unsigned(9 + t));
    double norm = 0;
    for (real e : g) norm += double(e) * double(e);
    const double scale = o.clip > 0 ? std::min(1.0, o.clip / (std::sqrt(norm) + 1e-6)) : 1;
    if (t == count) REQUIRE(std::abs(got.squared_norm - norm) <= 1e-12 * norm);
    for (size_t i = 0; i < p.size(); ++i) {
      const double e = scale * double(g[i]) + o.weight_decay * p[i];
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

void compare(int64_t n) {
  for (double decay : {0.0, 0.1})
    for (double clip : {0.0, 0.3, 1e6}) {
      AdamOptions o;
      o.weight_decay = decay;
      o.clip = clip;
      Bits bits;
      for (const Device& device : devices()) {
        const Run got = steps(device, o, n, 5);
        require_steps(got, o, n, 5);
        bits.require(device, {got.parameter, got.m, got.v});
      }
    }
}

}  // namespace

TEST_CASE("adam: matches the formula over several steps", "[kernels][adam]") {
  for (int64_t n : {0, 1, 7, 33, 129, 5003}) compare(n);
}

TEST_CASE("adam: many parameters", "[kernels][adam][large]") { compare(100003); }

TEST_CASE("adam: the step counter may be large, beta 0", "[kernels][adam]") {
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      AdamOptions o;
      o.beta1 = 0;
      const Values g{real(0.5)};
      for (int64_t step : {1, 1000, 12345678}) {
        Values p{1}, m{0}, v{real(0.25)};
        const Shared<AdamState> state{{1e-2, step, 0}};
        adam(be, o, &state[0], g, p, m, v);
        device.wait();
        const double root = std::sqrt(0.25 / (1 - std::pow(0.999, double(step))));
        REQUIRE(close(double(p[0]), 1 - 1e-2 * 0.5 / (root + 1e-8), 4));
      }
    });
}

TEST_CASE("global_norm: adds up ranges; NaN reaches the parameters", "[kernels][adam]") {
  const Values g = uniform(10003, -1, 1), one{1};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(global_norm_scratch_bytes(be, 10003));
      Shared<double> whole{-1}, parts{-1};
      global_norm(be, g, false, whole, scratch.span());
      global_norm(be, In(g).first(4001), false, parts, scratch.span());
      global_norm(be, In(g).subspan(4001), true, parts, scratch.span());
      device.wait();
      REQUIRE(std::abs(whole[0] - parts[0]) < 1e-12 * whole[0]);
      const Shared<AdamState> state{{1e-3, 1, NAN}};
      AdamOptions o;
      o.clip = 1;
      Values p{1}, m{0}, v{0};
      adam(be, o, &state[0], one, p, m, v);
      device.wait();
      REQUIRE(std::isnan(p[0]));
    });
}

TEST_CASE("clipped_adam: every range as adam does it, the rest untouched", "[kernels][adam]") {
  // Ranges that start and end between groups of four, that touch, one that is empty, one of several
  // blocks; `offset`: memory that is not 16-byte aligned.
  const int64_t n = 6007;
  const std::vector<AdamRange> ranges{{0, 3, 0},  {3, 1, 1},     {5, 0, 0},    {6, 2, 1},
                                      {9, 23, 0}, {40, 5000, 1}, {5041, 1, 0}, {6006, 1, 1}};
  for (int64_t offset : {0, 1}) {
    const Values before = uniform(n + offset, -1, 1), g = uniform(n + offset, -1, 1, 2),
                 moment = uniform(n + offset, 0, 1, 3);
    Bits bits;
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Shared<AdamState> states{{1e-2, 4, 0}, {1e-3, 7, 0}}, other = states;
        AdamOptions o[2];
        o[0].clip = o[1].clip = 2;
        o[1].weight_decay = 0.1, o[1].beta1 = 0.8, o[1].beta2 = 0.99, o[1].eps = 1e-3;
        const std::vector<AdamGroup> groups{{o[0], &states[0]}, {o[1], &states[1]}};
        Values p = before, m = moment, v = moment, want = p, want_m = m, want_v = v;
        const auto part = [&](Values& x, int64_t begin, int64_t size) {
          return InOut(x).subspan(size_t(offset + begin), size_t(size));
        };
        const In gradient = In(g).subspan(size_t(offset));
        Workspace scratch(clipped_adam_scratch_bytes(be, n, 2)),
            norm_scratch(global_norm_scratch_bytes(be, n));
        clipped_adam(be, groups, ranges, gradient, part(p, 0, n), part(m, 0, n), part(v, 0, n),
                     scratch.span());
        for (AdamState& state : other) {
          global_norm(be, gradient, false, {&state.squared_norm, 1}, norm_scratch.span());
          adam_advance(be, &state);
        }
        for (const AdamRange& r : ranges)
          adam(be, o[r.group], &other[size_t(r.group)],
               gradient.subspan(size_t(r.begin), size_t(r.size)), part(want, r.begin, r.size),
               part(want_m, r.begin, r.size), part(want_v, r.begin, r.size));
        device.wait();
        REQUIRE((p == want && m == want_m && v == want_v));
        for (int64_t i : {4, 5, 8, 32, 39, 5040, 5042, 6005})
          REQUIRE(p[size_t(offset + i)] == before[size_t(offset + i)]);
        REQUIRE((states[0].step == 5 && states[1].step == 8));
        for (size_t s : {0, 1}) REQUIRE(states[s].squared_norm == other[s].squared_norm);
        bits.require(device, {p, m, v});
      });
  }
}

TEST_CASE("clipped_adam: nothing to train still counts the step", "[kernels][adam]") {
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Shared<AdamState> state{{1e-2, 4, 3}};
      const std::vector<AdamGroup> groups{{{}, &state[0]}};
      Workspace scratch(clipped_adam_scratch_bytes(be, 0, 1));
      clipped_adam(be, groups, {}, {}, {}, {}, {}, scratch.span());
      device.wait();
      REQUIRE((state[0].step == 5 && state[0].squared_norm == 0));
    });
}

TEST_CASE("adam: arguments are checked", "[kernels][adam][errors]") {
  Values a(3), b(2);
  Shared<AdamState> fresh(1), state{{1e-3, 1, 0}};
  Shared<double> norm(1);
  AdamOptions bad;
  bad.beta1 = 1;
  const std::vector<AdamGroup> good{{{}, &state[0]}}, none{{{}, nullptr}}, wrong{{bad, &state[0]}};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_NOTHROW(adam(be, {}, &state[0], a, a, a, a));
      REQUIRE_THROWS_AS(adam(be, {}, nullptr, a, a, a, a), std::invalid_argument);
      if (device.on_host())
        REQUIRE_THROWS_AS(adam(be, {}, &fresh[0], a, a, a, a), std::invalid_argument);
      REQUIRE_THROWS_AS(adam(be, {}, &state[0], a, b, a, a), std::invalid_argument);
      REQUIRE_THROWS_AS(adam(be, bad, &state[0], a, a, a, a), std::invalid_argument);
      REQUIRE_THROWS_AS(adam_advance(be, nullptr), std::invalid_argument);
      REQUIRE_THROWS_AS(global_norm(be, a, false, norm, {}), std::invalid_argument);
      Workspace scratch(clipped_adam_scratch_bytes(be, 3, 1));
      const auto clipped = [&](const std::vector<AdamGroup>& groups,
                               const std::vector<AdamRange>& ranges, InOut m, Scratch space) {
        clipped_adam(be, groups, ranges, a, a, m, a, space);
      };
      REQUIRE_NOTHROW(clipped(good, {{0, 1, 0}, {1, 2, 0}}, a, scratch.span()));
      REQUIRE_THROWS_AS(clipped(good, {{0, 4, 0}}, a, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(good, {{0, 2, 0}, {1, 2, 0}}, a, scratch.span()),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(good, {{0, 2, 1}}, a, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(good, {{0, -1, 0}}, a, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(none, {}, a, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(wrong, {}, a, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(good, {}, b, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(clipped(good, {}, a, {}), std::invalid_argument);
      device.wait();
    });
}
