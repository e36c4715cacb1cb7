#include "kernels/moments.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/moments.h"
#include "kernels/cpu/pair.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kFloor = 1e-6;

// z + rest
double* precise(In z, In rest, Scratch& scratch) {
  double* out = carve<double>(scratch, std::ssize(z));
  for (size_t i = 0; i < z.size(); ++i) out[i] = pair_at(z, rest, i);
  return out;
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

void statistics(const MomentsShape& s, const double* z, real* mean, real* covariance, real* skew,
                double* mu) {
  const int64_t n = s.batch, p = s.width;
  if (n == 0) {
    std::fill(mean, mean + p, real(0));
    std::fill(covariance, covariance + p * p, real(0));
    std::fill(skew, skew + p, real(0));
    return;
  }
  for (int64_t j = 0; j < p; ++j) {
    double square = 0, cube = 0;
    mu[j] = 0;
    for (int64_t i = 0; i < n; ++i) mu[j] += z[i * p + j];
    mu[j] /= double(n);
    for (int64_t i = 0; i < n; ++i) {
      const double e = z[i * p + j] - mu[j];
      square += e * e;
      cube += e * e * e;
    }
    mean[j] = real(mu[j]);
    skew[j] = real(cube / double(n) / std::pow(std::max(square / double(n), kFloor), 1.5));
  }
  const double scale = 1 / double(std::max<int64_t>(n - 1, 1));
  constexpr int64_t kChunk = 16;
  for (int64_t j = 0; j < p; ++j)
    for (int64_t first = 0; first < p; first += kChunk) {
      const int64_t count = std::min(kChunk, p - first);
      double sum[kChunk] = {};
      for (int64_t i = 0; i < n; ++i) {
        const double *row = z + i * p, a = row[j] - mu[j];
#pragma omp simd
        for (int64_t l = 0; l < count; ++l) sum[l] += a * (row[first + l] - mu[first + l]);
      }
      for (int64_t l = 0; l < count; ++l) covariance[j * p + first + l] = real(sum[l] * scale);
    }
}

}  // namespace

void moments_forward(const Cpu& be, const MomentsShape& s, In z, In rest, Out mean, Out covariance,
                     Out skewness, Out value, Scratch scratch) {
  check_moments_forward(s, z, rest, mean, covariance, skewness, value, scratch,
                        moments_scratch_bytes(be, s));
  const int64_t p = s.width;
  const double* zs = precise(z, rest, scratch);
  double* means = carve<double>(scratch, s.modalities * p);
  parallel_for(be, s.modalities, [&](int64_t m) {
    statistics(s, zs + m * s.batch * p, mean.data() + m * p, covariance.data() + m * p * p,
               skewness.data() + m * p, means + m * p);
  });
  const auto [vector_weight, matrix_weight] = moments_weights(s);
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
  return carve_bytes<double>(s.modalities * s.batch * s.width) +
         carve_bytes<real>(s.modalities * s.width * (s.width + 1)) +
         carve_bytes<double>(s.modalities * s.width * 6);
}

// What the skewness pulls a row up by is large where a column hardly varies, and cancels over the
// rows: the bias before z sees only what is left. So the statistics are taken again in double, and
// each entry is rounded once.
void moments_backward(const Cpu& be, const MomentsShape& s, In z, In rest, In mean, In covariance,
                      In skewness, In dvalue, InOut dz, InOut drest, Scratch scratch) {
  check_moments_backward(s, z, rest, mean, covariance, skewness, dvalue, dz, drest, scratch,
                         moments_scratch_bytes(be, s));
  if (dz.empty() || s.batch == 0) return;
  const int64_t n = s.batch, p = s.width;
  const auto [vector_weight, matrix_weight] = moments_weights(s);
  const double g = double(dvalue[0]);
  const double* zs = precise(z, rest, scratch);
  real* work = carve<real>(scratch, s.modalities * p * (p + 1));
  double* means = carve<double>(scratch, s.modalities * p * 6);
  parallel_for(be, s.modalities, [&](int64_t m) {
    double* mu = means + m * p;
    std::fill(mu, mu + p, 0.0);
    for (int64_t i = 0; i < n; ++i)
#pragma omp simd
      for (int64_t j = 0; j < p; ++j) mu[j] += zs[(m * n + i) * p + j];
    for (int64_t j = 0; j < p; ++j) mu[j] /= double(n);
  });
  parallel_for(be, s.modalities, [&, vw = vector_weight, mw = matrix_weight](int64_t m) {
    real *dcov = work + m * p * (p + 1), *dskew = dcov + p * p;
    const double* mu = means + m * p;
    double *a = means + s.modalities * p + m * p * 5, *b = a + p, *y = b + p, *shift = y + p,
           *sum = shift + p;
    const double denominator = double(std::max<int64_t>(n - 1, 1));
    // d covariance is symmetric: both of its sides at once.
    pull(covariance.data(), m, s.modalities, p * p, 2 * g * mw / denominator, dcov);
    pull(skewness.data(), m, s.modalities, p, g * vw, dskew);
    const double* rows = zs + m * n * p;
    std::fill(y, y + p, 0.0);
    for (int64_t i = 0; i < n; ++i)
#pragma omp simd
      for (int64_t j = 0; j < p; ++j) {
        const double e = rows[i * p + j] - mu[j];
        y[j] += e * e;
      }
    // Mean: shift. Skewness: a (y^2 - variance) - b y.
    for (int64_t j = 0; j < p; ++j) {
      const double variance = y[j] / double(n);
      const double v = std::max(variance, kFloor), c = 3 * double(dskew[j]) / double(n);
      a[j] = c / (v * std::sqrt(v));
      b[j] = variance < kFloor ? 0 : c * double(skewness[size_t(m * p + j)]) / v;
      shift[j] = -a[j] * variance;
      for (int64_t o = 0; o < s.modalities; ++o)
        shift[j] += 2 * g * vw / double(n) * (mu[j] - means[o * p + j]);
    }
    for (int64_t i = 0; i < n; ++i) {
      const double* row = rows + i * p;
#pragma omp simd
      for (int64_t j = 0; j < p; ++j) {
        y[j] = row[j] - mu[j];
        sum[j] = shift[j] + y[j] * (a[j] * y[j] - b[j]);
      }
      for (int64_t l = 0; l < p; ++l) {
        const real* dl = dcov + l * p;
        const double yl = y[l];
#pragma omp simd
        for (int64_t j = 0; j < p; ++j) sum[j] += yl * double(dl[j]);
      }
      for (int64_t j = 0; j < p; ++j) {
        const size_t at = size_t((m * n + i) * p + j);
        set_pair(pair_at(dz, drest, at) + sum[j], dz, drest, at);
      }
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
