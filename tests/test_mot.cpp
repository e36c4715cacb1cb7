// Multi-marginal optimal transport over a graph of costs.
#include <array>
#include <cstdio>

#include "kernels/mot.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;
constexpr MotEdge kCaterpillar[] = {{3, 1}, {1, 0}, {1, 4}, {2, 3}};

struct Problem {
  MotShape s;
  Values cost, marginals;

  Problem(CostGraph graph, int64_t batch, int64_t M, int64_t K, double scale, unsigned seed = 1) {
    s.batch = batch;
    s.modalities = M;
    s.components = K;
    s.graph = graph;
    if (graph == CostGraph::tree) s.edges = kCaterpillar;
    s.options.epsilon = 0.1;
    cost = uniform(batch * s.pairs() * K * K, 0, scale, seed);
    marginals = uniform(batch * M * K, 0.2, 1, seed + 1);
    normalise();
  }
  void normalise() {
    const int64_t K = s.components;
    for (int64_t m = 0; m < s.batch * s.modalities; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += double(marginals[size_t(m * K + k)]);
      for (int64_t k = 0; k < K; ++k) marginals[size_t(m * K + k)] /= real(sum);
    }
  }
};

std::vector<MotEdge> edges_of(const MotShape& s) {
  std::vector<MotEdge> edges(s.edges.begin(), s.edges.end());
  for (int64_t i = 0; i < s.modalities; ++i)
    for (int64_t j = i + 1; j < s.modalities; ++j)
      if (s.graph == CostGraph::complete || (s.graph == CostGraph::star && i == 0) ||
          (s.graph == CostGraph::chain && j == i + 1))
        edges.push_back({i, j});
  return edges;
}

// Depth first from 0, neighbours in the order of the edges.
void visit(const std::vector<MotEdge>& edges, int64_t b, int64_t from, std::vector<int64_t>& out) {
  out.push_back(b);
  for (const MotEdge& e : edges) {
    const int64_t other = e.first == b ? e.second : e.second == b ? e.first : -1;
    if (other >= 0 && other != from) visit(edges, other, b, out);
  }
}

struct Reference {
  double dual = 0, primal = 0, mass = 0, error = 0;
  Doubles pairs, phi;
};

// Problem i of the batch by brute force over the joint index, in logarithms.
Reference reference(const Problem& p, int64_t at, int64_t sweeps) {
  const int64_t M = p.s.modalities, K = p.s.components;
  const double eps = p.s.options.epsilon;
  const std::vector<MotEdge> edges = edges_of(p.s);
  const real* cost = p.cost.data() + at * p.s.pairs() * K * K;
  const real* a = p.marginals.data() + at * M * K;
  int64_t N = 1;
  for (int64_t m = 0; m < M; ++m) N *= K;
  const auto digit = [&](int64_t n, int64_t m) {
    for (int64_t i = 0; i < m; ++i) n /= K;
    return n % K;
  };
  Doubles joint(size_t(N), 0.0);
  for (int64_t n = 0; n < N; ++n)
    for (size_t e = 0; e < edges.size(); ++e)
      joint[size_t(n)] +=
          double(cost[(int64_t(e) * K + digit(n, edges[e].first)) * K + digit(n, edges[e].second)]);
  Reference r;
  r.phi.assign(size_t(M * K), 0);
  const auto log_plan = [&](int64_t n, int64_t skip) {
    double x = -joint[size_t(n)] / eps;
    for (int64_t m = 0; m < M; ++m)
      if (m != skip) x += r.phi[size_t(m * K + digit(n, m))];
    return x;
  };
  std::vector<int64_t> order;
  if (p.s.graph == CostGraph::complete)
    for (int64_t m = 0; m < M; ++m) order.push_back(m);
  else
    visit(edges, 0, -1, order);
  for (int64_t sweep = 0; sweep < sweeps; ++sweep)
    for (const int64_t m : order) {
      Doubles top(size_t(K), -INFINITY), sum(size_t(K), 0.0);
      for (int64_t n = 0; n < N; ++n)
        top[size_t(digit(n, m))] = std::max(top[size_t(digit(n, m))], log_plan(n, m));
      for (int64_t n = 0; n < N; ++n)
        sum[size_t(digit(n, m))] += std::exp(log_plan(n, m) - top[size_t(digit(n, m))]);
      for (int64_t k = 0; k < K; ++k)
        r.phi[size_t(m * K + k)] =
            std::log(double(a[m * K + k])) - top[size_t(k)] - std::log(sum[size_t(k)]);
    }
  Doubles reached(size_t(M * K), 0.0);
  r.pairs.assign(edges.size() * size_t(K * K), 0);
  for (int64_t n = 0; n < N; ++n) {
    const double l = log_plan(n, -1), t = std::exp(l);
    if (t == 0) continue;
    r.mass += t;
    r.primal += t * joint[size_t(n)] + eps * t * (l - 1);
    for (int64_t m = 0; m < M; ++m) reached[size_t(m * K + digit(n, m))] += t;
    for (size_t e = 0; e < edges.size(); ++e)
      r.pairs[size_t((int64_t(e) * K + digit(n, edges[e].first)) * K +
                     digit(n, edges[e].second))] += t;
  }
  r.dual = -eps * r.mass;
  for (size_t i = 0; i < reached.size(); ++i) {
    r.error += std::abs(reached[i] - double(a[i]));
    if (a[i] > 0) r.dual += eps * double(a[i]) * r.phi[i];
  }
  return r;
}

struct Result {
  Values value, pairs, report, dcost, dmarginals, depsilon;
  std::vector<double> state;
};

Result run(const Cpu& be, const Problem& p, In dvalue = {}, In dpairs = {}) {
  const MotShape& s = p.s;
  const Values ones(size_t(s.batch), 1);
  Shared<double> state(size_t(mot_state_size(s)), -12345.0);
  Guarded value(s.batch), pairs(int64_t(p.cost.size())), report(4 * s.batch),
      dcost(int64_t(p.cost.size()), 0), dmarginals(int64_t(p.marginals.size()), 0),
      depsilon(s.batch, 0);
  Workspace scratch(mot_scratch_bytes(be, s));
  mot_forward(be, s, p.cost, p.marginals, state, value.span(), pairs.span(), report.span(),
              scratch.span());
  mot_backward(be, s, p.cost, p.marginals, state, report.span(),
               dvalue.empty() && dpairs.empty() ? In(ones) : dvalue, dpairs, dcost.span(),
               dmarginals.span(), depsilon.span(), scratch.span());
  REQUIRE((value.intact() && pairs.intact() && report.intact() && dcost.intact() &&
           dmarginals.intact() && depsilon.intact()));
  return {value.values(),
          pairs.values(),
          report.values(),
          dcost.values(),
          dmarginals.values(),
          depsilon.values(),
          {state.begin(), state.end()}};
}

void require_finite(const Result& r) {
  for (const Values* v : {&r.value, &r.pairs, &r.report, &r.dcost, &r.dmarginals, &r.depsilon})
    for (const real e : *v) REQUIRE(std::isfinite(e));
  for (const double e : r.state) REQUIRE(std::isfinite(e));
}

struct Size {
  CostGraph graph;
  int64_t M, K;
};
const Size kSizes[] = {
    {CostGraph::complete, 3, 7}, {CostGraph::complete, 3, 1},  {CostGraph::complete, 3, 33},
    {CostGraph::complete, 2, 9}, {CostGraph::complete, 4, 17}, {CostGraph::complete, 5, 3},
    {CostGraph::complete, 6, 2}, {CostGraph::star, 4, 5},      {CostGraph::chain, 5, 4},
    {CostGraph::chain, 2, 33},   {CostGraph::tree, 5, 4},      {CostGraph::star, 3, 1}};

}  // namespace

TEST_CASE("mot: every graph matches brute force", "[kernels][mot]") {
  for (const Size& size : kSizes)
    for (const int64_t sweeps : {0, 1, 2, 9})
      for (const double scale : {0.3, 3.0}) {
        Problem p(size.graph, 2, size.M, size.K, scale);
        p.s.options.max_sweeps = sweeps;
        for (const auto value : {MotValue::dual, MotValue::primal}) {
          p.s.options.value = value;
          const Result got = run(Cpu{2}, p);
          for (int64_t i = 0; i < 2; ++i) {
            INFO("graph " << int(size.graph) << " M " << size.M << " K " << size.K << " sweeps "
                          << sweeps << " scale " << scale);
            const Reference want = reference(p, i, sweeps);
            const double ulps = 256 + 100 * double(p.s.pairs()) * scale / p.s.options.epsilon;
            const auto part = [&](const Values& v) {
              const size_t n = v.size() / 2;
              return In(v).subspan(size_t(i) * n, n);
            };
            require_close(part(got.value), {value == MotValue::dual ? want.dual : want.primal},
                          ulps);
            require_close(part(got.pairs), want.pairs, ulps);
            require_close(part(got.report), {want.mass, want.error, double(sweeps), 0}, ulps);
          }
        }
      }
}

TEST_CASE("mot: float products hold a definition in double", "[kernels][mot]") {
  for (const int64_t K : {64, 129}) {
    Problem p(CostGraph::complete, 1, 3, K, 1);
    p.s.options.epsilon = 0.05;
    p.s.options.max_sweeps = 5;
    const Reference want = reference(p, 0, 5);
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
      p.s.options.gradient = gradient;
      const Result got = run(Cpu{2}, p);
      require_close(got.value, {want.dual}, sizeof(real) == 8 ? 1e4 : 64);
      require_close(got.pairs, want.pairs, 256, 1.0 / double(K * K));
      if (gradient == MotGradient::converged)
        require_close(got.dcost, want.pairs, 256, 1.0 / double(K * K));
    }
  }
}

TEST_CASE("mot: stops at the tolerance, with halvings and Newton steps", "[kernels][mot]") {
  for (const Size& size : {Size{CostGraph::complete, 3, 12}, Size{CostGraph::complete, 4, 5},
                           Size{CostGraph::chain, 4, 8}, Size{CostGraph::tree, 5, 5}}) {
    Problem p(size.graph, 1, size.M, size.K, 1);
    MotOptions& o = p.s.options;
    o.epsilon = 0.02;
    o.max_sweeps = 5000;
    o.tolerance = 1e-5;
    const Result plain = run(Cpu{1}, p);
    REQUIRE(plain.report[1] <= 1.1e-5);
    REQUIRE((plain.report[2] < 5000 && plain.report[3] == 0));
    Problem fixed = p;
    fixed.s.options.max_sweeps = int64_t(plain.report[2]);
    fixed.s.options.tolerance = 0;
    if (size.M != 3 || sizeof(real) == 8) REQUIRE(run(Cpu{1}, fixed).value == plain.value);
    o.max_sweeps = 25;
    o.halvings = 5;
    o.newton_steps = 20;
    o.tolerance = sizeof(real) == 8 ? 1e-12 : 1e-6;
    const Result fast = run(Cpu{1}, p);
    INFO("graph " << int(size.graph) << " M " << size.M << ": sweeps " << fast.report[2]
                  << ", Newton " << fast.report[3] << ", error " << fast.report[1]);
    REQUIRE(fast.report[1] <= 2 * o.tolerance);
    REQUIRE((fast.report[2] <= 25 && fast.report[3] >= 1 && fast.report[3] <= 20));
    REQUIRE(close(fast.value[0], double(plain.value[0]),
                  1e-7 / double(std::numeric_limits<real>::epsilon()) + 64));
  }
}

TEST_CASE("mot: degenerate inputs stay finite", "[kernels][mot]") {
  for (const Size& size : {Size{CostGraph::complete, 3, 5}, Size{CostGraph::complete, 3, 1},
                           Size{CostGraph::complete, 4, 3}, Size{CostGraph::star, 3, 5},
                           Size{CostGraph::chain, 2, 9}, Size{CostGraph::complete, 3, 50}})
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled})
      for (const double epsilon : {1e-3, 1e-1, 1e3})
        for (const double scale : {0.0, 1e-15, 1.0, 1e15}) {
          if (size.K == 50 && (epsilon != 1e-1 || gradient == MotGradient::unrolled)) continue;
          Problem p(size.graph, 1, size.M, size.K, scale);
          if (size.K > 2) p.marginals[1] = p.marginals[size_t(size.K + 2)] = 0;
          p.normalise();
          p.s.options.gradient = gradient;
          p.s.options.epsilon = epsilon;
          p.s.options.max_sweeps = 7;
          INFO("graph " << int(size.graph) << " M " << size.M << " epsilon " << epsilon << " scale "
                        << scale << " unrolled " << int(gradient));
          const Result r = run(Cpu{1}, p);
          require_finite(r);
          if (size.K > 2) REQUIRE((r.dmarginals[1] == 0 && r.dmarginals[size_t(size.K + 2)] == 0));
          if (scale <= 1) {
            const Reference want = reference(p, 0, 7);
            require_close(r.value, {want.dual}, 64, std::max(1.0, epsilon));
            require_close(r.pairs, want.pairs, 256 + 1 / epsilon, 1);
          }
        }
  for (const double mass : {1e-15, 1e15}) {  // marginals of any equal sum
    Problem p(CostGraph::complete, 1, 3, 5, 1);
    for (real& a : p.marginals) a *= real(mass);
    const Result r = run(Cpu{1}, p);
    require_finite(r);
    require_close(r.report.empty() ? r.report : Values{r.report[0]}, {mass}, 64, mass);
  }
}

TEST_CASE("mot: an empty marginal and an empty batch", "[kernels][mot]") {
  for (const auto graph : {CostGraph::complete, CostGraph::star}) {
    Problem p(graph, 1, 3, 4, 1);
    for (size_t k = 4; k < 8; ++k) p.marginals[k] = 0;
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
      p.s.options.gradient = gradient;
      const Result r = run(Cpu{1}, p);
      require_finite(r);
      REQUIRE(r.report[0] == 0);
    }
    REQUIRE(run(Cpu{2}, Problem(graph, 0, 3, 4, 1)).value.empty());
  }
}

TEST_CASE("mot: every thread count gives the same bits", "[kernels][mot]") {
  for (const auto& [graph, batch, M, K] :
       {std::tuple{CostGraph::complete, 1, 3, 130}, std::tuple{CostGraph::complete, 7, 3, 7},
        std::tuple{CostGraph::chain, 1, 3, 150}, std::tuple{CostGraph::complete, 1, 4, 12}})
    for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
      if (M == 4 && gradient == MotGradient::unrolled) continue;
      Problem p(graph, batch, M, K, 1);
      p.s.options.max_sweeps = 3;
      p.s.options.gradient = gradient;
      const Result one = run(Cpu{1}, p);
      for (const int threads : {2, 5}) {
        const Result more = run(Cpu{threads}, p);
        REQUIRE((one.value == more.value && one.pairs == more.pairs && one.report == more.report &&
                 one.dcost == more.dcost && one.dmarginals == more.dmarginals &&
                 one.depsilon == more.depsilon && one.state == more.state));
      }
    }
}

TEST_CASE("mot: gradients add up, any may be skipped", "[kernels][mot]") {
  for (const auto gradient : {MotGradient::converged, MotGradient::unrolled}) {
    Problem p(CostGraph::complete, 2, 3, 5, 1);
    p.s.options.gradient = gradient;
    p.s.options.max_sweeps = 4;
    const MotShape& s = p.s;
    const Cpu be{1};
    const Values dvalue{2, 2};
    const Result once = run(be, p, dvalue);
    Shared<double> state(size_t(mot_state_size(s)));
    Guarded value(2), report(8), dcost(150, 1), dmarginals(30, 1), depsilon(2, 1);
    Workspace scratch(mot_scratch_bytes(be, s));
    mot_forward(be, s, p.cost, p.marginals, state, value.span(), {}, report.span(), scratch.span());
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
      Doubles d;
      for (const real e : v) d.push_back(1 + double(e));
      return d;
    };
    require_close(dcost.span(), plus_one(once.dcost), 2);
    require_close(dmarginals.span(), plus_one(once.dmarginals), 2);
    require_close(depsilon.span(), plus_one(once.depsilon), 2);
  }
}

TEST_CASE("mot: what does not fit throws", "[kernels][mot][errors]") {
  const Problem good(CostGraph::complete, 2, 3, 4, 1);
  const auto refused = [&](auto change) {
    Problem p = good;
    change(p);
    REQUIRE_THROWS_AS(run(Cpu{2}, p), std::invalid_argument);
  };
  REQUIRE_NOTHROW(run(Cpu{2}, good));
  refused([](Problem& p) { p.s.components = 5; });
  refused([](Problem& p) { p.s.modalities = 4; });
  refused([](Problem& p) { p.s.modalities = 1; });
  refused([](Problem& p) { p.s.components = 0; });
  Problem negative = good;
  negative.s.batch = -1;
  REQUIRE_THROWS_AS(mot_scratch_bytes(Cpu{2}, negative.s), std::invalid_argument);
  refused([](Problem& p) { p.s.options.epsilon = 0; });
  refused([](Problem& p) { p.s.options.epsilon = NAN; });
  refused([](Problem& p) { p.s.options.max_sweeps = -1; });
  refused([](Problem& p) { p.s.options.tolerance = -1; });
  refused([](Problem& p) { p.s.edges = kCaterpillar; });
  refused([](Problem& p) { p.cost.pop_back(); });
  refused([](Problem& p) {
    p.s.options.gradient = MotGradient::unrolled;
    p.s.options.newton_steps = 1;
  });
  for (const std::array<MotEdge, 4>& edges :
       {std::array<MotEdge, 4>{{{0, 1}, {1, 2}, {2, 0}, {3, 4}}},
        std::array<MotEdge, 4>{{{0, 0}, {1, 2}, {2, 3}, {3, 4}}},
        std::array<MotEdge, 4>{{{0, 1}, {0, 1}, {2, 3}, {3, 4}}},
        std::array<MotEdge, 4>{{{0, 1}, {1, 2}, {2, 5}, {3, 4}}}}) {
    Problem p(CostGraph::tree, 1, 5, 2, 1);
    p.s.edges = edges;
    REQUIRE_THROWS_AS(run(Cpu{1}, p), std::invalid_argument);
  }
}

// The accuracy table of docs/kernels/sinkhorn.md: build/tests_f32 "[accuracy]", tests_f64 likewise.
TEST_CASE("mot: accuracy table", "[.][accuracy]") {
  std::printf("  K  epsilon  value      phi        pairs      unrolled gradient\n");
  for (const int64_t K : {7, 64})
    for (const double epsilon : {0.1, 0.03, 0.01}) {
      Problem p(CostGraph::complete, 1, 3, K, 1);
      p.s.options.epsilon = epsilon;
      const Reference want = reference(p, 0, 50);
      p.s.options.gradient = MotGradient::unrolled;
      const Result got = run(Cpu{2}, p);
      p.s.options.tolerance = 1e-300;  // never met: products in double
      const Result exact = run(Cpu{2}, p);
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

// dvalue, dpairs: the loss is sum dvalue value + sum dpairs pairs. Compares the gradients with
// differences, of marginals along directions that keep the sums if the options want that.
void check_gradients(Problem p, bool value, bool pairs, double tolerance, double h = 1e-4) {
  const int64_t K = p.s.components;
  const Values dvalue = value ? uniform(p.s.batch, -1, 1, 5) : Values{},
               dpairs = pairs ? uniform(int64_t(p.cost.size()), -1, 1, 6) : Values{};
  const Result got = run(Cpu{1}, p, dvalue, dpairs);
  const auto loss = [&](const Problem& at) {
    const MotShape& s = at.s;
    Values v(size_t(s.batch)), t(at.cost.size()), report(size_t(4 * s.batch));
    Shared<double> state(size_t(mot_state_size(s)));
    Workspace scratch(mot_scratch_bytes(Cpu{1}, s));
    mot_forward(Cpu{1}, s, at.cost, at.marginals, state, v, t, report, scratch.span());
    double sum = 0;
    for (size_t i = 0; i < dvalue.size(); ++i) sum += dvalue[i] * v[i];
    for (size_t i = 0; i < dpairs.size(); ++i) sum += dpairs[i] * t[i];
    return sum;
  };
  const auto slope = [&](auto move) {
    const auto difference = [&](double step) {
      Problem up = p, down = p;
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
  for (size_t i = 0; i < p.cost.size(); ++i)
    compare(slope([&](Problem& at, double step) { at.cost[i] += step; }), got.dcost[i]);
  finish("cost");
  const bool sums = p.s.options.gradient == MotGradient::converged;
  for (size_t i = 0; i < p.marginals.size(); ++i) {
    if (p.marginals[i] == 0) continue;
    if (!sums) {
      compare(slope([&](Problem& at, double step) { at.marginals[i] += step; }), got.dmarginals[i]);
    } else if (int64_t(i) % K + 1 < K && p.marginals[i + 1] > 0) {
      compare(slope([&](Problem& at, double step) {
                at.marginals[i] += step;
                at.marginals[i + 1] -= step;
              }),
              got.dmarginals[i] - got.dmarginals[i + 1]);
    }
  }
  finish("marginals");
  double all = 0;
  for (const double e : got.depsilon) all += e;
  compare(slope([&](Problem& at, double step) { at.s.options.epsilon += step; }), all);
  finish("epsilon");
}

}  // namespace

TEST_CASE("mot: unrolled gradients", "[mot]") {
  for (const Size& size : {Size{CostGraph::complete, 3, 4}, Size{CostGraph::complete, 3, 9},
                           Size{CostGraph::complete, 4, 3}, Size{CostGraph::complete, 2, 5},
                           Size{CostGraph::star, 4, 3}, Size{CostGraph::tree, 5, 3}})
    for (const auto value : {MotValue::dual, MotValue::primal})
      for (const int64_t sweeps : {0, 1, 2, 5}) {
        if (size.K == 9 && sweeps != 5) continue;
        Problem p(size.graph, 1, size.M, size.K, 1);
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
    Problem p(CostGraph::complete, 1, 3, 3, 1);
    p.s.options.epsilon = epsilon;
    p.s.options.gradient = MotGradient::unrolled;
    for (const int64_t sweeps : {1, 2, 6}) {
      p.s.options.max_sweeps = sweeps;
      check_gradients(p, true, false, 1e-7, 1e-3 * epsilon);
    }
  }
}

TEST_CASE("mot: gradients at convergence", "[mot]") {
  for (const Size& size : {Size{CostGraph::complete, 3, 5}, Size{CostGraph::complete, 4, 3},
                           Size{CostGraph::complete, 2, 5}, Size{CostGraph::star, 4, 3},
                           Size{CostGraph::tree, 5, 3}}) {
    Problem p(size.graph, 1, size.M, size.K, 1);
    p.marginals[2] = 0;
    p.normalise();
    p.s.options.epsilon = 0.3;
    p.s.options.max_sweeps = 2000;
    p.s.options.tolerance = 1e-15;
    check_gradients(p, true, false, 1e-8, 1e-3);
    check_gradients(p, true, true, 1e-8, 1e-3);
    p.s.options.max_sweeps = 20;
    p.s.options.tolerance = 1e-13;
    p.s.options.newton_steps = 20;
    check_gradients(p, true, true, 1e-8, 1e-3);
  }
}

TEST_CASE("mot: the implicit gradient of the potentials' sum is the envelope", "[mot]") {
  // A loss of the plan by C + epsilon log T = sum f: its implicit gradient with respect to the
  // cost is that of the value, the plan's pair sums, less the direct share.
  Problem p(CostGraph::complete, 1, 3, 6, 1);
  p.s.options.max_sweeps = 3000;
  const Result plan = run(Cpu{1}, p);
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
  const Result got = run(Cpu{1}, p, {}, dpairs);
  for (const real e : got.dcost) REQUIRE(std::abs(e) <= 1e-12);
}
#endif
