// A complete graph of more than three modalities: for every index tuple of the outer ones, the
// first M - 3, what is left is a problem of three whose scalings carry the tuple's factors:
//   v_n[k] = u_n[k] prod_o E_on[i_o, k],   weight = prod_o u_o[i_o] prod_oo' E_oo'[i_o, i_o']
// so that a contraction is K^{M-3} products, of which only a tile of rows is ever kept.
#include "kernels/cpu/mot_paired.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

Paired<double> matrices(Problem& p) {
  Arena arena{static_cast<std::byte*>(p.paired)};
  return make_paired<double>(&p, p.s, arena);
}

// Absorbs the potentials at hand (none before the first sweep's end).
bool absorb_all(Problem& p) {
  Slices& s = p.slices;
  s.range = Slices::refused;
  for (int64_t i = 0; i < p.M * p.ld; ++i) {
    if (p.start && p.phi[i] != 0) return false;  // within the first sweep
    s.absorbed[i] = p.start ? 0 : p.q[i];
    s.u[i] = p.start ? 1 : p.a[i];
  }
  for (int64_t m = 0; m < p.M; ++m)
    for (int64_t k = p.K; k < p.ld; ++k) s.u[m * p.ld + k] = 0;
  Paired<double> w = matrices(p);
  double low = INFINITY, high = -INFINITY;
  for (int64_t m = 0; m < 3; ++m)
    std::copy_n(s.absorbed + (p.M - 3 + m) * p.ld, p.ld, w.absorbed_of(m));
  build_all(w, high, low);
  const double share = 1 / double(p.M - 1);
  for (int64_t e = 0; e < p.pairs; ++e) {
    const MotEdge edge = p.edge(e);
    if (edge.first >= p.M - 3) continue;
    const double *gi = s.absorbed + edge.first * p.ld, *gj = s.absorbed + edge.second * p.ld;
    for (int64_t i = 0; i < p.K; ++i)
      for (int64_t j = 0; j < p.ld; j += kDoubles) {
        const int64_t at = (e * p.K + i) * p.ld + j;
        const vec<double> x = share * (gi[i] + vload(gj + j)) - p.heat * vload(p.cost + at);
        for (int64_t l = 0; l < std::min(kDoubles, p.K - j); ++l)
          high = std::max(high, x[l]), low = std::min(low, x[l]);
        vstore(s.outer + at, exp_lanes(x));
      }
  }
  const double limit = 600 / double(p.pairs);  // the product of all pairs' factors stays in range
  if (high <= limit && (!p.start || low >= -limit)) s.range = Slices::ready;
  return s.range == Slices::ready;
}

bool ready(Problem& p) {
  return p.slices.range == Slices::ready || (p.slices.range == Slices::unknown && absorb_all(p));
}

// The outer tuples, and of each the scalings v [3, ld] and factors e [3, ld] without u.
struct Walk {
  const Problem& p;
  int64_t first, end;  // indices of modality 0
  int64_t skip;        // an outer modality whose u is left out, or none
  double *v, *e;
  int64_t* index;  // [M - 3]

  const double* row(int64_t o, int64_t n) const {
    return p.slices.outer + (p.pair(o, n) * p.K + index[o]) * p.ld;
  }
  template <class F>
  void run(int64_t o, double weight, F&& f) const {
    if (o == p.M - 3) {
      for (int64_t m = 0; m < 3; ++m) {
        double *vm = v + m * p.ld, *em = e + m * p.ld;
        std::copy_n(row(0, p.M - 3 + m), p.ld, em);
        for (int64_t n = 1; n < p.M - 3; ++n)
          for (int64_t k = 0; k < p.ld; ++k) em[k] *= row(n, p.M - 3 + m)[k];
        const double* u = p.slices.u + (p.M - 3 + m) * p.ld;
        for (int64_t k = 0; k < p.ld; ++k) vm[k] = u[k] * em[k];
      }
      return f(weight);
    }
    for (int64_t i = o == 0 ? first : 0; i < (o == 0 ? end : p.K); ++i) {
      index[o] = i;
      double x = o == skip ? weight : weight * p.slices.u[o * p.ld + i];
      for (int64_t n = 0; n < o; ++n) x *= row(n, o)[i];
      if (x != 0) run(o + 1, x, f);
    }
  }
};

}  // namespace

int64_t slice_work(const MotShape& s) {
  const int64_t ld = round_up(s.components, kDoubles);
  return (2 * kTileRows + 8) * ld + round_up(s.modalities, kDoubles);
}

bool slices_contraction(Problem& p, int64_t m, double* out) {
  if (!ready(p)) return false;
  const Paired<double> w = matrices(p);
  const int64_t outer = p.M - 3, each = slice_work(p.s), ld = p.ld;
  const int64_t a = m < outer ? 0 : m - outer, b = (a + 1) % 3, c = (a + 2) % 3;
  parallel_for(team(p, p.K * p.K * p.K * p.K / 8), p.K, [&](int64_t i0) {
    double *work = p.slices.work + i0 * each, *sums = work + 6 * ld, *tile = sums + ld;
    const Walk walk{p,
                    i0,
                    i0 + 1,
                    m < outer ? m : -1,
                    work,
                    work + 3 * ld,
                    reinterpret_cast<int64_t*>(tile + 2 * kTileRows * ld)};
    std::fill_n(sums, ld, 0.0);
    walk.run(0, 1.0, [&](double weight) {
      for (int64_t t = 0; t < w.tiles; ++t) {
        const int64_t row = w.row(t), rows = w.row(t + 1) - row;
        product_rows(w, a, walk.v + c * ld, row, rows, tile - row * ld);
        for (int64_t i = 0; i < rows; ++i) {
          const double sum = weight * dot(tile + i * ld, walk.v + b * ld, ld);
          if (m < outer)
            sums[walk.index[m]] += walk.v[a * ld + row + i] * sum;
          else
            sums[row + i] += walk.e[a * ld + row + i] * sum;
        }
      }
    });
  });
  for (int64_t k = 0; k < p.K; ++k) {
    double sum = 0;
    for (int64_t i0 = 0; i0 < p.K; ++i0) sum += p.slices.work[i0 * each + 6 * ld + k];
    if (!(sum > 1e-250 && sum < 1e250)) return p.slices.range = Slices::refused, false;
    out[k] = std::log(sum) - p.slices.absorbed[m * ld + k];
  }
  return true;
}

bool slices_tilt(Problem& p, const Tilt& t, double* sums) {
  if (p.M != 4 || t.D != nullptr || p.start || !ready(p)) return false;
  const Paired<double> w = matrices(p);
  const int64_t ld = p.ld, K = p.K;
  const auto lambda = [&](int64_t m, int64_t k) {
    return t.lambda != nullptr ? t.lambda[m * ld + k] : 0;
  };
  std::fill_n(sums, p.pairs * K * ld, 0.0);
  // A task owns a tile of rows of one inner pair, and with it their part of every row of the pair
  // of modality 0 and the rows' modality.
  parallel_for(team(p, K * K * K * K / 8), 3 * w.tiles, [&](int64_t task) {
    const int64_t a = task / w.tiles, b = (a + 1) % 3, c = (a + 2) % 3, row = w.row(task % w.tiles),
                  rows = w.row(task % w.tiles + 1) - row;
    double *work = p.slices.work + task * slice_work(p.s), *tilted = work + 6 * ld,
           *tile = tilted + ld, *more = tile + kTileRows * ld;
    const Walk walk{
        p, 0, K, -1, work, work + 3 * ld, reinterpret_cast<int64_t*>(more + kTileRows * ld)};
    double *inner = sums + p.pair(1 + std::min(a, b), 1 + std::max(a, b)) * K * ld,
           *outer = sums + p.pair(0, 1 + a) * K * ld;
    walk.run(0, 1.0, [&](double weight) {
      const double *va = walk.v + a * ld, *vb = walk.v + b * ld;
      const int64_t i0 = walk.index[0];
      product_rows(w, a, walk.v + c * ld, row, rows, tile - row * ld);
      if (t.lambda != nullptr) {
        for (int64_t k = 0; k < ld; ++k)
          tilted[k] = k < K ? walk.v[c * ld + k] * lambda(1 + c, k) : 0;
        product_rows(w, a, tilted, row, rows, more - row * ld);
      }
      for (int64_t i = 0; i < rows; ++i) {
        const double base = t.constant + lambda(0, i0) + lambda(1 + a, row + i),
                     scale = weight * va[row + i];
        double sum = 0;
        for (int64_t j = 0; j < K; ++j) {
          double x = (base + lambda(1 + b, j)) * tile[i * ld + j];
          if (t.lambda != nullptr) x += more[i * ld + j];
          x *= scale * vb[j];
          inner[a == 2 ? j * ld + row + i : (row + i) * ld + j] += x;
          sum += x;
        }
        outer[i0 * ld + row + i] += sum;
      }
    });
  });
  return true;
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
