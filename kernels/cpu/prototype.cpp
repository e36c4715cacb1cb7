#include "kernels/prototype.h"

#include <cmath>

#include "kernels/cpu/carve.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

void check(const PrototypeShape& s, In x, In posteriors, In means, In variances, In value,
           size_t needed, Scratch scratch) {
  expect(s.modalities >= 0 && s.batch >= 0 && s.components >= 0 && s.width >= 0,
         "prototype: sizes out of range");
  expect(std::ssize(x) == s.modalities * s.batch * s.width, "prototype: x must be [M, B, d]");
  expect(std::ssize(posteriors) == s.modalities * s.batch * s.components,
         "prototype: posteriors must be [M, B, K]");
  const int64_t n = s.modalities * s.components * s.width;
  expect(std::ssize(means) == n && std::ssize(variances) == n,
         "prototype: means and variances must be [M, K, d]");
  expect(value.size() == 1, "prototype: value must have one element");
  expect(scratch.size() >= needed, "prototype: scratch too small");
}

// Factor of every (pair, sample) term.
double term_weight(const PrototypeShape& s) {
  if (s.modalities < 2 || s.batch == 0 || s.width == 0) return 0;
  double w = 1 / double(s.batch);
  if (s.options.feature == Reduction::mean) w /= double(s.width);
  if (s.options.pairs == Reduction::mean) w /= double(s.modalities * (s.modalities - 1));
  return w;
}

int64_t table(const PrototypeShape& s) { return s.modalities * s.components * s.width; }

// 1 / max(v, floor), or 1 without mahalanobis.
const real* precisions(const PrototypeShape& s, In variances, real* out) {
  const real floor = real(s.options.variance_floor);
  for (int64_t i = 0; i < table(s); ++i)
    out[i] = s.options.mahalanobis ? 1 / std::max(variances[size_t(i)], floor) : real(1);
  return out;
}

// One task per row block of the outputs, so that small problems stay on one thread.
int64_t grain(const PrototypeShape& s, int64_t rows) {
  const int64_t work = s.modalities * s.modalities * s.batch * s.components * s.width + 1;
  return std::max<int64_t>(1, rows * (1 << 17) / work);
}

// sum_t (x - mu)^2 p
real distance(const real* x, const real* mu, const real* p, int64_t d) {
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t t = 0; t < d; ++t) {
    const real e = x[t] - mu[t];
    sum += e * e * p[t];
  }
  return sum;
}

}  // namespace

size_t prototype_scratch_bytes(const Cpu&, const PrototypeShape& s) {
  return carve_bytes<real>(table(s)) + carve_bytes<double>(s.modalities * s.batch);
}

void prototype_forward(const Cpu& be, const PrototypeShape& s, In x, In posteriors, In means,
                       In variances, Out value, Scratch scratch) {
  check(s, x, posteriors, means, variances, value, prototype_scratch_bytes(be, s), scratch);
  const int64_t rows = s.modalities * s.batch, K = s.components, d = s.width;
  const real* p = precisions(s, variances, carve<real>(scratch, table(s)));
  double* partial = carve<double>(scratch, rows);
  parallel_ranges(be, rows, grain(s, rows), [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      partial[n] = 0;
      for (int64_t k = 0; k < s.modalities * K; ++k)
        if (k / K != n / s.batch)
          partial[n] += double(posteriors[size_t(n * K + k % K)]) *
                        double(distance(x.data() + n * d, means.data() + k * d, p + k * d, d));
    }
  });
  double sum = 0;
  for (int64_t n = 0; n < rows; ++n) sum += partial[n];
  value[0] = real(sum * term_weight(s));
}

void prototype_backward(const Cpu& be, const PrototypeShape& s, In x, In posteriors, In means,
                        In variances, In dvalue, InOut dx, InOut dposteriors, InOut dmeans,
                        InOut dvariances, Scratch scratch) {
  check(s, x, posteriors, means, variances, dvalue, prototype_scratch_bytes(be, s), scratch);
  expect(dx.empty() || dx.size() == x.size(), "prototype: dx must have the size of x");
  expect(dposteriors.empty() || dposteriors.size() == posteriors.size(),
         "prototype: dposteriors must have the size of posteriors");
  expect(dmeans.empty() || dmeans.size() == means.size(),
         "prototype: dmeans must have the size of means");
  expect(dvariances.empty() || dvariances.size() == variances.size(),
         "prototype: dvariances must have the size of variances");
  const int64_t rows = s.modalities * s.batch, K = s.components, d = s.width;
  const int64_t prototypes = s.modalities * K;
  const real* p = precisions(s, variances, carve<real>(scratch, table(s)));
  const real g = real(double(dvalue[0]) * term_weight(s));
  const bool want_variances = s.options.mahalanobis && !dvariances.empty();
  // By sample: dx and dposteriors.
  if (!dx.empty() || !dposteriors.empty())
    parallel_ranges(be, rows, grain(s, rows), [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n)
        for (int64_t k = 0; k < prototypes; ++k) {
          if (k / K == n / s.batch) continue;
          const size_t at = size_t(n * K + k % K);
          const real *xn = x.data() + n * d, *mu = means.data() + k * d, *pk = p + k * d;
          if (!dposteriors.empty()) dposteriors[at] += g * distance(xn, mu, pk, d);
          if (dx.empty()) continue;
          const real w = 2 * g * posteriors[at];
          real* out = dx.data() + n * d;
#pragma omp simd
          for (int64_t t = 0; t < d; ++t) out[t] += w * (xn[t] - mu[t]) * pk[t];
        }
    });
  // By prototype: dmeans and dvariances.
  if (!dmeans.empty() || want_variances)
    parallel_ranges(be, prototypes, grain(s, prototypes), [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k)
        for (int64_t n = 0; n < rows; ++n) {
          if (k / K == n / s.batch) continue;
          const real w = g * posteriors[size_t(n * K + k % K)];
          const real *xn = x.data() + n * d, *mu = means.data() + k * d, *pk = p + k * d;
          if (!dmeans.empty()) {
            real* out = dmeans.data() + k * d;
#pragma omp simd
            for (int64_t t = 0; t < d; ++t) out[t] -= 2 * w * (xn[t] - mu[t]) * pk[t];
          }
          if (want_variances) {
            const real *v = variances.data() + k * d, floor = real(s.options.variance_floor);
            real* out = dvariances.data() + k * d;
#pragma omp simd
            for (int64_t t = 0; t < d; ++t) {
              const real e = (xn[t] - mu[t]) * pk[t];
              out[t] -= v[t] >= floor ? w * e * e : real(0);
            }
          }
        }
    });
}

}  // namespace decalign::inline DECALIGN_REAL
