// Multi-marginal optimal transport on every device, against the CPU.
#include "autograd/mot.h"
#include "tests/mot_problems.h"

using namespace decalign;
using namespace decalign::test;

namespace {

double largest_of(const Values& v) {
  double largest = 0;
  for (const real e : v) largest = std::max(largest, std::abs(double(e)));
  return largest;
}

void require_near(const Values& got, const Values& want, double tolerance, const char* what,
                  double scale = 0) {
  REQUIRE(got.size() == want.size());
  const double largest = std::max({1e-9, scale, largest_of(want)});
  for (size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(double(got[i]) - double(want[i])) / (tolerance * largest);
    INFO(what << ", element " << i << ": got " << got[i] << ", want " << want[i]);
    REQUIRE(off <= 1);
  }
}

}  // namespace

TEST_CASE("mot: every device agrees with the CPU", "[kernels][mot]") {
  for (const MotSize& size :
       {MotSize{CostGraph::complete, 3, 7}, MotSize{CostGraph::complete, 3, 1},
        MotSize{CostGraph::complete, 2, 5}, MotSize{CostGraph::complete, 4, 3},
        MotSize{CostGraph::complete, 5, 2}, MotSize{CostGraph::star, 4, 4},
        MotSize{CostGraph::chain, 3, 5}, MotSize{CostGraph::tree, 5, 3}})
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled})
      for (const auto value : {MotValue::dual, MotValue::primal})
        for (const int64_t sweeps : {0, 1, 4})
          for (const double epsilon : {0.1, 1e-3}) {
            MotProblem p(size.graph, 2, size.M, size.K, 1);
            if (size.K > 2) p.marginals[1] = p.marginals[size_t(size.K + 2)] = 0;
            p.normalise();
            p.s.options.max_sweeps = sweeps;
            p.s.options.gradient = gradient;
            p.s.options.value = value;
            p.s.options.epsilon = epsilon;
            const Values dvalue{1, real(-0.5)};
            Values dpairs;  // far from the optimum the Hessian of small epsilon is singular
            if (gradient == MotGradient::unrolled || (epsilon == 0.1 && sweeps > 1))
              dpairs = uniform(int64_t(p.cost.size()), -1, 1, 6);
            const MotResult want = run_mot(Cpu{1}, p, dvalue, dpairs);
            for (const Device& device : devices()) {
              if (device.on_host()) continue;
              const MotResult got = run_mot(device, p, dvalue, dpairs);
              INFO("graph " << int(size.graph) << " M " << size.M << " K " << size.K << " sweeps "
                            << sweeps << " unrolled " << int(gradient) << " primal " << int(value)
                            << " epsilon " << epsilon);
              // Both compute in double, with exponents of up to M / epsilon.
              const double tolerance =
                  2 * double(std::numeric_limits<real>::epsilon()) + 2.2e-16 * (64 + 10 / epsilon);
              require_near(got.value, want.value, tolerance, "value");
              require_near(got.pairs, want.pairs, tolerance, "pairs");
              require_near(got.report, want.report, tolerance, "report");
              const double solved =
                               gradient == MotGradient::converged && !dpairs.empty() ? 1e-7 : 0,
                           of_gradients = tolerance * 10 / epsilon + solved;
              require_near(got.dcost, want.dcost, of_gradients, "dcost");
              require_near(got.dmarginals, want.dmarginals, of_gradients, "dmarginals");
              // What costs over epsilon leave of a sum of their products with dcost.
              require_near(got.depsilon, want.depsilon, of_gradients, "depsilon",
                           largest_of(want.dcost) / epsilon);
            }
          }
}

TEST_CASE("mot: problems of many blocks agree with the CPU", "[kernels][mot]") {
  struct Case {
    int64_t batch, K, sweeps, halvings;
    double epsilon, tolerance;
    MotGradient gradient = MotGradient::converged;
    double shift = 0;  // of all costs
  };
  for (const Case& c :
       {Case{2, 66, 3, 0, 0.1, 0}, Case{1, 56, 0, 0, 0.1, 0}, Case{1, 56, 40, 0, 0.3, 1e-3},
        Case{1, 56, 8, 2, 0.05, 0}, Case{1, 56, 2, 0, 1e-3, 0}, Case{2, 42, 2, 0, 1e-3, 0},
        Case{1, 56, 2, 0, 0.1, 0, MotGradient::unrolled},
        Case{2, 40, 1, 0, 0.1, 0, MotGradient::unrolled},
        Case{1, 56, 2, 0, 0.0143, 0, MotGradient::converged, 1}}) {  // first sums beyond range
    MotProblem p(CostGraph::complete, c.batch, 3, c.K, 1);
    p.marginals[1] = 0;
    p.normalise();
    for (real& e : p.cost) e += real(c.shift);
    MotOptions& o = p.s.options;
    o.max_sweeps = c.sweeps;
    o.halvings = c.halvings;
    o.epsilon = c.epsilon;
    o.gradient = c.gradient;
    o.tolerance = c.tolerance > 0 ? c.tolerance : 1e-300;  // then the CPU's products are in double
    const MotResult want = run_mot(Cpu{2}, p);
    for (const Device& device : backends()) {
      if (device.on_host()) continue;
      INFO("K " << c.K << " sweeps " << c.sweeps << " epsilon " << c.epsilon << " halvings "
                << c.halvings << " tolerance " << c.tolerance << " unrolled " << int(c.gradient));
      const MotResult got = device.run([&](auto be) {  // work space for one problem at a time
        if constexpr (requires { be.multiprocessors; }) be.multiprocessors = 1;
        return run_mot(be, p);
      });
      const bool exact = sizeof(real) == 8 || c.tolerance == 0;
      const double tolerance = 2 * double(std::numeric_limits<real>::epsilon()) +
                               2.2e-16 * (64 + 10 / c.epsilon) + (exact ? 0 : 1e-5);
      require_near(got.value, want.value, tolerance, "value");
      require_near(got.pairs, want.pairs, tolerance, "pairs");
      require_near(got.report, want.report, tolerance, "report");
      require_near(got.dcost, want.dcost, 10 * tolerance, "dcost");
      require_near(got.dmarginals, want.dmarginals, 10 * tolerance, "dmarginals");
      require_near(got.depsilon, want.depsilon, tolerance / c.epsilon, "depsilon");
      require_finite(got);
    }
  }
}

TEST_CASE("mot: the op refuses sizes that do not fit", "[autograd][mot][errors]") {
  Values cost(27), marginals(9);
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor c = tape.leaf({1, 3, 3, 3}, cost), a = tape.leaf({1, 3, 3}, marginals);
    REQUIRE_NOTHROW(mot(tape, c, a, CostGraph::complete, {}));
    REQUIRE_THROWS_AS(mot(tape, c, a, CostGraph::star, {}), std::invalid_argument);
    REQUIRE_THROWS_AS(mot(tape, c, tape.leaf({3, 3}, marginals), CostGraph::complete, {}),
                      std::invalid_argument);
    REQUIRE_THROWS_AS(mot(tape, c, tape.leaf({9, 1, 1}, marginals), CostGraph::complete, {}),
                      std::invalid_argument);
    REQUIRE_THROWS_AS(mot(tape, tape.leaf({27}, cost), a, CostGraph::complete, {}),
                      std::invalid_argument);
  }
}

#ifdef DECALIGN_F64
TEST_CASE("mot: gradients of the op", "[autograd][mot]") {
  for (const Device& device : backends())
    for (const MotSize& size : {MotSize{CostGraph::complete, 3, 3}, MotSize{CostGraph::tree, 5, 2}})
      for (const auto gradient : {MotGradient::converged, MotGradient::unrolled})
        for (const bool of_pairs : {false, true}) {
          const MotProblem p(size.graph, 1, size.M, size.K, 1);
          const bool unrolled = gradient == MotGradient::unrolled;
          MotOptions o;
          o.epsilon = 0.4;
          o.gradient = gradient;
          o.max_sweeps = unrolled ? 3 : 60;
          Values marginals = p.marginals;
          const Shape shape{1, size.M, size.K};
          const auto op = [&](Tape& tape, const std::vector<Tensor>& x) {
            // At convergence a gradient of marginals is along those of equal sums alone.
            const Tensor a = unrolled ? x[1] : tape.leaf(shape, marginals);
            const GraphTransport t = mot(tape, x[0], a, size.graph, o, of_pairs, p.s.edges);
            return of_pairs ? t.pairs : t.value;
          };
          const Shape pairs{1, p.s.pairs(), size.K, size.K};
          if (unrolled)
            gradcheck(device, {pairs, shape}, {p.cost, p.marginals}, op);
          else
            gradcheck(device, {pairs}, {p.cost}, op);
        }
}

TEST_CASE("mot: value and pairs of one call", "[autograd][mot]") {
  // With dvalue alone the pairs' gradient is zeros, and the other way round: the sum is both.
  const MotProblem p(CostGraph::complete, 1, 3, 3, 1);
  MotOptions o;
  o.max_sweeps = 30;
  for (const Device& device : devices()) {
    Values cost = p.cost, marginals = p.marginals, dcost(27, 0), one(1, 1);
    Values dpairs = uniform(27, -1, 1, 3);
    for (const bool of_pairs : {false, true}) {
      Tape tape(device);
      const GraphTransport t = mot(tape, tape.leaf({1, 3, 3, 3}, cost, dcost),
                                   tape.leaf({1, 3, 3}, marginals), CostGraph::complete, o, true);
      if (of_pairs)
        tape.backward(t.pairs, dpairs);
      else
        tape.backward(t.value, one);
      device.wait();
    }
    MotProblem both = p;
    both.s.options = o;
    const MotResult want = run_mot(device, both, one, dpairs);
    require_near(dcost, want.dcost, 1e-11, "dcost");
  }
}
#endif
