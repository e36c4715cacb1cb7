// The plain sum over all K^M elements, with the cost formed on the way: right for every range.
#include "kernels/cpu/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

// All index tuples of the modalities but one, `inner`, which is left to vectors: level d adds
// modality order[d] to a row [ld] over the inner modality and to a number.
struct Walk {
  const Problem& p;
  int64_t inner;
  int64_t depth;     // modalities on the walk
  int64_t* order;    // [depth]
  int64_t* index;    // [depth], the tuple
  double* exponent;  // [depth + 1, ld]
  double* weight;    // [depth + 1, ld] or null
  const Tilt* t;
  bool skip;  // order[0]'s potential is left out

  double pair_at(const double* x, int64_t m, int64_t n, int64_t i, int64_t j) const {
    return m < n ? x[(p.pair(m, n) * p.K + i) * p.ld + j] : x[(p.pair(n, m) * p.K + j) * p.ld + i];
  }
  double number(const double* pairs, const double* single, int64_t d, int64_t k,
                double sign) const {
    const int64_t m = order[d];
    double sum = single != nullptr ? single[m * p.ld + k] : 0;
    if (pairs != nullptr)
      for (int64_t e = 0; e < d; ++e) sum += sign * pair_at(pairs, order[e], m, index[e], k);
    return sum;
  }
  // Level d + 1 from level d for index k of modality order[d].
  void step(int64_t d, int64_t k) const {
    const int64_t m = order[d], ld = p.ld;
    const double *from = exponent + d * ld, *phi = skip && d == 0 ? nullptr : p.phi;
    double* to = exponent + (d + 1) * ld;
    const double base = number(p.cost, phi, d, k, -p.heat);
    for (int64_t j = 0; j < p.K; ++j)
      to[j] = from[j] + base - p.heat * pair_at(p.cost, m, inner, k, j);
    for (int64_t j = p.K; j < ld; ++j) to[j] = -INFINITY;
    if (t == nullptr) return;
    const double *w = weight + d * ld, shift = number(t->D, t->lambda, d, k, 1);
    double* w_to = weight + (d + 1) * ld;
    for (int64_t j = 0; j < p.K; ++j)
      w_to[j] = w[j] + shift + (t->D != nullptr ? pair_at(t->D, m, inner, k, j) : 0);
    for (int64_t j = p.K; j < ld; ++j) w_to[j] = 0;
  }
  template <class F>
  void run(int64_t d, F&& leaf) const {
    if (d == depth) return leaf(exponent + d * p.ld, t != nullptr ? weight + d * p.ld : nullptr);
    for (int64_t k = 0; k < p.K; ++k) {
      if (p.phi[order[d] * p.ld + k] == -INFINITY) continue;
      index[d] = k;
      step(d, k);
      run(d + 1, leaf);
    }
  }
};

}  // namespace

int64_t stream_size(const MotShape& s) {
  const int64_t ld = round_up(s.components, kDoubles);
  return s.components * (2 * s.modalities * ld + 2 * s.modalities);
}

void stream_contraction(const Problem& p, int64_t m, double* out) {
  const int64_t M = p.M, each = stream_size(p.s) / p.K;
  parallel_for(team(p, p.K * p.K * p.K * 8), p.K, [&](int64_t k) {
    double* memory = p.stream + k * each;
    int64_t* order = reinterpret_cast<int64_t*>(memory + 2 * M * p.ld);
    const int64_t inner = m == M - 1 ? M - 2 : M - 1;
    Walk walk{p, inner, M - 1, order, order + M, memory, nullptr, nullptr, true};
    order[0] = m;
    for (int64_t n = 0, d = 1; n < M; ++n)
      if (n != m && n != inner) order[d++] = n;
    std::copy_n(p.phi + inner * p.ld, p.ld, memory);
    walk.index[0] = k;
    walk.step(0, k);
    double top = kNothing, sum = 0;
    walk.run(1, [&](const double* x, const double*) {
      vec<double> tops = splat(top), part{};
      for (int64_t j = 0; j < p.ld; j += kDoubles) tops = larger(vload(x + j), tops);
      const double now = largest(tops);
      for (int64_t j = 0; j < p.ld; j += kDoubles) part += exp_lanes(vload(x + j) - now);
      sum = sum * std::exp(top - now) + total<double>(part);
      top = now;
    });
    out[k] = top + std::log(sum);
  });
}

void stream_tilt(const Problem& p, const Tilt& t, double* sums) {
  const int64_t M = p.M, K = p.K, ld = p.ld;
  double* memory = p.stream;
  int64_t* order = reinterpret_cast<int64_t*>(memory + 2 * M * ld);
  Walk walk{p, M - 1, M - 1, order, order + M, memory, memory + M * ld, &t, false};
  for (int64_t d = 0; d < M - 1; ++d) order[d] = d;
  std::copy_n(p.phi + (M - 1) * ld, ld, memory);
  std::fill_n(memory + M * ld, ld, t.constant);
  if (t.lambda != nullptr)
    for (int64_t k = 0; k < K; ++k) memory[M * ld + k] += t.lambda[(M - 1) * ld + k];
  std::fill_n(sums, p.pairs * K * ld, 0.0);
  walk.run(0, [&](const double* x, const double* weight) {
    vec<double> part{};
    for (int64_t j = 0; j < ld; j += kDoubles) {
      const vec<double> e = vload(weight + j) * exp_lanes(vload(x + j));
      part += e;
      for (int64_t m = 0; m < M - 1; ++m) {
        double* row = sums + (p.pair(m, M - 1) * K + walk.index[m]) * ld + j;
        vstore(row, vload(row) + e);
      }
    }
    const double all = total<double>(part);
    for (int64_t m = 0; m < M - 1; ++m)
      for (int64_t n = m + 1; n < M - 1; ++n)
        sums[(p.pair(m, n) * K + walk.index[m]) * ld + walk.index[n]] += all;
  });
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
