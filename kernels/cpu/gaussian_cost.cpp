#include "kernels/gaussian_cost.h"

#include <cmath>

#include "kernels/check/gaussian_cost.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kEps = 1e-8;

// Position of the pair (i, j), i < j, in lexicographic order.
int64_t pair_index(const GaussianCostShape& s, int64_t i, int64_t j) {
  return i * s.modalities - i * (i + 1) / 2 + j - i - 1;
}

double factor(const GaussianCostShape& s) {
  return s.reduction == Reduction::sum || s.width == 0 ? 1 : 1 / double(s.width);
}

// Calls f(one, other, at) for the prototypes of different modalities, numbered through, whose cost
// is cost[at]: every pair from its first side or, with `both`, from each. One task has all pairs of
// one prototype.
template <class F>
void for_pairs(const Cpu& be, const GaussianCostShape& s, bool both, F&& f) {
  const int64_t k = s.components, all = s.modalities * k;
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / (all * s.width + 1));
  parallel_ranges(be, all, grain, [&](int64_t first, int64_t last) {
    for (int64_t one = first; one < last; ++one) {
      const int64_t i = one / k, a = one % k;
      for (int64_t other = both ? 0 : (i + 1) * k; other < all; ++other) {
        const int64_t j = other / k, b = other % k;
        if (i == j) continue;
        f(one, other,
          size_t(i < j ? (pair_index(s, i, j) * k + a) * k + b
                       : (pair_index(s, j, i) * k + b) * k + a));
      }
    }
  });
}

}  // namespace

void gaussian_cost_forward(const Cpu& be, const GaussianCostShape& s, In means, In variances,
                           Out cost) {
  check_gaussian_cost(s, means, variances, cost);
  const int64_t d = s.width;
  const double scale = factor(s);
  for_pairs(be, s, false, [&](int64_t one, int64_t other, size_t at) {
    const real *mu = means.data() + one * d, *mu2 = means.data() + other * d;
    const real *v = variances.data() + one * d, *v2 = variances.data() + other * d;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t t = 0; t < d; ++t) {
      const double e = double(mu[t]) - double(mu2[t]), p = double(v[t]), q = double(v2[t]);
      sum += e * e + (p + q - 2 * std::sqrt(p * q + kEps));
    }
    cost[at] = real(scale * sum);
  });
}

void gaussian_cost_backward(const Cpu& be, const GaussianCostShape& s, In means, In variances,
                            In dcost, InOut dmeans, InOut dvariances) {
  check_gaussian_cost_backward(s, means, variances, dcost, dmeans, dvariances);
  const int64_t d = s.width;
  const double scale = factor(s);
  for_pairs(be, s, true, [&](int64_t one, int64_t other, size_t at) {
    const double g = scale * double(dcost[at]);
    const real *mu = means.data() + one * d, *mu2 = means.data() + other * d;
    const real *v = variances.data() + one * d, *v2 = variances.data() + other * d;
    if (!dmeans.empty()) {
      real* out = dmeans.data() + one * d;
#pragma omp simd
      for (int64_t t = 0; t < d; ++t)
        out[t] = real(double(out[t]) + 2 * g * (double(mu[t]) - double(mu2[t])));
    }
    if (!dvariances.empty()) {
      real* out = dvariances.data() + one * d;
#pragma omp simd
      for (int64_t t = 0; t < d; ++t) {
        const double q = double(v2[t]);
        out[t] = real(double(out[t]) + g * (1 - q / std::sqrt(double(v[t]) * q + kEps)));
      }
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
