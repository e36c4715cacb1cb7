#include "kernels/gaussian_cost.h"

#include <cmath>

#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kEps = 1e-8;

int64_t pair_count(const GaussianCostShape& s) { return s.modalities * (s.modalities - 1) / 2; }

// Position of the pair (i, j), i < j, in lexicographic order.
int64_t pair_index(const GaussianCostShape& s, int64_t i, int64_t j) {
  return i * s.modalities - i * (i + 1) / 2 + j - i - 1;
}

void check(const GaussianCostShape& s, In means, In variances, In cost) {
  expect(s.modalities >= 1 && s.components >= 0 && s.width >= 0,
         "gaussian_cost: sizes out of range");
  const int64_t n = s.modalities * s.components * s.width;
  expect(std::ssize(means) == n && std::ssize(variances) == n,
         "gaussian_cost: means and variances must be [M, K, d]");
  expect(std::ssize(cost) == pair_count(s) * s.components * s.components,
         "gaussian_cost: cost must be [pairs, K, K]");
}

real factor(const GaussianCostShape& s) {
  return s.reduction == Reduction::sum || s.width == 0 ? real(1) : real(1 / double(s.width));
}

}  // namespace

void gaussian_cost_forward(const Cpu& be, const GaussianCostShape& s, In means, In variances,
                           Out cost) {
  check(s, means, variances, cost);
  const int64_t k = s.components, d = s.width;
  const real scale = factor(s);
  // One task computes row (i, a) of every pair of modality i.
  parallel_ranges(
      be, s.modalities * k, std::max<int64_t>(1, (1 << 16) / (s.modalities * k * d + 1)),
      [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          const int64_t i = row / k, a = row % k;
          const real *mu = means.data() + row * d, *v = variances.data() + row * d;
          for (int64_t other = (i + 1) * k; other < s.modalities * k; ++other) {
            const int64_t j = other / k, b = other % k;
            const real *mu2 = means.data() + other * d, *v2 = variances.data() + other * d;
            real sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t t = 0; t < d; ++t) {
              const real e = mu[t] - mu2[t];
              sum += e * e + (v[t] + v2[t] - 2 * std::sqrt(v[t] * v2[t] + real(kEps)));
            }
            cost[size_t((pair_index(s, i, j) * k + a) * k + b)] = scale * sum;
          }
        }
      });
}

void gaussian_cost_backward(const Cpu& be, const GaussianCostShape& s, In means, In variances,
                            In dcost, InOut dmeans, InOut dvariances) {
  check(s, means, variances, dcost);
  expect(dmeans.empty() || dmeans.size() == means.size(),
         "gaussian_cost: dmeans must have the size of means");
  expect(dvariances.empty() || dvariances.size() == variances.size(),
         "gaussian_cost: dvariances must have the size of variances");
  const int64_t k = s.components, d = s.width;
  const real scale = factor(s);
  // One task owns the gradient of one prototype: each pair is visited from both of its sides.
  parallel_ranges(
      be, s.modalities * k, std::max<int64_t>(1, (1 << 16) / (s.modalities * k * d + 1)),
      [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          const int64_t i = row / k, a = row % k;
          const real *mu = means.data() + row * d, *v = variances.data() + row * d;
          for (int64_t other = 0; other < s.modalities * k; ++other) {
            const int64_t j = other / k, b = other % k;
            if (i == j) continue;
            const int64_t at = i < j ? (pair_index(s, i, j) * k + a) * k + b
                                     : (pair_index(s, j, i) * k + b) * k + a;
            const real g = scale * dcost[size_t(at)];
            const real *mu2 = means.data() + other * d, *v2 = variances.data() + other * d;
            if (!dmeans.empty()) {
              real* out = dmeans.data() + row * d;
#pragma omp simd
              for (int64_t t = 0; t < d; ++t) out[t] += 2 * g * (mu[t] - mu2[t]);
            }
            if (!dvariances.empty()) {
              real* out = dvariances.data() + row * d;
#pragma omp simd
              for (int64_t t = 0; t < d; ++t)
                out[t] += g * (1 - v2[t] / std::sqrt(v[t] * v2[t] + real(kEps)));
            }
          }
        }
      });
}

}  // namespace decalign::inline DECALIGN_REAL
