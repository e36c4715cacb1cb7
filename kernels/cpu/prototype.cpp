#include "kernels/prototype.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/prototype.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

int64_t table(const PrototypeShape& s) { return s.modalities * s.components * s.width; }

// 1 / max(v, floor), or 1 without mahalanobis.
const double* precisions(const PrototypeShape& s, In variances, double* out) {
  for (int64_t i = 0; i < table(s); ++i)
    out[i] = s.options.mahalanobis
                 ? 1 / std::max(double(variances[size_t(i)]), s.options.variance_floor)
                 : 1;
  return out;
}

// One task per row block of the outputs, so that small problems stay on one thread.
int64_t grain(const PrototypeShape& s, int64_t rows) {
  const int64_t work = s.modalities * s.modalities * s.batch * s.components * s.width + 1;
  return std::max<int64_t>(1, rows * (1 << 17) / work);
}

// sum_t (x - mu)^2 p
double distance(const real* x, const real* mu, const double* p, int64_t d) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t t = 0; t < d; ++t) {
    const double e = double(x[t]) - double(mu[t]);
    sum += e * e * p[t];
  }
  return sum;
}

// to += from, which is rounded once.
void add(const double* from, int64_t n, real* to) {
  for (int64_t t = 0; t < n; ++t) to[t] = real(double(to[t]) + from[t]);
}

}  // namespace

size_t prototype_scratch_bytes(const Cpu&, const PrototypeShape& s) {
  const int64_t rows = s.modalities * s.batch;
  return carve_bytes<double>(table(s)) +
         carve_bytes<double>(std::max({rows, rows * s.width, 2 * table(s)}));
}

void prototype_forward(const Cpu& be, const PrototypeShape& s, In x, In posteriors, In means,
                       In variances, Out value, Scratch scratch) {
  check_prototype(s, x, posteriors, means, variances, value, scratch,
                  prototype_scratch_bytes(be, s));
  const int64_t rows = s.modalities * s.batch, K = s.components, d = s.width;
  const double* p = precisions(s, variances, carve<double>(scratch, table(s)));
  double* partial = carve<double>(scratch, rows);
  parallel_ranges(be, rows, grain(s, rows), [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      partial[n] = 0;
      for (int64_t k = 0; k < s.modalities * K; ++k)
        if (k / K != n / s.batch)
          partial[n] += double(posteriors[size_t(n * K + k % K)]) *
                        distance(x.data() + n * d, means.data() + k * d, p + k * d, d);
    }
  });
  double sum = 0;
  for (int64_t n = 0; n < rows; ++n) sum += partial[n];
  value[0] = real(sum * prototype_term_weight(s));
}

// Sums in double, rounded once when they are added.
void prototype_backward(const Cpu& be, const PrototypeShape& s, In x, In posteriors, In means,
                        In variances, In dvalue, InOut dx, InOut dposteriors, InOut dmeans,
                        InOut dvariances, Scratch scratch) {
  check_prototype_backward(s, x, posteriors, means, variances, dvalue, dx, dposteriors, dmeans,
                           dvariances, scratch, prototype_scratch_bytes(be, s));
  const int64_t rows = s.modalities * s.batch, K = s.components, d = s.width;
  const int64_t prototypes = s.modalities * K;
  const double* p = precisions(s, variances, carve<double>(scratch, table(s)));
  double* sums = carve<double>(scratch, std::max(rows * d, 2 * table(s)));
  const double g = double(dvalue[0]) * prototype_term_weight(s);
  const bool want_variances = s.options.mahalanobis && !dvariances.empty();
  // By sample: dx and dposteriors.
  if (!dx.empty() || !dposteriors.empty())
    parallel_ranges(be, rows, grain(s, rows), [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        const real* xn = x.data() + n * d;
        double* sum = sums + n * d;
        std::fill(sum, sum + d, 0.0);
        for (int64_t k = 0; k < prototypes; ++k) {
          if (k / K == n / s.batch) continue;
          const size_t at = size_t(n * K + k % K);
          const real* mu = means.data() + k * d;
          const double *pk = p + k * d, w = 2 * g * double(posteriors[at]);
          if (!dposteriors.empty())
            dposteriors[at] = real(double(dposteriors[at]) + g * distance(xn, mu, pk, d));
#pragma omp simd
          for (int64_t t = 0; t < d; ++t) sum[t] += w * (double(xn[t]) - double(mu[t])) * pk[t];
        }
        if (!dx.empty()) add(sum, d, dx.data() + n * d);
      }
    });
  // By prototype: dmeans and dvariances.
  if (!dmeans.empty() || want_variances)
    parallel_ranges(be, prototypes, grain(s, prototypes), [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const real* mu = means.data() + k * d;
        const double* pk = p + k * d;
        double *dmu = sums + 2 * k * d, *dv = dmu + d;
        std::fill(dmu, dmu + 2 * d, 0.0);
        for (int64_t n = 0; n < rows; ++n) {
          if (k / K == n / s.batch) continue;
          const double w = g * double(posteriors[size_t(n * K + k % K)]);
          const real* xn = x.data() + n * d;
#pragma omp simd
          for (int64_t t = 0; t < d; ++t) {
            const double e = (double(xn[t]) - double(mu[t])) * pk[t];
            dmu[t] -= 2 * w * e;
            dv[t] -= w * e * e;
          }
        }
        if (!dmeans.empty()) add(dmu, d, dmeans.data() + k * d);
        if (!want_variances) continue;
        const real* v = variances.data() + k * d;
        for (int64_t t = 0; t < d; ++t)
          if (double(v[t]) < s.options.variance_floor) dv[t] = 0;
        add(dv, d, dvariances.data() + k * d);
      }
    });
}

}  // namespace decalign::inline DECALIGN_REAL
