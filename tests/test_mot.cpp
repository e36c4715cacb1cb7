// Multi-marginal optimal transport over a graph of costs.
#include <array>

#include "tests/mot_problems.h"

using namespace decalign;
using namespace decalign::test;

namespace {

const MotSize kSizes[] = {
    {CostGraph::complete, 3, 7}, {CostGraph::complete, 3, 1},  {CostGraph::complete, 3, 33},
    {CostGraph::complete, 2, 9}, {CostGraph::complete, 4, 17}, {CostGraph::complete, 5, 3},
    {CostGraph::complete, 6, 2}, {CostGraph::star, 4, 5},      {CostGraph::chain, 5, 4},
    {CostGraph::chain, 2, 33},   {CostGraph::tree, 5, 4},      {CostGraph::star, 3, 1}};

}  // namespace

TEST_CASE("mot: every graph matches brute force", "[kernels][mot]") {
  for (const MotSize& size : kSizes)
    for (const int64_t sweeps : {0, 1, 2, 9})
      for (const double scale : {0.3, 3.0}) {
        MotProblem p(size.graph, 2, size.M, size.K, scale);
        p.s.options.max_sweeps = sweeps;
        MotReference want[2];
        for (int64_t i = 0; i < 2; ++i) want[i] = brute_force(p, i, sweeps);
        for (const Device& device : backends())
          for (const auto value : {MotValue::dual, MotValue::primal}) {
            if (!device.on_host() && elements(p) > 3000 && (sweeps != 1 || scale > 1)) continue;
            if (!device.on_host() && elements(p) > 40000) continue;
            p.s.options.value = value;
            const MotResult got = run_mot(device, p);
            for (size_t i = 0; i < 2; ++i) {
              INFO("graph " << int(size.graph) << " M " << size.M << " K " << size.K << " sweeps "
                            << sweeps << " scale " << scale);
              const double ulps = 256 + 100 * double(p.s.pairs()) * scale / p.s.options.epsilon;
              const auto part = [&](const Values& v) {
                const size_t n = v.size() / 2;
                return In(v).subspan(i * n, n);
              };
              require_close(part(got.value),
                            {value == MotValue::dual ? want[i].dual : want[i].primal}, ulps);
              require_close(part(got.pairs), want[i].pairs, ulps);
              require_close(part(got.report), {want[i].mass, want[i].error, double(sweeps), 0},
                            ulps);
            }
          }
      }
}

TEST_CASE("mot: float products hold a definition in double", "[kernels][mot]") {
  for (const Device& device : backends())
    for (const int64_t K : {64, 129}) {
      if (!device.on_host()) continue;  // in double there
      MotProblem p(CostGraph::complete, 1, 3, K, 1);
      p.s.options.epsilon = 0.05;
      p.s.options.max_sweeps = 5;
      const MotReference want = brute_force(p, 0, 5);
      for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
        p.s.options.gradient = gradient;
        const MotResult got = run_mot(device, p);
        require_close(got.value, {want.dual}, sizeof(real) == 8 ? 1e4 : 64);
        require_close(got.pairs, want.pairs, 256, 1.0 / double(K * K));
        if (gradient == MotGradient::converged)
          require_close(got.dcost, want.pairs, 256, 1.0 / double(K * K));
      }
    }
}

TEST_CASE("mot: stops at the tolerance, with halvings and Newton steps", "[kernels][mot]") {
  for (const Device& device : backends())
    for (const MotSize& size :
         {MotSize{CostGraph::complete, 3, 12}, MotSize{CostGraph::complete, 4, 5},
          MotSize{CostGraph::chain, 4, 8}, MotSize{CostGraph::tree, 5, 5}}) {
      const int64_t K = device.on_host() ? size.K : size.K / 2 + 1;
      MotProblem p(size.graph, 1, size.M, K, 1);
      MotOptions& o = p.s.options;
      o.epsilon = device.on_host() ? 0.02 : 0.05;
      o.max_sweeps = 5000;
      o.tolerance = 1e-5;
      const MotResult plain = run_mot(device, p);
      REQUIRE(plain.report[1] <= 1.1e-5);
      REQUIRE((plain.report[2] < 5000 && plain.report[3] == 0));
      MotProblem fixed = p;
      fixed.s.options.max_sweeps = int64_t(plain.report[2]);
      fixed.s.options.tolerance = 0;
      if (size.M != 3 || sizeof(real) == 8 || !device.on_host())
        REQUIRE(run_mot(device, fixed).value == plain.value);
      o.max_sweeps = 25;
      o.halvings = 5;
      o.newton_steps = 20;
      o.tolerance = sizeof(real) == 8 ? 1e-12 : 1e-6;
      const MotResult fast = run_mot(device, p);
      INFO("graph " << int(size.graph) << " M " << size.M << ": sweeps " << fast.report[2]
                    << ", Newton " << fast.report[3] << ", error " << fast.report[1]);
      REQUIRE(fast.report[1] <= 2 * o.tolerance);
      REQUIRE((fast.report[2] <= 25 && fast.report[3] >= 1 && fast.report[3] <= 20));
      REQUIRE(close(fast.value[0], double(plain.value[0]),
                    1e-7 / double(std::numeric_limits<real>::epsilon()) + 64));
    }
}

TEST_CASE("mot: epsilon is halved with the potentials kept", "[kernels][mot]") {
  for (const MotSize& size : {MotSize{CostGraph::complete, 3, 6},
                              MotSize{CostGraph::complete, 4, 4}, MotSize{CostGraph::tree, 5, 3}}) {
    MotProblem p(size.graph, 1, size.M, size.K, 1);
    p.s.options.halvings = 2;
    p.s.options.max_sweeps = 9;
    const MotReference want = brute_force(p, 0, 9);
    for (const Device& device : backends()) {
      const MotResult got = run_mot(device, p);
      require_close(got.value, {want.dual}, 1024);
      require_close(got.pairs, want.pairs, 1024);
      require_close(got.report, {want.mass, want.error, 9, 0}, 1024);
      MotProblem untouched = p;  // the way back, too, then starts from f = 0
      untouched.s.options.max_sweeps = 0;
      const MotResult none = run_mot(device, untouched);
      require_close(none.dcost, {none.pairs.begin(), none.pairs.end()}, 4);
    }
  }
}

TEST_CASE("mot: Newton steps where sweeps would take tens of thousands", "[kernels][mot]") {
  for (const Device& device : backends()) {
    const int64_t K = device.on_host() ? 24 : 6;
    MotProblem p(CostGraph::complete, 1, 3, K, 1);
    p.s.options.epsilon = 1e-3;
    p.s.options.max_sweeps = 33;
    p.s.options.halvings = 10;
    p.s.options.newton_steps = 50;
    p.s.options.tolerance = sizeof(real) == 8 ? 1e-8 : 1e-6;
    const MotResult r = run_mot(device, p);
    INFO("Newton " << r.report[3] << ", error " << r.report[1]);
    REQUIRE((r.report[1] <= p.s.options.tolerance && r.report[3] < 50));
    double cost = 0;  // <T, C> is at most epsilon log of the tuples above the optimum
    for (size_t i = 0; i < p.cost.size(); ++i) cost += double(p.cost[i]) * double(r.pairs[i]);
    const double entropy = 1e-3 * 3 * std::log(double(K));
    REQUIRE((cost >= double(r.value[0]) && cost <= double(r.value[0]) + 2 * entropy));
  }
}

TEST_CASE("mot: degenerate inputs stay finite", "[kernels][mot]") {
  for (const Device& device : backends())
    for (const MotSize& size :
         {MotSize{CostGraph::complete, 3, 5}, MotSize{CostGraph::complete, 3, 1},
          MotSize{CostGraph::complete, 4, 3}, MotSize{CostGraph::star, 3, 5},
          MotSize{CostGraph::chain, 2, 9}, MotSize{CostGraph::complete, 3, 50}})
      for (const auto gradient : {MotGradient::converged, MotGradient::unrolled})
        for (const double epsilon : {1e-3, 1e-1, 1e3})
          for (const double scale : {0.0, 1e-15, 1.0, 1e15}) {
            if (size.K == 50 && (epsilon != 1e-1 || gradient == MotGradient::unrolled)) continue;
            if (size.K == 50 && !device.on_host()) continue;
            MotProblem p(size.graph, 1, size.M, size.K, scale);
            if (size.K > 2) p.marginals[1] = p.marginals[size_t(size.K + 2)] = 0;
            p.normalise();
            p.s.options.gradient = gradient;
            p.s.options.epsilon = epsilon;
            p.s.options.max_sweeps = 7;
            INFO("graph " << int(size.graph) << " M " << size.M << " epsilon " << epsilon
                          << " scale " << scale << " unrolled " << int(gradient));
            const MotResult r = run_mot(device, p);
            require_finite(r);
            if (size.K > 2)
              REQUIRE((r.dmarginals[1] == 0 && r.dmarginals[size_t(size.K + 2)] == 0));
            if (scale <= 1) {
              const MotReference want = brute_force(p, 0, 7);
              require_close(r.value, {want.dual}, 64, std::max(1.0, epsilon));
              require_close(r.pairs, want.pairs, 256 + 1 / epsilon, 1);
            }
          }
  for (const Device& device : backends())
    for (const double mass : {1e-15, 1e15}) {  // marginals of any equal sum
      MotProblem p(CostGraph::complete, 1, 3, 5, 1);
      for (real& a : p.marginals) a *= real(mass);
      const MotResult r = run_mot(device, p);
      require_finite(r);
      require_close(r.report.empty() ? r.report : Values{r.report[0]}, {mass}, 64, mass);
    }
}

TEST_CASE("mot: an empty marginal and an empty batch", "[kernels][mot]") {
  for (const Device& device : backends())
    for (const auto graph : {CostGraph::complete, CostGraph::star}) {
      MotProblem p(graph, 1, 3, 4, 1);
      for (size_t k = 4; k < 8; ++k) p.marginals[k] = 0;
      for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
        p.s.options.gradient = gradient;
        const MotResult r = run_mot(device, p);
        require_finite(r);
        REQUIRE(r.report[0] == 0);
      }
      REQUIRE(run_mot(device, MotProblem(graph, 0, 3, 4, 1)).value.empty());
    }
}

TEST_CASE("mot: every run and every thread count gives the same bits", "[kernels][mot]") {
  std::vector<Device> all = devices();
  if (all[0].on_host()) all.push_back(Device(Cpu{5}));
  for (const auto& [graph, batch, M, K] :
       {std::tuple{CostGraph::complete, 1, 3, 130}, std::tuple{CostGraph::complete, 7, 3, 7},
        std::tuple{CostGraph::chain, 1, 3, 150}, std::tuple{CostGraph::complete, 1, 4, 12}})
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
      if (M == 4 && gradient == MotGradient::unrolled) continue;
      MotProblem p(graph, batch, M, K, 1);
      p.s.options.max_sweeps = 3;
      p.s.options.gradient = gradient;
      Bits bits;
      for (const Device& device : all) {
        if (!device.on_host() && elements(p) > 1000) continue;
        const MotResult r = run_mot(device, p);
        REQUIRE((std::isfinite(r.state.front()) && std::isfinite(r.state.back())));
        bits.require(device, {r.value, r.pairs, r.report, r.dcost, r.dmarginals, r.depsilon,
                              Values(r.state.begin(), r.state.end())});
      }
    }
}

TEST_CASE("mot: gradients add up, any may be skipped", "[kernels][mot]") {
  for (const Device& device : backends())
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled})
      device.run([&](const auto& be) {
        MotProblem p(CostGraph::complete, 2, 3, 5, 1);
        p.s.options.gradient = gradient;
        p.s.options.max_sweeps = 4;
        const MotShape& s = p.s;
        const Values dvalue{2, 2};
        const MotResult once = run_mot(be, p, dvalue);
        Shared<double> state(size_t(mot_state_size(s)));
        Guarded value(2), report(8), dcost(150, 1), dmarginals(30, 1), depsilon(2, 1);
        Workspace scratch(mot_scratch_bytes(be, s));
        mot_forward(be, s, p.cost, p.marginals, state, value.span(), {}, report.span(),
                    scratch.span());
        const auto back = [&](InOut c, InOut m, InOut e) {
          mot_backward(be, s, p.cost, p.marginals, state, report.span(), dvalue, {}, c, m, e,
                       scratch.span());
        };
        back(dcost.span(), {}, {});
        back({}, dmarginals.span(), {});
        back({}, {}, depsilon.span());
        back({}, {}, {});
        REQUIRE((dcost.intact() && dmarginals.intact() && depsilon.intact()));
        const auto plus_one = [](const Values& v) {
          std::vector<double> d;
          for (const real e : v) d.push_back(1 + double(e));
          return d;
        };
        require_close(dcost.span(), plus_one(once.dcost), 2);
        require_close(dmarginals.span(), plus_one(once.dmarginals), 2);
        require_close(depsilon.span(), plus_one(once.depsilon), 2);
      });
}

TEST_CASE("mot: what does not fit throws", "[kernels][mot][errors]") {
  const MotProblem good(CostGraph::complete, 2, 3, 4, 1);
  const auto refused = [&](auto change) {
    MotProblem p = good;
    change(p);
    for (const Device& device : backends())
      REQUIRE_THROWS_AS(run_mot(device, p), std::invalid_argument);
  };
  for (const Device& device : backends()) REQUIRE_NOTHROW(run_mot(device, good));
  refused([](MotProblem& p) { p.s.components = 5; });
  refused([](MotProblem& p) { p.s.modalities = 4; });
  refused([](MotProblem& p) { p.s.modalities = 1; });
  refused([](MotProblem& p) { p.s.components = 0; });
  MotProblem negative = good;
  negative.s.batch = -1;
  REQUIRE_THROWS_AS(mot_scratch_bytes(Cpu{2}, negative.s), std::invalid_argument);
  MotProblem longest(CostGraph::chain, 1, kMotModalities, 1, 1);
  longest.s.options.max_sweeps = 1;
  REQUIRE_NOTHROW(run_mot(Cpu{2}, longest));
  const MotProblem long_chain(CostGraph::chain, 1, kMotModalities + 1, 1, 1);
  refused([&](MotProblem& p) { p = long_chain; });
  for (const Device& device : backends())
    if (!device.on_host())
      device.run([&](const auto& be) {
        MotShape s;
        s.modalities = 40, s.components = 2;
        REQUIRE_THROWS_AS(mot_scratch_bytes(be, s), std::invalid_argument);  // 2^39 elements
        s.modalities = 3, s.components = 20000;
        REQUIRE_THROWS_AS(mot_scratch_bytes(be, s), std::invalid_argument);  // 1.2e9 costs
      });
  refused([](MotProblem& p) { p.s.options.epsilon = 0; });
  refused([](MotProblem& p) { p.s.options.epsilon = NAN; });
  refused([](MotProblem& p) { p.s.options.max_sweeps = -1; });
  refused([](MotProblem& p) { p.s.options.tolerance = -1; });
  refused([](MotProblem& p) { p.s.edges = kCaterpillar; });
  refused([](MotProblem& p) { p.cost.pop_back(); });
  refused([](MotProblem& p) {
    p.s.options.gradient = MotGradient::unrolled;
    p.s.options.newton_steps = 1;
  });
  for (const std::array<MotEdge, 4>& edges :
       {std::array<MotEdge, 4>{{{0, 1}, {1, 2}, {2, 0}, {3, 4}}},
        std::array<MotEdge, 4>{{{0, 0}, {1, 2}, {2, 3}, {3, 4}}},
        std::array<MotEdge, 4>{{{0, 1}, {0, 1}, {2, 3}, {3, 4}}},
        std::array<MotEdge, 4>{{{0, 1}, {1, 2}, {2, 5}, {3, 4}}}}) {
    MotProblem p(CostGraph::tree, 1, 5, 2, 1);
    p.s.edges = edges;
    for (const Device& device : backends())
      REQUIRE_THROWS_AS(run_mot(device, p), std::invalid_argument);
  }
}
