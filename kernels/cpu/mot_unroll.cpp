// The way back through the sweeps. Undoing the update of modality m, with u just after it and
// y = dphi_m / a_m: the plan tilted by y on m goes to dC, its sums off the other dphi.
#include "kernels/cpu/mot_paired.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

// Sweep t's potentials of modality m, those of t = -1 being f = 0.
double log_q(const Problem& p, const double* state, int64_t t, int64_t m, int64_t k) {
  return t < 0 ? 0 : state[(t * p.M + m) * p.K + k];
}

int64_t modality(const Problem& p, int64_t place) {
  return p.complete ? place : p.tree.order[place];
}

template <class T>
class Back {
 public:
  Back(Paired<T>& w, const double* state, double* dphi, double* da)
      : w_(w), p_(*w.problem), state_(state), dphi_(dphi), da_(da) {
    for (T* sum : w.sum) std::fill_n(sum, w.K * w.ld, T(0));
  }

  // Undoes updates from `update` down while the absorbed potentials do; returns the next one.
  int64_t run(int64_t update) {
    bool fits = true;
    for (int64_t m = 0; m < 3; ++m) fits = fits && set_scalings(update / 3 - (m > update % 3), m);
    const int64_t last = update % 3;
    if (fits) products(last);
    while (fits && update >= 0) {
      undo(update % 3);
      fits = set_scalings(update / 3 - 1, update % 3);
      --update;
    }
    return update;
  }

  void add_to(double* dcost) const {
    for (int64_t p = 0; p < 3; ++p) {
      const int64_t e = p == 2 ? 1 : 2 * p;  // (0, 1), (1, 2), (2, 0) among the pairs
      double* to = dcost + e * p_.K * p_.ld;
      for (int64_t i = 0; i < w_.K; ++i)
        for (int64_t j = 0; j < w_.K; ++j)
          to[p == 2 ? j * p_.ld + i : i * p_.ld + j] += double(w_.sum[p][i * w_.ld + j]);
    }
  }

 private:
  // u_m of sweep t. False if out of T's range.
  bool set_scalings(int64_t t, int64_t m) {
    bool fits = true;
    double* rel = w_.rel_of(m);
    for (int64_t k = 0; k < w_.K; ++k) {
      const double x = log_q(p_, state_, t, m, k) - w_.absorbed_of(m)[k];
      fits = fits && std::abs(x) <= Range<T>::drift;
      rel[k] = std::exp(x);
      w_.u[m][k] = T((t < 0 ? 1 : w_.a(m, k)) * rel[k]);
    }
    return fits;
  }

  void products(int64_t p) {
    parallel_for(w_.be, w_.tiles, [&](int64_t t) {
      product_rows(w_, p, w_.u[(p + 2) % 3], w_.row(t), w_.row(t + 1) - w_.row(t), w_.P[p]);
    });
  }

  // to[i, .] += a_i b o x[i, .]
  void add_rows(const T* x, const T* a, const T* b, int64_t row, int64_t rows, T* to) const {
    for (int64_t i = row; i < row + rows; ++i)
      for (int64_t j = 0; j < w_.ld; j += w_.lanes) {
        const int64_t at = i * w_.ld + j;
        vstore(to + at, vload(to + at) + a[i] * vload(b + j) * vload(x + at));
      }
  }

  void undo(int64_t m) {
    const int64_t next = (m + 1) % 3, before = (m + 2) % 3, ld = p_.ld;
    T* z = w_.scaled[m];  // u y
    for (int64_t k = 0; k < w_.K; ++k) {
      const double y = over_marginal(p_, m, k, dphi_[m * ld + k]);
      da_[m * ld + k] += y;
      z[k] = T(y * w_.a(m, k) * w_.rel_of(m)[k]);
      dphi_[m * ld + k] = 0;
    }
    for (int64_t k = w_.K; k < w_.ld; ++k) z[k] = 0;
    // P of (m, next) is at hand; that of (before, m) will be at hand for the next update.
    parallel_for(w_.be, 3 * w_.tiles, [&](int64_t task) {
      const int64_t t = task / 3, row = w_.row(t), rows = w_.row(t + 1) - row;
      if (task % 3 == 0) {
        product_rows(w_, before, w_.u[next], row, rows, w_.P[before]);
        for (int64_t i = row; i < row + rows; ++i)
          w_.rows[i] = dot(w_.P[before] + i * w_.ld, z, w_.ld);
        add_rows(w_.P[before], w_.u[before], z, row, rows, w_.sum[before]);
      } else if (task % 3 == 1) {
        product_rows(w_, next, z, row, rows, w_.W);
        add_rows(w_.W, w_.u[next], w_.u[before], row, rows, w_.sum[next]);
      } else {
        sum_rows(w_, w_.P[m] + row * w_.ld, z + row, rows, w_.partial + t * w_.ld);
        add_rows(w_.P[m], z, w_.u[next], row, rows, w_.sum[m]);
      }
    });
    sum_tiles(w_, w_.partial, w_.columns);
    for (int64_t k = 0; k < w_.K; ++k) {
      dphi_[next * ld + k] -= double(w_.u[next][k]) * w_.columns[k];
      dphi_[before * ld + k] -= double(w_.u[before][k]) * w_.rows[k];
    }
  }

  Paired<T>& w_;
  const Problem& p_;
  const double* state_;
  double *dphi_, *da_;
};

}  // namespace

void load_state(Problem& p, const double* state, int64_t t, int64_t last) {
  for (int64_t place = 0; place < p.M; ++place) {
    const int64_t m = modality(p, place), sweep = place > last ? t - 1 : t;
    for (int64_t k = 0; k < p.K; ++k) {
      const int64_t i = m * p.ld + k;
      p.q[i] = log_q(p, state, sweep, m, k);
      p.phi[i] = sweep < 0 ? 0 : p.log_a[i] + p.q[i];
    }
  }
  p.start = t < 0 || (t == 0 && last < p.M - 1);
  potentials_changed(p);
}

void update_backward(Problem& p, int64_t m, double* dphi, double* dcost, double* da) {
  std::fill_n(p.lambda, p.M * p.ld, 0.0);
  for (int64_t k = 0; k < p.K; ++k) {
    const int64_t i = m * p.ld + k;
    p.lambda[i] = over_marginal(p, m, k, dphi[i]);
    da[i] += p.lambda[i];
    dphi[i] = 0;
  }
  const Tilt t{0, p.lambda, nullptr};
  if (p.complete && (p.M == 3 || !slices_tilt(p, t, p.tilted)))
    stream_tilt(p, t, p.tilted);
  else if (!p.complete)
    tree_tilt(p, t, p.tilted);
  for (int64_t i = 0; i < p.pairs * p.K * p.ld; ++i) dcost[i] += p.tilted[i];
  modality_sums(p, p.tilted, p.z);
  for (int64_t n = 0; n < p.M; ++n)
    for (int64_t k = 0; k < p.K && n != m; ++k) dphi[n * p.ld + k] -= p.z[n * p.ld + k];
}

void unroll(Problem& p, const double* state, int64_t sweeps, double* dphi, double* dcost,
            double* da) {
  for (int64_t update = sweeps * p.M - 1; update >= 0;) {
    const int64_t t = update / p.M, place = update % p.M, before = update;
    if (p.complete && p.M == 3) {
      load_state(p, state, t, 2);
      with_products(p, [&]<class T>(Paired<T>& w) {
        Back<T> back(w, state, dphi, da);
        update = back.run(update);
        back.add_to(dcost);
      });
    }
    if (update < before) continue;
    load_state(p, state, t, place);
    update_backward(p, modality(p, place), dphi, dcost, da);
    --update;
  }
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
