// The complete graph of three modalities by matrix products. In cyclic form, with p, q, r = p,
// p + 1, p + 2 mod 3 and pair p = (p, q):
//   T_pqr = u_p u_q u_r X_p[p, q] X_q[q, r] X_r[r, p],   X = exp(absorbed potentials - C / epsilon)
//   P_p = X_p o H_p(u_r),   H_p(s)[p, q] = sum_r X_r[r, p] s_r X_q[q, r],   T_pq = u_p u_q P_p
// The sums of u_p = a_p / sum_q P_p u_q and u_q = a_q / sum_p P_p u_p need the same P_p: the groups
// (0, 1 | 2) (2, 0 | 1) (1, 2 | 0) are the cyclic order of the updates at two updates a product.
// P is used while a tile of its rows is in the cache.
//
// T is float or double. Products of three X and three u have to stay in T's range: an X beyond
// e^kHighest or a u whose q leaves e^+-kDrift asks for new absorption.
#pragma once

#include "kernels/cpu/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {

#ifdef __AVX512F__
constexpr int kTileRows = 14;
#else
constexpr int kTileRows = 6;
#endif
constexpr int64_t kDepth = 256;  // of a packed tile

template <class T>
struct Range;
template <>
struct Range<float> {
  static constexpr double highest = 20, lowest = -86, drift = 10, usable = 1e25;
};
template <>
struct Range<double> {
  static constexpr double highest = 200, lowest = -708, drift = 30, usable = 1e60;
};

template <class T>
struct Paired {
  static constexpr int64_t lanes = Lanes<T>::n, stride = round_up(kTileRows, lanes);

  Problem* problem;
  Cpu be;
  int64_t K, ld, tiles;    // ld: K rounded up to whole vectors
  T *X[3], *XT[3];         // [K, ld]; the transpose in panels of two vectors
  T *P[3], *W;             // [K, ld]
  T* sum[3];               // [K, ld] of the way back
  T *u[3], *scaled[3];     // [ld]
  T* partial;              // [3, tiles, ld]
  double* shares;          // [3, 2, p.ld]: of the potentials in pair p, as the cost has it
  double *rel, *absorbed;  // [3, p.ld]: q = rel e^absorbed
  double *rows, *columns, *columns_old;  // [p.ld]

  int64_t row(int64_t tile) const { return K * tile / tiles; }
  double a(int64_t m, int64_t k) const { return problem->a[m * problem->ld + k]; }
  double* share_of(int64_t p, int side) const { return shares + (2 * p + side) * problem->ld; }
  double* rel_of(int64_t m) const { return rel + m * problem->ld; }
  double* absorbed_of(int64_t m) const { return absorbed + m * problem->ld; }
};

/// Cuts the matrices from the problem's memory; with null it only counts.
template <class T>
Paired<T> make_paired(Problem* p, const MotShape& s, Arena& arena);

/// X of the absorbed potentials, shared out between a modality's pairs; the largest and the
/// smallest exponent there is.
template <class T>
void build_all(Paired<T>& w, double& high, double& low);
/// Absorbs the problem's log q and builds X. False if T's range does not do.
template <class T>
bool absorb(Paired<T>& w);

/// Rows [row, row + rows) of out [K, ld] = x o (sum_r xr[r, row] s_r panels[r, .]).
template <class T>
void product_rows(const Paired<T>& w, const T* xr, const T* s, const T* panels, const T* x,
                  int64_t row, int64_t rows, T* out);
/// The same for P_p = X_p o H_p(s).
template <class T>
void product_rows(const Paired<T>& w, int64_t p, const T* s, int64_t row, int64_t rows, T* out) {
  product_rows(w, w.X[(p + 2) % 3], s, w.XT[(p + 1) % 3], w.X[p], row, rows, out);
}

template <class T>
double dot(const T* x, const T* y, int64_t n) {
  double sum = 0;
  constexpr int64_t chunk = 32 * Lanes<T>::n;  // a float sum stays short
  for (int64_t j0 = 0; j0 < n; j0 += chunk) {
    const int64_t end = std::min(n, j0 + chunk);
    vec<T> even{}, odd{};
    int64_t j = j0;
    for (; j + Lanes<T>::n < end; j += 2 * Lanes<T>::n) {
      even += vload(x + j) * vload(y + j);
      odd += vload(x + j + Lanes<T>::n) * vload(y + j + Lanes<T>::n);
    }
    if (j < end) even += vload(x + j) * vload(y + j);
    sum += total<T>(even + odd);
  }
  return sum;
}

/// out [K] = the sum over tiles of partial [tiles, ld].
template <class T>
void sum_tiles(const Paired<T>& w, const T* partial, double* out) {
  for (int64_t j = 0; j < w.K; ++j) out[j] = 0;
  for (int64_t t = 0; t < w.tiles; ++t)
    for (int64_t j = 0; j < w.K; ++j) out[j] += double(partial[t * w.ld + j]);
}

/// to [ld] = sum over the tile's rows of weight_i x_i.
template <class T>
void sum_rows(const Paired<T>& w, const T* x, const T* weight, int64_t rows, T* to) {
  for (int64_t j = 0; j < w.ld; j += w.lanes) {
    vec<T> sum{};
    for (int64_t i = 0; i < rows; ++i) sum += weight[i] * vload(x + i * w.ld + j);
    vstore(to + j, sum);
  }
}

/// Whether products in float will do for these options.
inline bool float_suffices(const MotShape& s) {
  const MotOptions& o = s.options;
  return sizeof(real) == sizeof(float) && s.components >= 48 && o.newton_steps == 0 &&
         (o.tolerance == 0 || o.tolerance >= 1e-5);
}

/// f(w) for the problem with its log q absorbed, in float where that suffices, else in double;
/// false if neither's range does.
template <class F>
bool with_products(Problem& p, F&& f) {
  if (float_suffices(p.s)) {
    Arena arena{static_cast<std::byte*>(p.paired)};
    Paired<float> w = make_paired<float>(&p, p.s, arena);
    if (absorb(w)) {
      f(w);
      return true;
    }
  }
  Arena arena{static_cast<std::byte*>(p.paired)};
  Paired<double> w = make_paired<double>(&p, p.s, arena);
  if (!absorb(w)) return false;
  f(w);
  return true;
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
