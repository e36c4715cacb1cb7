// Trees: log-sum-exp messages, each over one pair cost.
#include "kernels/cpu/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

constexpr int64_t kColumns = 4 * kDoubles;  // of one task

struct Message {
  const double *beta, *gamma;  // of the sender: log weight, tilt
  const double *cost, *D;      // of the edge
  double *mu, *nu;
};

// mu_j = log sum_i exp(beta_i - C_ij); nu_j = the mean of gamma_i + D_ij under these weights.
void along_rows(const Problem& p, const Message& w, int64_t j, int64_t width) {
  const int64_t K = p.K, ld = p.ld;
  for (; width > 0; j += kDoubles, width -= kDoubles) {
    vec<double> top = splat(kNothing), sum{}, mean{};
    for (int64_t i = 0; i < K; ++i)
      top = larger(w.beta[i] - p.heat * vload(w.cost + i * ld + j), top);
    for (int64_t i = 0; i < K; ++i) {
      const vec<double> e = exp_lanes(w.beta[i] - p.heat * vload(w.cost + i * ld + j) - top);
      sum += e;
      if (w.gamma == nullptr) continue;
      vec<double> g = splat(w.gamma[i]);
      if (w.D != nullptr) g += vload(w.D + i * ld + j);
      mean += e * g;
    }
    for (int64_t l = 0; l < kDoubles; ++l) {
      w.mu[j + l] = top[l] + std::log(sum[l]);
      if (w.gamma != nullptr) w.nu[j + l] = sum[l] > 0 ? mean[l] / sum[l] : 0;
    }
  }
}

// The same over the columns of row i.
void along_columns(const Problem& p, const Message& w, int64_t i) {
  const double *cost = w.cost + i * p.ld, *D = w.D != nullptr ? w.D + i * p.ld : nullptr;
  vec<double> tops = splat(kNothing), sum{}, mean{};
  for (int64_t j = 0; j < p.K; j += kDoubles)
    tops = larger(vload(w.beta + j) - p.heat * vload(cost + j), tops);
  const double top = largest(tops);
  for (int64_t j = 0; j < p.K; j += kDoubles) {
    const vec<double> e = exp_lanes(vload(w.beta + j) - p.heat * vload(cost + j) - top);
    sum += e;
    if (w.gamma == nullptr) continue;
    vec<double> g = vload(w.gamma + j);
    if (D != nullptr) g += vload(D + j);
    mean += e * g;
  }
  const double all = total<double>(sum);
  w.mu[i] = top + std::log(all);
  if (w.gamma != nullptr) w.nu[i] = all > 0 ? total<double>(mean) / all : 0;
}

int64_t sender(const Problem& p, int64_t message) {
  const MotEdge e = p.edge(message / 2);
  return message % 2 == 0 ? e.first : e.second;
}

// phi of node b and what arrives there, but for the message along `edge`; with tilts, theirs too.
void gather(const Problem& p, int64_t b, int64_t edge, const Tilt* t, double* beta, double* gamma) {
  const Tree& tree = p.tree;
  std::copy_n(p.phi + b * p.ld, p.ld, beta);
  if (t != nullptr) {
    std::fill_n(gamma, p.ld, 0.0);
    if (t->lambda != nullptr) std::copy_n(t->lambda + b * p.ld, p.ld, gamma);
  }
  for (int64_t l = tree.link_begin[b]; l < tree.link_begin[b + 1]; ++l) {
    const int64_t message = tree.links[l];
    if (message / 2 == edge) continue;
    for (int64_t k = 0; k < p.K; ++k) beta[k] += tree.mu[message * p.ld + k];
    if (t != nullptr)
      for (int64_t k = 0; k < p.K; ++k) gamma[k] += tree.nu[message * p.ld + k];
  }
}

// Makes a message known, and first those that it is made of.
void need(const Problem& p, int64_t message, const Tilt* t) {
  const Tree& tree = p.tree;
  if (tree.known[message]) return;
  const int64_t from = sender(p, message), edge = message / 2;
  for (int64_t l = tree.link_begin[from]; l < tree.link_begin[from + 1]; ++l)
    if (tree.links[l] / 2 != edge) need(p, tree.links[l], t);
  double *beta = tree.work, *gamma = t != nullptr ? tree.work + p.ld : nullptr;
  gather(p, from, edge, t, beta, gamma);
  const Message w{beta,
                  gamma,
                  p.cost_row(edge, 0),
                  t != nullptr && t->D != nullptr ? t->D + edge * p.K * p.ld : nullptr,
                  tree.mu + message * p.ld,
                  tree.nu + message * p.ld};
  const Cpu be = team(p, 8 * p.K * p.K);
  if (message % 2 == 0)
    parallel_ranges(be, p.ld, kColumns,
                    [&](int64_t j, int64_t end) { along_rows(p, w, j, end - j); });
  else
    parallel_ranges(be, p.K, 16, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) along_columns(p, w, i);
    });
  for (int64_t k = p.K; k < p.ld; ++k) w.mu[k] = w.nu[k] = 0;
  tree.known[message] = true;
}

// Depth-first order; false if the graph is not connected.
int64_t visit(const Problem& p, int64_t b, int64_t from, int64_t count) {
  if (count == p.M) return p.M + 1;  // a cycle
  p.tree.order[count++] = b;
  for (int64_t l = p.tree.link_begin[b]; l < p.tree.link_begin[b + 1]; ++l) {
    const int64_t message = p.tree.links[l];
    if (message / 2 == from) continue;
    count = visit(p, sender(p, message), message / 2, count);
    if (count > p.M) break;
  }
  return count;
}

void forget_away(const Problem& p, int64_t b, int64_t from) {
  for (int64_t l = p.tree.link_begin[b]; l < p.tree.link_begin[b + 1]; ++l) {
    const int64_t message = p.tree.links[l];
    if (message / 2 == from) continue;
    p.tree.known[message ^ 1] = false;
    forget_away(p, sender(p, message), message / 2);
  }
}

}  // namespace

void tree_prepare(Problem& p) {
  const Tree& t = p.tree;
  int64_t at = 0;
  for (int64_t b = 0; b < p.M; ++b) {
    t.link_begin[b] = at;
    for (int64_t e = 0; e < p.pairs; ++e) {
      const MotEdge edge = p.edge(e);
      if (edge.second == b && edge.first != b) t.links[at++] = 2 * e;
      if (edge.first == b && edge.second != b) t.links[at++] = 2 * e + 1;
    }
  }
  t.link_begin[p.M] = at;
  expect(at == 2 * p.pairs && visit(p, 0, -1, 0) == p.M, "mot: the edges are no tree");
  tree_forget(t, p.M);
}

void tree_forget(const Tree& t, int64_t M) { std::fill_n(t.known, 2 * (M - 1), false); }

void tree_changed(const Problem& p, int64_t m) { forget_away(p, m, -1); }

void tree_contraction(const Problem& p, int64_t m, double* out) {
  const Tree& tree = p.tree;
  std::fill_n(out, p.ld, 0.0);
  for (int64_t l = tree.link_begin[m]; l < tree.link_begin[m + 1]; ++l) {
    need(p, tree.links[l], nullptr);
    for (int64_t k = 0; k < p.K; ++k) out[k] += tree.mu[tree.links[l] * p.ld + k];
  }
}

void tree_tilt(const Problem& p, const Tilt& t, double* sums) {
  const Tree& tree = p.tree;
  tree_forget(tree, p.M);  // messages known so far have no tilt
  for (int64_t message = 0; message < 2 * p.pairs; ++message) need(p, message, &t);
  double *beta_i = tree.work, *gamma_i = beta_i + p.ld, *beta_j = gamma_i + p.ld,
         *gamma_j = beta_j + p.ld;
  for (int64_t e = 0; e < p.pairs; ++e) {
    gather(p, p.edge(e).first, e, &t, beta_i, gamma_i);
    gather(p, p.edge(e).second, e, &t, beta_j, gamma_j);
    parallel_ranges(team(p, 8 * p.K * p.K), p.K, 16, [&](int64_t i, int64_t end) {
      for (; i < end; ++i)
        for (int64_t j = 0; j < p.ld; j += kDoubles) {
          const int64_t at = (e * p.K + i) * p.ld + j;
          vec<double> weight = t.constant + gamma_i[i] + vload(gamma_j + j);
          if (t.D != nullptr) weight += vload(t.D + at);
          vstore(sums + at,
                 weight * exp_lanes(beta_i[i] + vload(beta_j + j) - p.heat * vload(p.cost + at)));
        }
    });
  }
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
