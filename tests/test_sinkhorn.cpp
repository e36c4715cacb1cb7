// Multi-marginal optimal transport.
#include <array>

#include "autograd/sinkhorn.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

struct Problem {
  int64_t M, K;
  Values cost, marginals;
  int64_t N = 1;

  Problem(int64_t modalities, int64_t components, double scale, unsigned seed = 1)
      : M(modalities),
        K(components),
        cost(uniform(M * (M - 1) / 2 * K * K, 0, scale, seed)),
        marginals(uniform(M * K, 0.2, 1, seed + 1)) {
    for (int64_t m = 0; m < M; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += double(marginals[size_t(m * K + k)]);
      for (int64_t k = 0; k < K; ++k) marginals[size_t(m * K + k)] /= real(sum);
      N *= K;
    }
  }
  int64_t digit(int64_t n, int64_t m) const {
    for (int64_t i = 0; i < m; ++i) n /= K;
    return n % K;
  }
  double joint(int64_t n) const {
    double c = 0;
    int64_t pair = 0;
    for (int64_t i = 0; i < M; ++i)
      for (int64_t j = i + 1; j < M; ++j, ++pair)
        c += double(cost[size_t((pair * K + digit(n, i)) * K + digit(n, j))]);
    return c;
  }
};

struct Reference {
  double value = 0, mass = 0, error = 0;
  Doubles plan;
};

// Brute force over the joint index, in logarithms where the options say so.
Reference reference(const Problem& p, const SinkhornOptions& o) {
  const int64_t n = p.M * p.K;
  const double eps = std::max(o.epsilon, 1e-6), shift = o.entropy == OtEntropy::log ? 0 : 1;
  Doubles log_u(size_t(n), 0.0), C(size_t(p.N), 0.0), log_g(C);
  for (int64_t i = 0; i < p.N; ++i) {
    C[size_t(i)] = p.joint(i);
    log_g[size_t(i)] = -C[size_t(i)] / eps;
    if (!o.log_domain) log_g[size_t(i)] = std::max(log_g[size_t(i)], std::log(1e-30));
  }
  const auto log_plan = [&](int64_t i, int64_t skip) {
    double l = log_g[size_t(i)];
    for (int64_t m = 0; m < p.M; ++m)
      if (m != skip) l += log_u[size_t(m * p.K + p.digit(i, m))];
    return l;
  };
  for (int64_t sweep = 0; sweep < o.max_sweeps; ++sweep)
    for (int64_t m = 0; m < p.M; ++m)
      for (int64_t k = 0; k < p.K; ++k) {
        double top = -INFINITY, sum = 0;
        for (int64_t i = 0; i < p.N; ++i)
          if (p.digit(i, m) == k) top = std::max(top, log_plan(i, m));
        for (int64_t i = 0; i < p.N; ++i)
          if (p.digit(i, m) == k) sum += std::exp(log_plan(i, m) - top);
        double log_s = top + std::log(sum);
        if (!o.log_domain) log_s = std::log(std::exp(log_s) + 1e-8);
        log_u[size_t(m * p.K + k)] = std::log(double(p.marginals[size_t(m * p.K + k)])) - log_s;
      }
  Reference r;
  Doubles reached(size_t(n), 0.0);
  for (int64_t i = 0; i < p.N; ++i) {
    const double l = log_plan(i, -1), t = std::exp(l);
    r.plan.push_back(t);
    r.mass += t;
    if (t > 0)
      r.value += t * C[size_t(i)] + (o.log_domain ? eps : o.epsilon) * t *
                                        ((o.log_domain ? l : std::log(std::max(t, 1e-8))) - shift);
    for (int64_t m = 0; m < p.M; ++m) reached[size_t(m * p.K + p.digit(i, m))] += t;
  }
  for (int64_t i = 0; i < n; ++i)
    r.error += std::abs(reached[size_t(i)] - double(p.marginals[size_t(i)]));
  return r;
}

struct Result {
  Values value, report, dcost, dmarginals;
};

Result run(const Device& device, const Problem& p, const SinkhornOptions& o) {
  return device.run([&](const auto& be) -> Result {
    const SinkhornShape s{p.M, p.K, o};
    Shared<double> scalings(size_t(o.max_sweeps * p.M * p.K));
    Guarded value(1), report(3), dcost(int64_t(p.cost.size()), 0), dmarginals(p.M * p.K, 0);
    Workspace scratch(sinkhorn_scratch_bytes(be, s));
    sinkhorn_forward(be, s, p.cost, p.marginals, scalings, value.span(), report.span(),
                     scratch.span());
    sinkhorn_backward(be, s, p.cost, p.marginals, scalings, report.span(), Values{1}, dcost.span(),
                      dmarginals.span(), scratch.span());
    REQUIRE((value.intact() && report.intact() && dcost.intact() && dmarginals.intact()));
    return {value.values(), report.values(), dcost.values(), dmarginals.values()};
  });
}

SinkhornOptions options(bool log_domain, double epsilon = 0.1, int64_t sweeps = 50) {
  SinkhornOptions o;
  o.log_domain = log_domain;
  o.epsilon = epsilon;
  o.max_sweeps = sweeps;
  return o;
}

}  // namespace

TEST_CASE("sinkhorn: both forms match brute force", "[kernels][sinkhorn]") {
  for (bool log_domain : {false, true})
    for (auto entropy : {OtEntropy::log, OtEntropy::log_minus_one})
      for (const auto& [M, K, sweeps] : std::vector<std::array<int64_t, 3>>{{3, 7, 50},
                                                                            {3, 1, 3},
                                                                            {2, 6, 20},
                                                                            {4, 3, 10},
                                                                            {5, 2, 4},
                                                                            {2, 33, 5},
                                                                            {3, 7, 1},
                                                                            {3, 4, 0}})
        for (double scale : {0.1, 1.0, 3.0}) {
          const Problem p(M, K, scale);
          SinkhornOptions o = options(log_domain, 0.1, sweeps);
          o.entropy = entropy;
          const Reference want = reference(p, o);
          const Result host = run(Device(Cpu{1}), p, o);
          for (const Device& device : devices()) {
            const Result got = run(device, p, o);
            INFO("log " << log_domain << " M " << M << " K " << K << " scale " << scale);
            require_close(got.value, {want.value}, 64);
            require_close(got.report, {want.mass, want.error, double(sweeps)}, 64);
            // Both sum in double, in orders of their own; sinkhorn.h says what 50 sweeps make of
            // it.
            const double ulps = 256 + 4 * std::pow(double(M) * scale / 0.1, 2) *
                                          std::numeric_limits<double>::epsilon() /
                                          double(std::numeric_limits<real>::epsilon());
            require_close(got.dcost, {host.dcost.begin(), host.dcost.end()}, ulps);
            require_close(got.dmarginals, {host.dmarginals.begin(), host.dmarginals.end()}, ulps);
          }
        }
}

TEST_CASE("sinkhorn: many modalities", "[kernels][sinkhorn]") {
  for (bool log_domain : {false, true})
    for (const auto& [M, K] : std::vector<std::array<int64_t, 2>>{{13, 2}, {30, 1}}) {
      const Problem p(M, K, 0.3);
      const SinkhornOptions o = options(log_domain, 0.5, 2);
      const Reference want = reference(p, o);
      const Result host = run(Device(Cpu{1}), p, o);
      for (const Device& device : devices()) {
        const Result got = run(device, p, o);
        require_close(got.value, {want.value}, 64 + double(p.N) / 16);
        require_close(got.report, {want.mass, want.error, 2}, 64 + double(p.N) / 16);
        require_close(got.dcost, {host.dcost.begin(), host.dcost.end()}, 256);
        require_close(got.dmarginals, {host.dmarginals.begin(), host.dmarginals.end()}, 256);
      }
    }
}

TEST_CASE("sinkhorn: the release form loses mass where the log domain does not",
          "[kernels][sinkhorn]") {
  Problem p(3, 6, 1);
  for (real& c : p.cost) c += real(5);  // joint cost 15 .. 18 at epsilon 0.1: C / epsilon > 150
  for (const Device& device : devices()) {
    const Result release = run(device, p, options(false)), log = run(device, p, options(true));
    REQUIRE(release.report[0] < 1e-3);
    REQUIRE(close(log.report[0], 1, 16));
    require_close(release.value, {reference(p, options(false)).value}, 64);
    require_close(log.value, {reference(p, options(true)).value}, 64);
  }
}

TEST_CASE("sinkhorn: the log domain holds at tiny epsilon and with empty marginals",
          "[kernels][sinkhorn]") {
  Problem p(3, 5, 1);
  p.marginals[2] = 0;
  p.marginals[7] = 0;
  for (double epsilon : {1.0, 1e-2, 4e-3, 2e-3, 1e-3, 1e-4})
    for (int64_t sweeps : {1, 2, 30}) {
      const SinkhornOptions o = options(true, epsilon, sweeps);
      const Reference want = reference(p, o);
      const Result host = run(Device(Cpu{1}), p, o);
      for (const Device& device : devices()) {
        const Result got = run(device, p, o);
        for (const Values* v : {&got.value, &got.report, &got.dcost, &got.dmarginals})
          for (real e : *v) REQUIRE(std::isfinite(e));
        REQUIRE((got.dmarginals[2] == 0 && got.dmarginals[7] == 0));
        require_close(got.value, {want.value}, 256);
        // In double, whose rounding of C / epsilon depends on the order.
        const double ulps = 256 + 20 / epsilon * std::numeric_limits<double>::epsilon() /
                                      double(std::numeric_limits<real>::epsilon());
        require_close(got.dcost, {host.dcost.begin(), host.dcost.end()}, ulps);
      }
    }
}

TEST_CASE("sinkhorn: tolerance ends the sweeps, and the report says so", "[kernels][sinkhorn]") {
  SinkhornOptions o = options(true, 0.2, 1000);
  o.tolerance = 1e-6;
  const Problem p(3, 7, 1);
  for (const Device& device : devices()) {
    const Result got = run(device, p, o);
    REQUIRE(got.report[2] < 500);
    REQUIRE(got.report[1] <= 2e-6);
    SinkhornOptions fixed = o;
    fixed.max_sweeps = int64_t(got.report[2]);
    fixed.tolerance = 0;
    const Result again = run(device, p, fixed);
    REQUIRE((again.value == got.value && again.dcost == got.dcost));
  }
}

TEST_CASE("sinkhorn: envelope gradient is the plan's pair marginals and agrees with unrolling",
          "[kernels][sinkhorn]") {
  const Problem p(3, 5, 1);
  SinkhornOptions o = options(true, 0.2, 400);
  const Reference want = reference(p, o);
  Doubles pair(p.cost.size(), 0.0);
  for (int64_t n = 0; n < p.N; ++n) {
    int64_t at = 0;
    for (int64_t i = 0; i < p.M; ++i)
      for (int64_t j = i + 1; j < p.M; ++j, ++at)
        pair[size_t((at * p.K + p.digit(n, i)) * p.K + p.digit(n, j))] += want.plan[size_t(n)];
  }
  for (const Device& device : devices()) {
    o.gradient = OtGradient::unrolled;
    const Result unrolled = run(device, p, o);
    o.gradient = OtGradient::envelope;
    const Result envelope = run(device, p, o);
    require_close(envelope.dcost, pair, 64);
    require_close(unrolled.dcost, pair, 256);
    Doubles centred;
    for (int64_t m = 0; m < p.M; ++m) {  // up to a constant per marginal
      double shift = 0;
      for (int64_t k = 0; k < p.K; ++k)
        shift += double(p.marginals[size_t(m * p.K + k)]) *
                 double(unrolled.dmarginals[size_t(m * p.K + k)]);
      for (int64_t k = 0; k < p.K; ++k)
        centred.push_back(double(unrolled.dmarginals[size_t(m * p.K + k)]) - shift);
    }
    require_close(envelope.dmarginals, centred, 256);
  }
}

TEST_CASE("sinkhorn: every thread count gives the same bits", "[kernels][sinkhorn]") {
  const Problem p(3, 33, 1);  // 35937 elements: threaded, and beyond a block's shared memory
  for (bool log_domain : {false, true}) {
    const SinkhornOptions o = options(log_domain, 0.1, 2);
    const Result host = run(Device(Cpu{5}), p, o);
    Bits bits;
    for (const Device& device : devices()) {
      const Result r = run(device, p, o);
      bits.require(device, {r.value, r.report, r.dcost, r.dmarginals});
      require_close(r.value, {double(host.value[0])}, 64);
      require_close(r.dcost, {host.dcost.begin(), host.dcost.end()}, 64);
      if (device.on_host())
        REQUIRE((r.value == host.value && r.report == host.report && r.dcost == host.dcost &&
                 r.dmarginals == host.dmarginals));
    }
  }
}

TEST_CASE("sinkhorn: gradients add up, either may be skipped", "[kernels][sinkhorn]") {
  const Problem p(3, 5, 1);
  for (bool log_domain : {false, true})
    for (auto gradient : {OtGradient::unrolled, OtGradient::envelope})
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          SinkhornOptions o = options(log_domain, 0.1, 6);
          o.gradient = gradient;
          const Result once = run(device, p, o);
          const SinkhornShape s{p.M, p.K, o};
          Shared<double> scalings(size_t(o.max_sweeps * p.M * p.K));
          Guarded value(1), report(3), dcost(75, 1), dmarginals(15, 1);
          Workspace scratch(sinkhorn_scratch_bytes(be, s));
          sinkhorn_forward(be, s, p.cost, p.marginals, scalings, value.span(), report.span(),
                           scratch.span());
          const auto back = [&](InOut c, InOut m) {
            sinkhorn_backward(be, s, p.cost, p.marginals, scalings, report.span(), Values{2}, c, m,
                              scratch.span());
          };
          back(dcost.span(), {});
          back({}, dmarginals.span());
          back({}, {});
          REQUIRE((dcost.intact() && dmarginals.intact()));
          Doubles c, m;
          for (real e : once.dcost) c.push_back(1 + 2 * double(e));
          for (real e : once.dmarginals) m.push_back(1 + 2 * double(e));
          require_close(dcost.span(), c, 2);
          require_close(dmarginals.span(), m, 2);
        });
}

TEST_CASE("sinkhorn: sizes that do not fit throw", "[autograd][sinkhorn][errors]") {
  Values cost(27), marginals(9);
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor c = tape.leaf({3, 3, 3}, cost), a = tape.leaf({3, 3}, marginals);
    REQUIRE_NOTHROW(sinkhorn(tape, c, a, {}));
    REQUIRE_THROWS_AS(sinkhorn(tape, tape.leaf({27}, cost), a, {}), std::invalid_argument);
    REQUIRE_THROWS_AS(sinkhorn(tape, c, tape.leaf({9}, marginals), {}), std::invalid_argument);
    REQUIRE_THROWS_AS(sinkhorn(tape, c, a, options(true, NAN)), std::invalid_argument);
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(sinkhorn_scratch_bytes(be, {25, 2, {}}), std::invalid_argument);
      REQUIRE_THROWS_AS(sinkhorn_scratch_bytes(be, {1, 2, {}}), std::invalid_argument);
    });
  }
}

#ifdef DECALIGN_F64
TEST_CASE("sinkhorn: unrolled gradient", "[autograd][sinkhorn]") {
  struct Case {
    int64_t M, K;
    double scale, epsilon;
    int64_t sweeps;
  };
  for (const Device& device : devices())
    for (bool log_domain : {false, true})
      for (auto entropy : {OtEntropy::log, OtEntropy::log_minus_one})
        for (const Case& c :
             {Case{3, 4, 1, 0.2, 7}, Case{2, 5, 1, 0.3, 3}, Case{4, 2, 1, 0.5, 4},
              Case{3, 3, 1, 0.3, 0}, Case{3, 3, 2, 0.05, 3}, Case{5, 2, 1, 0.5, 1}}) {
          const Problem p(c.M, c.K, c.scale);
          if (!log_domain && c.scale / c.epsilon > 10)
            continue;  // clamps within the differences' reach
          if (entropy == OtEntropy::log && c.sweeps == 0) continue;  // the value is constant: 0
          SinkhornOptions o = options(log_domain, c.epsilon, c.sweeps);
          o.entropy = entropy;
          gradcheck(
              device, {{c.M * (c.M - 1) / 2, c.K, c.K}, {c.M, c.K}}, {p.cost, p.marginals},
              [&](Tape& tape, const std::vector<Tensor>& x) {
                return sinkhorn(tape, x[0], x[1], o).value;
              },
              1e-8, 1e-2 * c.epsilon);
        }
}

TEST_CASE("sinkhorn: clamped kernel elements pass no gradient", "[autograd][sinkhorn]") {
  Problem all(3, 2, 1), some(3, 3, 1);
  for (real& c : all.cost) c += 5;  // every C / epsilon beyond 75
  for (size_t i = 0; i < some.cost.size(); i += 4) some.cost[i] += 20;
  for (const Device& device : devices())
    for (const Problem* p : {&all, &some})
      gradcheck(
          device, {{3, p->K, p->K}, {3, p->K}}, {p->cost, p->marginals},
          [&](Tape& tape, const std::vector<Tensor>& x) {
            return sinkhorn(tape, x[0], x[1], options(false, 0.2, 5)).value;
          },
          1e-8, 1e-3);
}

TEST_CASE("sinkhorn: log-domain gradient when the potentials leave one kernel's range",
          "[autograd][sinkhorn]") {
  const Problem p(3, 3, 1);
  for (const Device& device : devices())
    for (int64_t sweeps : {1, 2, 5, 20})
      gradcheck(
          device, {{3, 3, 3}, {3, 3}}, {p.cost, p.marginals},
          [&](Tape& tape, const std::vector<Tensor>& x) {
            return sinkhorn(tape, x[0], x[1], options(true, 0.004, sweeps)).value;
          },
          1e-7, 1e-5);
}
#endif
