// The rows at which a mixture's means start.
#include <cmath>

#include "kernels/cpu/gmm_steps.h"
#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL::mixture {
namespace {

// floor(u n) for a uniform u in [0, 1) that is a function of (seed, modality, component).
double uniform(uint64_t seed, int64_t m, int64_t k) {
  const auto word =
      philox({uint32_t(m), uint32_t(k), 0x6d6d67u, 0}, {uint32_t(seed), uint32_t(seed >> 32)});
  return (double(word[0]) + double(word[1]) / 4294967296.0) / 4294967296.0;
}

void choose_linspace(int64_t n, int64_t k, int32_t* choice) {
  const float last = float(n - 1), step = k > 1 ? last / float(k - 1) : 0.0f;
  for (int64_t i = 0; i < k; ++i) {
    const float at = i < k / 2 || k == 1 ? step * float(i) : last - step * float(k - 1 - i);
    choice[i] = int32_t(std::nearbyint(at));
  }
}

void choose_kmeanspp(const GmmShape& s, int64_t m, const real* x, double* nearest,
                     int32_t* choice) {
  const GmmOptions& o = s.options;
  const int64_t n = s.batch, d = s.width;
  const uint64_t seed = o.seed + (o.random ? o.random->seed + o.random->step : 0);
  for (int64_t k = 0; k < o.components; ++k) {
    double total = 0;
    if (k > 0)
      for (int64_t i = 0; i < n; ++i) {
        const real *a = x + i * d, *b = x + choice[k - 1] * d;
        double square = 0;
        for (int64_t j = 0; j < d; ++j)
          square += (double(a[j]) - double(b[j])) * (double(a[j]) - double(b[j]));
        nearest[i] = k == 1 ? square : std::min(nearest[i], square);
        total += nearest[i];
      }
    const double u = uniform(seed, m, k);
    int64_t pick = std::min(int64_t(u * double(n)), n - 1);  // first, or all rows already chosen
    if (total > 0 && std::isfinite(total)) {
      double left = u * total;
      for (int64_t i = 0; i < n; ++i) {
        if (nearest[i] <= 0) continue;
        pick = i;
        if ((left -= nearest[i]) < 0) break;
      }
    }
    choice[k] = int32_t(pick);
  }
}

}  // namespace

void choose_rows(const GmmShape& s, int64_t m, const real* x, double* nearest, int32_t* choice) {
  const int64_t n = s.batch, K = s.options.components;
  if (n < K)
    for (int64_t k = 0; k < K; ++k) choice[k] = int32_t(k % n);
  else if (s.options.init == GmmInit::linspace)
    choose_linspace(n, K, choice);
  else
    choose_kmeanspp(s, m, x, nearest, choice);
}

}  // namespace decalign::inline DECALIGN_REAL::mixture
