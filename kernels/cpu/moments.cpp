#include "kernels/moments.h"

#include <cmath>

#include "kernels/cpu/carve.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kFloor = 1e-6;

void check(const MomentsShape& s, In z, In mean, In covariance, In skewness) {
  expect(s.modalities >= 0 && s.batch >= 0 && s.width >= 0, "moments: sizes out of range");
  const int64_t p = s.width;
  expect(std::ssize(z) == s.modalities * s.batch * p, "moments: z must be [M, B, p]");
  expect(std::ssize(mean) == s.modalities * p && std::ssize(skewness) == s.modalities * p,
         "moments: mean and skewness must be [M, p]");
  expect(std::ssize(covariance) == s.modalities * p * p, "moments: covariance must be [M, p, p]");
}

// Factor of a pair's squared distance of vectors (first) and of covariances (second).
std::pair<double, double> weights(const MomentsShape& s) {
  const double pairs = double(s.modalities * (s.modalities - 1) / 2);
  if (pairs == 0 || s.batch == 0 || s.width == 0) return {0, 0};
  if (s.reduction == Reduction::sum) return {0.5 / pairs, 0.5 / pairs};
  const double p = double(s.width);
  return {1 / (pairs * p), 1 / (pairs * p * p)};
}

double squared_distance(const real* a, const real* b, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const double e = double(a[i]) - double(b[i]);
    sum += e * e;
  }
  return sum;
}

// out = 2 weight sum over the other modalities of (mine - theirs).
void pull(const real* all, int64_t m, int64_t modalities, int64_t n, double weight, real* out) {
  std::fill(out, out + n, real(0));
  for (int64_t o = 0; o < modalities; ++o) {
    if (o == m) continue;
    const real *mine = all + m * n, *theirs = all + o * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) out[i] += real(2 * weight) * (mine[i] - theirs[i]);
  }
}

void statistics(const MomentsShape& s, const real* z, real* mean, real* covariance, real* skew) {
  const int64_t n = s.batch, p = s.width;
  std::fill(mean, mean + p, real(0));
  std::fill(covariance, covariance + p * p, real(0));
  std::fill(skew, skew + p, real(0));
  if (n == 0) return;
  // Two passes: the mean as first row + mean of the differences to it, then sums about the mean.
  for (int64_t i = 1; i < n; ++i)
#pragma omp simd
    for (int64_t j = 0; j < p; ++j) mean[j] += z[i * p + j] - z[j];
#pragma omp simd
  for (int64_t j = 0; j < p; ++j) mean[j] = z[j] + mean[j] / real(n);
  for (int64_t i = 0; i < n; ++i) {
    const real* row = z + i * p;
    for (int64_t j = 0; j < p; ++j) {
      const real a = row[j] - mean[j];
      real* out = covariance + j * p;
#pragma omp simd
      for (int64_t l = 0; l < p; ++l) out[l] += a * (row[l] - mean[l]);
      skew[j] += a * a * a;
    }
  }
  for (int64_t j = 0; j < p; ++j) {
    const double variance = double(covariance[j * p + j]) / double(n);
    skew[j] = real(double(skew[j]) / double(n) / std::pow(std::max(variance, kFloor), 1.5));
  }
  const real scale = real(1 / double(std::max<int64_t>(n - 1, 1)));
#pragma omp simd
  for (int64_t j = 0; j < p * p; ++j) covariance[j] *= scale;
}

}  // namespace

void moments_forward(const Cpu& be, const MomentsShape& s, In z, Out mean, Out covariance,
                     Out skewness, Out value) {
  check(s, z, mean, covariance, skewness);
  expect(value.size() == 1, "moments: value must have one element");
  const int64_t p = s.width;
  parallel_for(be, s.modalities, [&](int64_t m) {
    statistics(s, z.data() + m * s.batch * p, mean.data() + m * p, covariance.data() + m * p * p,
               skewness.data() + m * p);
  });
  const auto [vector_weight, matrix_weight] = weights(s);
  double sum = 0;
  if (s.batch > 0)
    for (int64_t i = 0; i < s.modalities; ++i)
      for (int64_t j = i + 1; j < s.modalities; ++j) {
        sum += vector_weight * squared_distance(mean.data() + i * p, mean.data() + j * p, p);
        sum += matrix_weight * squared_distance(covariance.data() + i * p * p,
                                                covariance.data() + j * p * p, p * p);
        sum +=
            vector_weight * squared_distance(skewness.data() + i * p, skewness.data() + j * p, p);
      }
  value[0] = real(sum);
}

size_t moments_scratch_bytes(const Cpu&, const MomentsShape& s) {
  return carve_bytes<real>(s.modalities * s.width * (s.width + 4));
}

void moments_backward(const Cpu& be, const MomentsShape& s, In z, In mean, In covariance,
                      In skewness, In dvalue, InOut dz, Scratch scratch) {
  check(s, z, mean, covariance, skewness);
  expect(dvalue.size() == 1, "moments: dvalue must have one element");
  expect(dz.empty() || dz.size() == z.size(), "moments: dz must have the size of z");
  expect(scratch.size() >= moments_scratch_bytes(be, s), "moments: scratch too small");
  if (dz.empty()) return;
  const int64_t n = s.batch, p = s.width;
  const auto [vector_weight, matrix_weight] = weights(s);
  const double g = double(dvalue[0]);
  real* work = carve<real>(scratch, s.modalities * p * (p + 4));
  parallel_for(be, s.modalities, [&, vw = vector_weight, mw = matrix_weight](int64_t m) {
    real* dcov = work + m * p * (p + 4);
    real *dmean = dcov + p * p, *a = dmean + p, *b = a + p, *y = b + p;
    const double denominator = double(std::max<int64_t>(n - 1, 1));
    pull(mean.data(), m, s.modalities, p, g * vw / double(std::max<int64_t>(n, 1)), dmean);
    // d covariance is symmetric: both of its sides at once.
    pull(covariance.data(), m, s.modalities, p * p, 2 * g * mw / denominator, dcov);
    pull(skewness.data(), m, s.modalities, p, g * vw, a);
    // Skewness: a (y^2 - variance) - b y.
    for (int64_t j = 0; j < p; ++j) {
      const double variance =
          double(covariance[size_t((m * p + j) * p + j)]) * denominator / double(n);
      const double v = std::max(variance, kFloor), c = 3 * double(a[j]) / double(n);
      const bool clamped = variance < kFloor;
      a[j] = real(c / (v * std::sqrt(v)));
      b[j] = real(clamped ? 0 : c * double(skewness[size_t(m * p + j)]) / v);
      dmean[j] -= real(double(a[j]) * variance);
    }
    const real* mu = mean.data() + m * p;
    for (int64_t i = 0; i < n; ++i) {
      const real* row = z.data() + (m * n + i) * p;
      real* out = dz.data() + (m * n + i) * p;
#pragma omp simd
      for (int64_t j = 0; j < p; ++j) {
        y[j] = row[j] - mu[j];
        out[j] += dmean[j] + y[j] * (a[j] * y[j] - b[j]);
      }
      for (int64_t l = 0; l < p; ++l) {
        const real* dl = dcov + l * p;
        const real yl = y[l];
#pragma omp simd
        for (int64_t j = 0; j < p; ++j) out[j] += yl * dl[j];
      }
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
