// Matrices and products of the complete graph of three.
#include <array>

#include "kernels/cpu/mot_paired.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

template <class T>
struct TileArgs {
  int64_t depth;
  const T *a, *b;  // [depth, stride], [depth, NV vectors]
  const T* x;      // [rows, ld] or null: not the last of the depth
  T* out;          // [rows, ld]
  int64_t ld;
  bool first;
};

// out = (out +) sum_l a[l, .] b[l, .], times x at the end.
template <class T, int MR, int NV>
void multiply_tile(const TileArgs<T>& t) {
  constexpr int64_t n = Lanes<T>::n;
  vec<T> acc[MR][NV] = {};
  const T *a = t.a, *b = t.b;
  for (int64_t l = 0; l < t.depth; ++l, a += Paired<T>::stride, b += NV * n) {
    vec<T> line[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) line[v] = vload(b + v * n);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const vec<T> s = splat(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[i][v] += s * line[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      const int64_t at = i * t.ld + v * n;
      vec<T> y = acc[i][v];
      if (!t.first) y += vload(t.out + at);
      if (t.x != nullptr) y *= vload(t.x + at);
      vstore(t.out + at, y);
    }
}

template <class T, int NV, size_t... I>
constexpr std::array<void (*)(const TileArgs<T>&), kTileRows> kernels(std::index_sequence<I...>) {
  return {&multiply_tile<T, int(I) + 1, NV>...};
}
template <class T>
constexpr std::array<void (*)(const TileArgs<T>&), kTileRows> kKernels[2] = {
    kernels<T, 1>(std::make_index_sequence<size_t(kTileRows)>{}),
    kernels<T, 2>(std::make_index_sequence<size_t(kTileRows)>{})};

}  // namespace

template <class T>
void product_rows(const Paired<T>& w, const T* xr, const T* s, const T* panels, const T* x,
                  int64_t row, int64_t rows, T* out) {
  constexpr int64_t n = Paired<T>::lanes, stride = Paired<T>::stride;
  alignas(64) T packed[kDepth * stride];
  for (int64_t l0 = 0; l0 < w.K; l0 += kDepth) {
    const int64_t depth = std::min(kDepth, w.K - l0);
    for (int64_t l = 0; l < depth; ++l)
      for (int64_t i = 0; i < stride; i += n)
        vstore(packed + l * stride + i, s[l0 + l] * vload(xr + (l0 + l) * w.ld + row + i));
    for (int64_t j = 0; j < w.ld; j += 2 * n) {
      const int64_t width = std::min(2 * n, w.ld - j), at = row * w.ld + j;
      kKernels<T>[width / n - 1][size_t(rows - 1)]({depth, packed, panels + j * w.K + l0 * width,
                                                    l0 + depth == w.K ? x + at : nullptr, out + at,
                                                    w.ld, l0 == 0});
    }
  }
}

template <class T>
Paired<T> make_paired(Problem* p, const MotShape& s, Arena& arena) {
  Paired<T> w{};
  const int64_t K = s.components, vectors = round_up(K, kDoubles);
  w.problem = p;
  w.K = K;
  w.ld = round_up(K, w.lanes);
  w.tiles = (K + kTileRows - 1) / kTileRows;
  if (p != nullptr) w.be = team(*p, K * K * K / 8);
  const int64_t matrix = K * w.ld + 2 * w.stride;  // a tile's last vector reads beyond its rows
  for (int64_t m = 0; m < 3; ++m) {
    w.X[m] = arena.take<T>(matrix);
    w.XT[m] = arena.take<T>(matrix);
    w.P[m] = arena.take<T>(matrix);
    w.sum[m] = arena.take<T>(matrix);
    w.u[m] = arena.take<T>(w.ld);
    w.scaled[m] = arena.take<T>(w.ld);
  }
  w.W = arena.take<T>(matrix);
  w.partial = arena.take<T>(3 * w.tiles * w.ld);
  w.rel = arena.take<double>(3 * vectors);
  w.absorbed = arena.take<double>(3 * vectors);
  w.shares = arena.take<double>(6 * vectors);
  for (double** v : {&w.rows, &w.columns, &w.columns_old}) *v = arena.take<double>(vectors);
  return w;
}

namespace {

// Row i of pair p's cost, which for p = 2 is that of (0, 2), the transpose of the cyclic (2, 0).
template <class T>
const double* cost_of(const Paired<T>& w, int64_t p, int64_t i) {
  const Problem& z = *w.problem;
  const int64_t inner = z.M - 3;
  return z.cost_row(z.pair(inner + (p == 2 ? 0 : p), inner + (p == 0 ? 1 : 2)), i);
}

// Largest exponent of pair p for every index of its first (0) or second (1) modality.
template <class T>
void tops(const Paired<T>& w, int64_t p, int side, double* out) {
  const Problem& z = *w.problem;
  const double *rows = w.share_of(p, 0), *columns = w.share_of(p, 1);
  if (side == 1) std::fill_n(out, z.ld, -INFINITY);
  for (int64_t i = 0; i < w.K; ++i) {
    const double* cost = cost_of(w, p, i);
    vec<double> top = splat<double>(-INFINITY);
    for (int64_t j = 0; j < z.ld; j += kDoubles) {
      const vec<double> x = rows[i] + vload(columns + j) - z.heat * vload(cost + j);
      top = larger(x, top);
      if (side == 1) vstore(out + j, larger(x, vload(out + j)));
    }
    if (side == 0) out[i] = largest(top);
  }
}

// Moves shares of the potentials between a modality's two pairs, so that their largest exponents
// are equal: neither need be large where the plan is not.
template <class T>
void balance(Paired<T>& w) {
  struct Side {
    int64_t pair;
    int side;
  };
  constexpr Side sides[3][2] = {{{0, 0}, {2, 0}}, {{0, 1}, {1, 0}}, {{1, 1}, {2, 1}}};
  for (int round = 0; round < 4; ++round)
    for (const auto& [one, other] : sides) {
      tops(w, one.pair, one.side, w.columns);
      tops(w, other.pair, other.side, w.columns_old);
      double *a = w.share_of(one.pair, one.side), *b = w.share_of(other.pair, other.side);
      for (int64_t k = 0; k < w.K; ++k) {
        const double move = 0.5 * (w.columns_old[k] - w.columns[k]);
        a[k] += move;
        b[k] -= move;
      }
    }
}

// The largest and the smallest exponent of pair p's matrix, which is filled.
template <class T>
void build(const Paired<T>& w, int64_t p, double& high, double& low) {
  const Problem& z = *w.problem;
  const int64_t K = w.K;
  const double *rows = w.share_of(p, 0), *columns = w.share_of(p, 1);
  double* line = w.columns;
  for (int64_t i = 0; i < K; ++i) {
    const double* cost = cost_of(w, p, i);
    vec<double> top = splat<double>(-INFINITY), bottom = splat<double>(INFINITY);
    for (int64_t j = 0; j < z.ld; j += kDoubles) {
      vec<double> x = rows[i] + vload(columns + j) - z.heat * vload(cost + j);
      top = larger(x, top);
      if (j + kDoubles <= K)
        bottom = x < bottom ? x : bottom;
      else
        for (int64_t l = 0; l < K - j; ++l) bottom[l] = std::min(bottom[l], x[l]);
      vstore(line + j, x < Range<T>::lowest ? vec<double>{} : exp_lanes(x));
    }
    high = std::max(high, largest(top));
    low = std::min(low, -largest(-bottom));
    T *rowwise = p == 2 ? w.XT[p] : w.X[p], *transposed = p == 2 ? w.X[p] : w.XT[p];
    const auto panel = [&](int64_t l, int64_t j) {  // element [l, j] of a matrix in panels
      const int64_t j0 = j / (2 * w.lanes) * 2 * w.lanes;
      return j0 * K + l * std::min(2 * w.lanes, w.ld - j0) + j - j0;
    };
    if (p == 2) {
      for (int64_t j = 0; j < w.ld; ++j) rowwise[panel(i, j)] = j < K ? T(line[j]) : T(0);
      for (int64_t j = 0; j < K; ++j) transposed[j * w.ld + i] = T(line[j]);
    } else {
      for (int64_t j = 0; j < w.ld; ++j) rowwise[i * w.ld + j] = j < K ? T(line[j]) : T(0);
      for (int64_t j = 0; j < K; ++j) transposed[panel(j, i)] = T(line[j]);
    }
  }
  // Columns beyond K of the transposed form.
  for (int64_t i = K; i < w.ld; ++i)
    for (int64_t j = 0; j < K; ++j) {
      const int64_t j0 = i / (2 * w.lanes) * 2 * w.lanes;
      if (p == 2)
        w.X[p][j * w.ld + i] = 0;
      else
        w.XT[p][j0 * K + j * std::min(2 * w.lanes, w.ld - j0) + i - j0] = 0;
    }
}

}  // namespace

template <class T>
void build_all(Paired<T>& w, double& high, double& low) {
  const int64_t ld = w.problem->ld;
  const double share = 1 / double(w.problem->M - 1);
  for (int64_t p = 0; p < 3; ++p)
    for (int64_t k = 0; k < ld; ++k) {
      w.share_of(p, 0)[k] = share * w.absorbed_of(p == 2 ? 0 : p)[k];
      w.share_of(p, 1)[k] = share * w.absorbed_of(p == 0 ? 1 : 2)[k];
    }
  for (int64_t p = 0; p < 3; ++p) build(w, p, high, low);
  if (high <= Range<T>::highest) return;
  balance(w);
  high = -INFINITY, low = INFINITY;
  for (int64_t p = 0; p < 3; ++p) build(w, p, high, low);
}

template <class T>
bool absorb(Paired<T>& w) {
  const Problem& p = *w.problem;
  for (int64_t i = 0; i < 3 * p.ld; ++i) {
    w.absorbed[i] = p.start ? 0 : p.q[i];
    w.rel[i] = 1;
  }
  double high = -INFINITY, low = INFINITY;
  build_all(w, high, low);
  for (int64_t m = 0; m < 3; ++m)
    for (int64_t k = 0; k < w.ld; ++k) w.u[m][k] = k < w.K ? T(p.start ? 1 : w.a(m, k)) : T(0);
  // After a sweep the sums are 1 and what underflows carries nothing; before it they are anything.
  return high <= Range<T>::highest && (!p.start || low >= Range<T>::lowest / 3);
}

size_t paired_bytes(const MotShape& s) {
  Arena arena{nullptr};
  make_paired<double>(nullptr, s, arena);
  return arena.used;
}

template Paired<double> make_paired(Problem*, const MotShape&, Arena&);
template void build_all(Paired<double>&, double&, double&);
template bool absorb(Paired<double>&);
template void product_rows(const Paired<double>&, const double*, const double*, const double*,
                           const double*, int64_t, int64_t, double*);
template Paired<float> make_paired(Problem*, const MotShape&, Arena&);
template bool absorb(Paired<float>&);
template void product_rows(const Paired<float>&, const float*, const float*, const float*,
                           const float*, int64_t, int64_t, float*);

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
