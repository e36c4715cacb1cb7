// Sweeps and tilted plans of the complete graph of three.
#include "kernels/cpu/mot_paired.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

// Both sums of group p: w.rows = sum_q P_p u_q; then u_p is new and w.columns = sum_p P_p u_p,
// before in w.columns_old.
template <class T>
void group_sums(Paired<T>& w, int64_t p, bool old) {
  const int64_t q = (p + 1) % 3, r = (p + 2) % 3, each = w.tiles * w.ld;
  T* fresh = w.scaled[p];
  parallel_for(w.be, w.tiles, [&](int64_t t) {
    const int64_t row = w.row(t), rows = w.row(t + 1) - row;
    product_rows(w, p, w.u[r], row, rows, w.P[p]);
    const T* block = w.P[p] + row * w.ld;
    if (old) sum_rows(w, block, w.u[p] + row, rows, w.partial + each + t * w.ld);
    for (int64_t i = 0; i < rows; ++i) {
      w.rows[row + i] = dot(block + i * w.ld, w.u[q], w.ld);
      fresh[row + i] = T(w.a(p, row + i) / w.rows[row + i]);
    }
    sum_rows(w, block, fresh + row, rows, w.partial + t * w.ld);
  });
  sum_tiles(w, w.partial, w.columns);
  if (old) sum_tiles(w, w.partial + each, w.columns_old);
}

template <class T>
void apply(Paired<T>& w, int64_t m, const double* sums) {
  double* rel = w.rel_of(m);
  for (int64_t k = 0; k < w.K; ++k) {
    rel[k] = 1 / sums[k];
    w.u[m][k] = T(w.a(m, k) * rel[k]);
  }
}

template <class T>
bool within(const double* sums, int64_t K, double limit) {
  for (int64_t k = 0; k < K; ++k)
    if (!(sums[k] > 1 / limit && sums[k] < limit)) return false;
  return true;
}

// log q of the first `count` modalities of this sweep, of all after the first.
template <class T>
void write_back(const Paired<T>& w, int64_t modalities) {
  Problem& p = *w.problem;
  for (int64_t m = 0; m < modalities; ++m)
    for (int64_t k = 0; k < w.K; ++k) {
      const int64_t i = m * p.ld + k;
      p.q[i] = w.absorbed[i] + std::log(w.rel[i]);
      p.phi[i] = p.log_a[i] + p.q[i];
    }
}

struct Progress {
  int64_t updates = 0, end;  // of single modalities
  double tolerance;
  double* store;
  bool done() const { return updates >= end; }
};

void store_state(const Problem& p, Progress& s) {
  if (s.store == nullptr) return;
  for (int64_t m = 0; m < p.M; ++m)
    std::copy_n(p.q + m * p.ld, p.K, s.store + ((s.updates / 3 - 1) * 3 + m) * p.K);
}

// L1 error of the state at the start of a sweep, by the sums of group 0 (w.rows, w.columns_old).
template <class T>
double group_error(const Paired<T>& w) {
  double error = 0;
  for (int64_t k = 0; k < w.K; ++k)
    error += std::abs(w.a(0, k) * (w.rel_of(0)[k] * w.rows[k] - 1)) +
             std::abs(w.a(1, k) * (w.rel_of(1)[k] * w.columns_old[k] - 1));
  return error;
}

// Sweeps until the end, or until the absorbed potentials have to be renewed. True: at the end or
// converged.
template <class T>
bool run_groups(Paired<T>& w, Progress& s) {
  Problem& p = *w.problem;
  const double drift = std::exp(Range<T>::drift);
  // The first sweep may need double where those after it do not.
  bool may_be_float = p.start && sizeof(T) > sizeof(real) && float_suffices(p.s);
  while (!s.done()) {
    const int64_t first = s.updates % 3, second = (first + 1) % 3;
    const bool check = s.tolerance > 0 && first == 0 && s.updates > 0;
    group_sums(w, first, check);
    if (check && group_error(w) <= s.tolerance) {
      write_back(w, 3);
      return true;
    }
    bool near = true;
    for (const int64_t m : {first, second}) {
      const double* sums = m == first ? w.rows : w.columns;
      if (!within<T>(sums, w.K, Range<T>::usable)) {  // the state as it was before this update
        write_back(w, s.updates < 3 ? m : 3);
        return false;
      }
      near &= within<T>(sums, w.K, drift);
      apply(w, m, sums);
      if (++s.updates >= 3) p.start = false;
      if (s.updates % 3 == 0) {
        if (s.store != nullptr || s.done()) write_back(w, 3);
        store_state(p, s);
        if (s.done()) return true;
      }
    }
    if (!p.start && (!near || std::exchange(may_be_float, false))) {
      write_back(w, 3);
      return false;
    }
  }
  return true;
}

// Updates by the plain sum to the end of the sweep.
void finish_sweep(Problem& p, Progress& s) {
  double* sums = p.vectors;
  do {
    stream_contraction(p, s.updates % 3, sums);
    set_potential(p, s.updates % 3, sums);
    if (++s.updates % 3 == 0) p.start = false, store_state(p, s);
  } while (s.updates % 3 != 0);
}

}  // namespace

int64_t paired_sweeps(Problem& p, int64_t sweeps, double tolerance, double* store) {
  Progress s{0, 3 * sweeps, tolerance, store};
  while (!s.done()) {
    bool converged = false;
    const int64_t before = s.updates;
    const bool built = with_products(p, [&](auto& w) { converged = run_groups(w, s); });
    if (converged) break;
    if (!built || s.updates == before || p.start) finish_sweep(p, s);
  }
  return s.updates / 3;
}

namespace {

// X_p o D_p as [K, ld] in cyclic orientation.
template <class T>
void tilt_matrix(const Paired<T>& w, int64_t p, const double* D, T* to) {
  const Problem& z = *w.problem;
  const int64_t m = p == 2 ? 0 : p, n = p == 0 ? 1 : 2;
  const double* d = D + z.pair(m, n) * z.K * z.ld;
  for (int64_t i = 0; i < w.K; ++i)
    for (int64_t j = 0; j < w.ld; ++j)
      to[i * w.ld + j] =
          j < w.K ? T(double(w.X[p][i * w.ld + j]) * (p == 2 ? d[j * z.ld + i] : d[i * z.ld + j]))
                  : T(0);
}

template <class T>
void panels_of(const Paired<T>& w, const T* x, T* to) {  // the transpose of x, in panels
  for (int64_t j0 = 0; j0 < w.ld; j0 += 2 * w.lanes) {
    const int64_t width = std::min(2 * w.lanes, w.ld - j0);
    for (int64_t l = 0; l < w.K; ++l)
      for (int64_t j = 0; j < width; ++j)
        to[j0 * w.K + l * width + j] = j0 + j < w.K ? x[(j0 + j) * w.ld + l] : T(0);
  }
}

template <class T>
void products_tilt(Paired<T>& w, const Tilt& t, double* sums) {
  const Problem& z = *w.problem;
  const auto lambda = [&](int64_t m, int64_t k) {
    return t.lambda != nullptr ? t.lambda[m * z.ld + k] : 0;
  };
  const auto all = [&](const T* xr, const T* s, const T* panels, int64_t p, T* out) {
    parallel_for(w.be, w.tiles, [&](int64_t i) {
      product_rows(w, xr, s, panels, w.X[p], w.row(i), w.row(i + 1) - w.row(i), out);
    });
  };
  for (int64_t p = 0; p < 3; ++p) {
    const int64_t q = (p + 1) % 3, r = (p + 2) % 3, m = p == 2 ? 0 : p, n = p == 0 ? 1 : 2;
    all(w.X[r], w.u[r], w.XT[q], p, w.P[p]);
    for (int64_t k = 0; k < w.ld; ++k)
      w.scaled[r][k] = k < w.K ? T(double(w.u[r][k]) * lambda(r, k)) : T(0);
    T* more[3] = {};
    if (t.lambda != nullptr) all(w.X[r], w.scaled[r], w.XT[q], p, more[0] = w.W);
    if (t.D != nullptr) {
      T *d = w.sum[2], *panels = w.P[q];  // P_q has had its turn or is still to come
      tilt_matrix(w, r, t.D, d);
      all(d, w.u[r], w.XT[q], p, more[1] = w.sum[0]);
      tilt_matrix(w, q, t.D, d);
      panels_of(w, d, panels);
      all(w.X[r], w.u[r], panels, p, more[2] = w.sum[1]);
    }
    const int64_t base = z.pair(m, n) * z.K * z.ld;
    parallel_for(w.be, w.tiles, [&](int64_t tile) {
      for (int64_t i = w.row(tile); i < w.row(tile + 1); ++i)
        for (int64_t j = 0; j < w.K; ++j) {
          const int64_t at = i * w.ld + j, to = base + (p == 2 ? j * z.ld + i : i * z.ld + j);
          double weight = t.constant + lambda(p, i) + lambda(q, j);
          if (t.D != nullptr) weight += t.D[to];
          double sum = weight * double(w.P[p][at]);
          for (const T* x : more)
            if (x != nullptr) sum += double(x[at]);
          sums[to] = double(w.u[p][i]) * double(w.u[q][j]) * sum;
        }
    });
    for (int64_t i = 0; i < z.K; ++i)
      for (int64_t j = z.K; j < z.ld; ++j) sums[base + i * z.ld + j] = 0;
  }
}

}  // namespace

bool paired_tilt(Problem& p, const Tilt& t, double* sums) {
  return with_products(p, [&](auto& w) { products_tilt(w, t, sums); });
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
