// Transport problems for the tests of mot, their definition in double, and a run of both
// directions.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/mot.h"
#include "tests/support.h"

namespace decalign::inline DECALIGN_REAL::test {

inline constexpr MotEdge kCaterpillar[] = {{3, 1}, {1, 0}, {1, 4}, {2, 3}};

struct MotProblem {
  MotShape s;
  Values cost, marginals;

  MotProblem(CostGraph graph, int64_t batch, int64_t M, int64_t K, double scale,
             unsigned seed = 1) {
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

/// K^M
inline double elements(const MotProblem& p) {
  return std::pow(double(p.s.components), double(p.s.modalities));
}

/// The CPU with two threads where there is one, and a GPU or the simulated device.
inline std::vector<Device> backends() {
  std::vector<Device> list;
  for (const Device& device : devices())
    if (list.empty() || list.back().on_host() != device.on_host())
      list.push_back(device);
    else
      list.back() = device;
  return list;
}

inline std::vector<MotEdge> edges_of(const MotShape& s) {
  std::vector<MotEdge> edges(s.edges.begin(), s.edges.end());
  for (int64_t i = 0; i < s.modalities; ++i)
    for (int64_t j = i + 1; j < s.modalities; ++j)
      if (s.graph == CostGraph::complete || (s.graph == CostGraph::star && i == 0) ||
          (s.graph == CostGraph::chain && j == i + 1))
        edges.push_back({i, j});
  return edges;
}

// Depth first from 0, neighbours in the order of the edges.
inline void depth_first(const std::vector<MotEdge>& edges, int64_t b, int64_t from,
                        std::vector<int64_t>& out) {
  out.push_back(b);
  for (const MotEdge& e : edges) {
    const int64_t other = e.first == b ? e.second : e.second == b ? e.first : -1;
    if (other >= 0 && other != from) depth_first(edges, other, b, out);
  }
}

struct MotReference {
  double dual = 0, primal = 0, mass = 0, error = 0;
  std::vector<double> pairs, phi;
};

// MotProblem i of the batch by brute force over the joint index, in logarithms.
inline MotReference brute_force(const MotProblem& p, int64_t at, int64_t sweeps) {
  const int64_t M = p.s.modalities, K = p.s.components;
  double eps = std::ldexp(p.s.options.epsilon, int(p.s.options.halvings));
  const std::vector<MotEdge> edges = edges_of(p.s);
  const real* cost = p.cost.data() + at * p.s.pairs() * K * K;
  const real* a = p.marginals.data() + at * M * K;
  int64_t N = 1;
  for (int64_t m = 0; m < M; ++m) N *= K;
  const auto digit = [&](int64_t n, int64_t m) {
    for (int64_t i = 0; i < m; ++i) n /= K;
    return n % K;
  };
  std::vector<double> joint(size_t(N), 0.0);
  for (int64_t n = 0; n < N; ++n)
    for (size_t e = 0; e < edges.size(); ++e)
      joint[size_t(n)] +=
          double(cost[(int64_t(e) * K + digit(n, edges[e].first)) * K + digit(n, edges[e].second)]);
  MotReference r;
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
    depth_first(edges, 0, -1, order);
  for (int64_t sweep = 0; sweep < sweeps; ++sweep) {
    if (sweep > 0 && sweep % 3 == 0 &&
        sweep <= 3 * p.s.options.halvings) {  // f = epsilon phi stays
      eps /= 2;
      for (double& phi : r.phi) phi *= 2;
    }
    for (const int64_t m : order) {
      std::vector<double> top(size_t(K), -INFINITY), sum(size_t(K), 0.0);
      for (int64_t n = 0; n < N; ++n)
        top[size_t(digit(n, m))] = std::max(top[size_t(digit(n, m))], log_plan(n, m));
      for (int64_t n = 0; n < N; ++n)
        sum[size_t(digit(n, m))] += std::exp(log_plan(n, m) - top[size_t(digit(n, m))]);
      for (int64_t k = 0; k < K; ++k)
        r.phi[size_t(m * K + k)] =
            std::log(double(a[m * K + k])) - top[size_t(k)] - std::log(sum[size_t(k)]);
    }
  }
  std::vector<double> reached(size_t(M * K), 0.0);
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

struct MotResult {
  Values value, pairs, report, dcost, dmarginals, depsilon;
  std::vector<double> state;
};

template <class Backend>
MotResult run_mot(const Backend& be, const MotProblem& p, In dvalue = {}, In dpairs = {}) {
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

inline MotResult run_mot(const Device& device, const MotProblem& p, In dvalue = {},
                         In dpairs = {}) {
  return device.run([&](const auto& be) { return run_mot(be, p, dvalue, dpairs); });
}

inline void require_finite(const MotResult& r) {
  for (const Values* v : {&r.value, &r.pairs, &r.report, &r.dcost, &r.dmarginals, &r.depsilon})
    for (const real e : *v) REQUIRE(std::isfinite(e));
  for (const double e : r.state) REQUIRE(std::isfinite(e));
}

struct MotSize {
  CostGraph graph;
  int64_t M, K;
};

}  // namespace decalign::inline DECALIGN_REAL::test
