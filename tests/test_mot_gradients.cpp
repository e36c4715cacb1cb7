// The gradients of multi-marginal transport; the accuracy table.
#include <cstdio>

#include "tests/mot_problems.h"

using namespace decalign;
using namespace decalign::test;

// The accuracy table of docs/kernels/mot.md: build/tests_f32 "[accuracy]", tests_f64 likewise.
TEST_CASE("mot: accuracy table", "[.][accuracy]") {
  std::printf("  K  epsilon  value      phi        pairs      unrolled gradient\n");
  for (const int64_t K : {7, 64})
    for (const double epsilon : {0.1, 0.03, 0.01}) {
      MotProblem p(CostGraph::complete, 1, 3, K, 1);
      p.s.options.epsilon = epsilon;
      const MotReference want = brute_force(p, 0, 50);
      p.s.options.gradient = MotGradient::unrolled;
      const MotResult got = run_mot(Cpu{2}, p);
      p.s.options.tolerance = 1e-300;  // never met: products in double
      const MotResult exact = run_mot(Cpu{2}, p);
      const auto off = [](const auto& have, const auto& right) {
        double worst = 0, largest = 0;
        for (size_t i = 0; i < right.size(); ++i) {
          worst = std::max(worst, std::abs(double(have[i]) - double(right[i])));
          largest = std::max(largest, std::abs(double(right[i])));
        }
        return worst / largest;
      };
      double phi = 0;
      for (size_t i = 0; i < want.phi.size(); ++i)
        phi = std::max(phi, std::abs(got.state[got.state.size() - want.phi.size() + i] +
                                     std::log(double(p.marginals[i])) - want.phi[i]));
      std::printf("%3d  %-7g  %.1e    %.1e    %.1e    %.1e\n", int(K), epsilon,
                  std::abs(double(got.value[0]) / want.dual - 1), phi, off(got.pairs, want.pairs),
                  off(got.dcost, exact.dcost));
    }
}

#ifdef DECALIGN_F64
namespace {

// On every device, but all elements on the host alone.
// dvalue, dpairs: the loss is sum dvalue value + sum dpairs pairs. Compares the gradients with
// differences, of marginals along directions that keep the sums if the options want that.
void check_gradients_on(const Device& device, MotProblem p, bool value, bool pairs,
                        double tolerance, double h) {
  const int64_t K = p.s.components;
  const Values dvalue = value ? uniform(p.s.batch, -1, 1, 5) : Values{},
               dpairs = pairs ? uniform(int64_t(p.cost.size()), -1, 1, 6) : Values{};
  const MotResult got = run_mot(device, p, dvalue, dpairs);
  const auto loss = [&](const MotProblem& at) {
    const MotShape& s = at.s;
    Values v(size_t(s.batch)), t(at.cost.size()), report(size_t(4 * s.batch));
    Shared<double> state(size_t(mot_state_size(s)));
    device.run([&](const auto& be) {
      Workspace scratch(mot_scratch_bytes(be, s));
      mot_forward(be, s, at.cost, at.marginals, state, v, t, report, scratch.span());
      wait();
    });
    double sum = 0;
    for (size_t i = 0; i < dvalue.size(); ++i) sum += dvalue[i] * v[i];
    for (size_t i = 0; i < dpairs.size(); ++i) sum += dpairs[i] * t[i];
    return sum;
  };
  const auto slope = [&](auto move) {
    const auto difference = [&](double step) {
      MotProblem up = p, down = p;
      move(up, step);
      move(down, -step);
      return (loss(up) - loss(down)) / (2 * step);
    };
    const double d1 = difference(h), d2 = difference(h / 2), d3 = difference(h / 4);
    const double e1 = (4 * d2 - d1) / 3, e2 = (4 * d3 - d2) / 3;
    return (16 * e2 - e1) / 15;
  };
  double largest = 0, worst = 0;
  const auto compare = [&](double want, double have) {
    largest = std::max(largest, std::abs(want));
    if (!(std::abs(want - have) <= worst)) worst = std::abs(want - have);
  };
  const auto finish = [&](const char* what) {
    INFO(what << ": off by " << worst << ", largest entry " << largest << ", graph "
              << int(p.s.graph) << " M " << p.s.modalities << " K " << K);
    REQUIRE(worst <= tolerance * std::max(largest, 1e-3));
    largest = worst = 0;
  };
  const auto step = [&](size_t n) { return device.on_host() ? 1 : n / 5 + 1; };
  for (size_t i = 0; i < p.cost.size(); i += step(p.cost.size()))
    compare(slope([&](MotProblem& at, double by) { at.cost[i] += by; }), got.dcost[i]);
  finish("cost");
  const bool sums = p.s.options.gradient == MotGradient::converged;
  for (size_t i = 0; i < p.marginals.size(); i += step(p.marginals.size())) {
    if (p.marginals[i] == 0) continue;
    if (!sums) {
      compare(slope([&](MotProblem& at, double by) { at.marginals[i] += by; }), got.dmarginals[i]);
    } else if (int64_t(i) % K + 1 < K && p.marginals[i + 1] > 0) {
      compare(slope([&](MotProblem& at, double by) {
                at.marginals[i] += by;
                at.marginals[i + 1] -= by;
              }),
              got.dmarginals[i] - got.dmarginals[i + 1]);
    }
  }
  finish("marginals");
  double all = 0;
  for (const double e : got.depsilon) all += e;
  compare(slope([&](MotProblem& at, double by) { at.s.options.epsilon += by; }), all);
  finish("epsilon");
}

void check_gradients(const MotProblem& p, bool value, bool pairs, double tolerance, double h,
                     bool everywhere = true) {
  for (const Device& device : backends())
    if (everywhere || device.on_host()) check_gradients_on(device, p, value, pairs, tolerance, h);
}

}  // namespace

TEST_CASE("mot: unrolled gradients", "[mot]") {
  for (const MotSize& size :
       {MotSize{CostGraph::complete, 3, 4}, MotSize{CostGraph::complete, 3, 9},
        MotSize{CostGraph::complete, 4, 3}, MotSize{CostGraph::complete, 2, 5},
        MotSize{CostGraph::star, 4, 3}, MotSize{CostGraph::tree, 5, 3}})
    for (const auto value : {MotValue::dual, MotValue::primal})
      for (const int64_t sweeps : {0, 1, 2, 5}) {
        if (size.K == 9 && sweeps != 5) continue;
        MotProblem p(size.graph, 1, size.M, size.K, 1);
        p.s.options.epsilon = 0.3;
        p.s.options.gradient = MotGradient::unrolled;
        p.s.options.value = value;
        p.s.options.max_sweeps = sweeps;
        INFO("sweeps " << sweeps << " value " << int(value));
        check_gradients(p, true, false, 1e-8, 1e-3);
        if (value == MotValue::dual) check_gradients(p, true, true, 1e-8, 1e-3);
      }
}

TEST_CASE("mot: unrolled gradients beyond one kernel's range", "[mot]") {
  for (const double epsilon : {0.01, 0.002}) {
    MotProblem p(CostGraph::complete, 1, 3, 3, 1);
    p.s.options.epsilon = epsilon;
    p.s.options.gradient = MotGradient::unrolled;
    for (const int64_t sweeps : {1, 2, 6}) {
      p.s.options.max_sweeps = sweeps;
      check_gradients(p, true, false, 1e-7, 1e-3 * epsilon);
    }
  }
}

TEST_CASE("mot: gradients at convergence", "[mot]") {
  for (const MotSize& size :
       {MotSize{CostGraph::complete, 3, 5}, MotSize{CostGraph::complete, 4, 3},
        MotSize{CostGraph::complete, 2, 5}, MotSize{CostGraph::star, 4, 3},
        MotSize{CostGraph::tree, 5, 3}}) {
    MotProblem p(size.graph, 1, size.M, size.K, 1);
    p.marginals[2] = 0;
    p.normalise();
    p.s.options.epsilon = 0.3;
    p.s.options.max_sweeps = 200;
    p.s.options.tolerance = 1e-15;
    check_gradients(p, true, false, 1e-8, 1e-3, false);
    check_gradients(p, true, true, 1e-8, 1e-3, false);
    p.s.options.max_sweeps = 20;
    p.s.options.tolerance = 1e-13;
    p.s.options.newton_steps = 20;
    check_gradients(p, true, true, 1e-8, 1e-3);
  }
}

TEST_CASE("mot: the implicit gradient of the potentials' sum is the envelope", "[mot]") {
  // A loss of the plan by C + epsilon log T = sum f: its implicit gradient with respect to the
  // cost is that of the value, the plan's pair sums, less the direct share.
  MotProblem p(CostGraph::complete, 1, 3, 6, 1);
  p.s.options.max_sweeps = 500;
  for (const Device& device : backends()) {
    const MotResult plan = run_mot(device, p);
    const double eps = p.s.options.epsilon;
    Values dpairs(p.cost.size(), 0);
    for (int64_t i = 0; i < 6; ++i)
      for (int64_t j = 0; j < 6; ++j) {
        const auto f = [&](int64_t m, int64_t k) {
          return eps * (plan.state[size_t(m * 6 + k)] + std::log(p.marginals[size_t(m * 6 + k)]));
        };
        dpairs[size_t(i * 6 + j)] += f(0, i) + f(1, j);  // (0, 1)
        dpairs[size_t((2 * 6 + i) * 6 + j)] += f(2, j);  // (1, 2)
      }
    const MotResult got = run_mot(device, p, {}, dpairs);
    for (const real e : got.dcost) REQUIRE(std::abs(e) <= 1e-12);
  }
}
#endif
