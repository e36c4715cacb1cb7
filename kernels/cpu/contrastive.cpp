#include "kernels/contrastive.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/contrastive.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kNormFloor = 1e-12, kSumFloor = 1e-8;

real dot(const real* a, const real* b, int64_t n) {
  real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Loss of row i. `row` holds the logits and receives their gradient, not yet divided by the number
// of valid rows. False (and a zero gradient) without a positive.
bool row_loss(std::span<const int32_t> classes, int64_t i, std::span<real> row, double& loss) {
  int64_t positives = 0;
  double positive_sum = 0, mass = 0;
  const double top = double(*std::max_element(row.begin(), row.end()));
  for (size_t j = 0; j < row.size(); ++j) {
    if (int64_t(j) == i) continue;
    const double l = double(row[j]) - top;
    mass += std::exp(l);
    if (classes[j] == classes[size_t(i)]) positives += 1, positive_sum += l;
  }
  if (positives == 0) {
    std::fill(row.begin(), row.end(), real(0));
    return false;
  }
  loss = std::log(std::max(mass, kSumFloor)) - positive_sum / double(positives);
  for (size_t j = 0; j < row.size(); ++j) {
    double g = mass >= kSumFloor ? std::exp(double(row[j]) - top) / mass : 0;
    if (classes[j] == classes[size_t(i)]) g -= 1 / double(positives);
    row[j] = int64_t(j) == i ? real(0) : real(g);
  }
  return true;
}

}  // namespace

size_t contrastive_scratch_bytes(const Cpu&, const ContrastiveShape& s) {
  return carve_bytes<real>(s.batch * s.width) + carve_bytes<real>(s.batch * s.batch) +
         2 * carve_bytes<double>(s.batch) + carve_bytes<uint8_t>(s.batch);
}

void contrastive_forward(const Cpu& be, const ContrastiveShape& s, In features,
                         std::span<const int32_t> classes, Out value, Out gradient,
                         Scratch scratch) {
  check_contrastive(s, features, classes, value, gradient, scratch,
                    contrastive_scratch_bytes(be, s));
  const int64_t n = s.batch, width = s.width;
  real *f = carve<real>(scratch, n * width), *logits = carve<real>(scratch, n * n);
  double *norm = carve<double>(scratch, n), *loss = carve<double>(scratch, n);
  uint8_t* valid = carve<uint8_t>(scratch, n);
  const int64_t grain = std::max<int64_t>(1, (1 << 17) / (n * width + 1));
  const real inverse_temperature = real(1 / s.temperature);

  parallel_ranges(be, n, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      double square = 0;
      const real* x = features.data() + i * width;
#pragma omp simd reduction(+ : square)
      for (int64_t t = 0; t < width; ++t) square += double(x[t]) * double(x[t]);
      norm[i] = std::sqrt(square);
      const double scale = 1 / std::max(norm[i], kNormFloor);
      for (int64_t t = 0; t < width; ++t) f[i * width + t] = real(double(x[t]) * scale);
    }
  });
  parallel_ranges(be, n, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < n; ++j)
        logits[i * n + j] = inverse_temperature * dot(f + i * width, f + j * width, width);
      loss[i] = 0;
      valid[i] = row_loss(classes, i, {logits + i * n, size_t(n)}, loss[i]);
    }
  });
  int64_t count = 0;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) count += valid[i], sum += loss[i];
  value[0] = real(count > 0 ? sum / double(count) : 0);
  if (gradient.empty()) return;
  const real scale = count > 0 ? inverse_temperature / real(count) : real(0);
  parallel_ranges(be, n, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      real* out = gradient.data() + i * width;
      const real* fi = f + i * width;
      std::fill(out, out + width, real(0));
      for (int64_t j = 0; j < n; ++j) {
        const real g = scale * (logits[i * n + j] + logits[j * n + i]);
        const real* fj = f + j * width;
#pragma omp simd
        for (int64_t t = 0; t < width; ++t) out[t] += g * fj[t];
      }
      // f = x / max(|x|, floor): the part along x vanishes where the norm is not clamped.
      const real along = norm[i] >= kNormFloor ? dot(out, fi, width) : real(0);
      const real inverse = real(1 / std::max(norm[i], kNormFloor));
#pragma omp simd
      for (int64_t t = 0; t < width; ++t) out[t] = inverse * (out[t] - along * fi[t]);
    }
  });
}

int32_t sentiment_class(double label) {
  if (std::isnan(label)) return 0;
  const double x = std::clamp(label, -3.0, 3.0), down = std::floor(x);
  const int32_t low = int32_t(down);
  const double rest = x - down;
  return rest < 0.5 || (rest == 0.5 && low % 2 == 0) ? low : low + 1;
}

}  // namespace decalign::inline DECALIGN_REAL
