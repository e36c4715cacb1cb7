#include "kernels/cpu/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {

Problem lay_out(const Cpu& be, const MotShape& s, Arena& arena) {
  Problem p{};
  p.be = be;
  p.s = s;
  p.M = s.modalities;
  p.K = s.components;
  p.pairs = s.pairs();
  p.ld = round_up(p.K, kDoubles);
  p.complete = s.graph == CostGraph::complete && p.M > 2;
  const int64_t matrices = p.pairs * p.K * p.ld, vectors = p.M * p.ld;
  for (double** x : {&p.cost, &p.plan, &p.tilted, &p.D}) *x = arena.take<double>(matrices);
  for (double** x : {&p.a, &p.log_a, &p.q, &p.phi, &p.reached, &p.z, &p.lambda})
    *x = arena.take<double>(vectors);
  p.vectors = arena.take<double>(6 * vectors);
  if (p.complete) {
    p.stream = arena.take<double>(stream_size(s));
    p.paired = arena.take<std::byte>(int64_t(paired_bytes(s)));
    if (p.M == 3) return p;
    p.slices.absorbed = arena.take<double>(vectors);
    p.slices.u = arena.take<double>(vectors);
    p.slices.outer = arena.take<double>(matrices);
    p.slices.work = arena.take<double>((p.K + 2) * slice_work(s));
    return p;
  }
  Tree& t = p.tree;
  t.order = arena.take<int64_t>(p.M);
  t.link_begin = arena.take<int64_t>(p.M + 1);
  t.links = arena.take<int64_t>(2 * p.pairs);
  t.known = arena.take<bool>(2 * p.pairs);
  t.mu = arena.take<double>(2 * p.pairs * p.ld);
  t.nu = arena.take<double>(2 * p.pairs * p.ld);
  t.work = arena.take<double>(4 * p.ld);
  return p;
}

void read_problem(Problem& p, const real* cost, const real* marginals) {
  double largest = 0;
  for (int64_t i = 0; i < p.pairs * p.K * p.K; ++i)
    largest = std::max(largest, std::abs(double(cost[i])));
  p.epsilon = std::max(p.s.options.epsilon, kSwamped * largest);
  const double scale = 1 / p.epsilon;
  for (int64_t row = 0; row < p.pairs * p.K; ++row)
    for (int64_t j = 0; j < p.ld; ++j)
      p.cost[row * p.ld + j] = j < p.K ? double(cost[row * p.K + j]) * scale : INFINITY;
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t k = 0; k < p.ld; ++k) {
      const int64_t i = m * p.ld + k;
      p.a[i] = k < p.K ? double(marginals[m * p.K + k]) : 0;
      p.log_a[i] = k < p.K ? std::log(p.a[i]) : 0;
      p.q[i] = p.phi[i] = 0;
    }
  p.start = true;
  p.heat = 1;
  p.slices.range = Slices::unknown;
  if (!p.complete) tree_prepare(p);
}

void update_phi(Problem& p) {
  for (int64_t i = 0; i < p.M * p.ld; ++i) p.phi[i] = p.log_a[i] + p.q[i];
  potentials_changed(p);
}

void potentials_changed(Problem& p) {
  p.slices.range = Slices::unknown;
  if (!p.complete) tree_forget(p.tree, p.M);
}

void log_contraction(Problem& p, int64_t m, double* out) {
  if (!p.complete)
    tree_contraction(p, m, out);
  else if (p.M == 3 || !slices_contraction(p, m, out))
    stream_contraction(p, m, out);
}

void tilt(Problem& p, const Tilt& t, double* sums) {
  if (!p.complete)
    tree_tilt(p, t, sums);
  else if (p.M == 3 ? !paired_tilt(p, t, sums) : !slices_tilt(p, t, sums))
    stream_tilt(p, t, sums);
}

void modality_sums(const Problem& p, const double* sums, double* out) {
  // Of the pairs that name a modality any will do.
  for (int64_t e = 0; e < p.pairs; ++e) {
    const MotEdge edge = p.edge(e);
    double *rows = out + edge.first * p.ld, *columns = out + edge.second * p.ld;
    std::fill_n(rows, p.ld, 0.0);
    std::fill_n(columns, p.ld, 0.0);
    for (int64_t i = 0; i < p.K; ++i)
      for (int64_t j = 0; j < p.K; ++j) {
        const double x = sums[(e * p.K + i) * p.ld + j];
        rows[i] += x;
        columns[j] += x;
      }
  }
}

double marginal_error(const Problem& p, const double* reached) {
  double error = 0;
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t k = 0; k < p.K; ++k) error += std::abs(reached[m * p.ld + k] - p.a[m * p.ld + k]);
  return error;
}

void set_potential(Problem& p, int64_t m, const double* log_sum) {
  for (int64_t k = 0; k < p.K; ++k) {
    const int64_t i = m * p.ld + k;
    p.q[i] = std::isfinite(log_sum[k]) ? -log_sum[k] : 0;  // nothing arrives: no mass to scale
    p.phi[i] = p.log_a[i] + p.q[i];
    if (p.slices.range != Slices::ready) continue;
    const double drift = p.q[i] - p.slices.absorbed[i];
    p.slices.u[i] = p.a[i] * std::exp(drift);
    if (std::abs(drift) > kSliceDrift) p.slices.range = Slices::refused;
  }
  if (!p.complete) tree_changed(p, m);
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
