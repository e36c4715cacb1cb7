#include "kernels/adam.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {
constexpr int64_t kGrain = 1 << 15;
}  // namespace

size_t global_norm_scratch_bytes(const Cpu&, int64_t n) {
  return carve_bytes<double>((n + kGrain - 1) / kGrain);
}

void global_norm(const Cpu& be, In gradient, bool add, std::span<double> squared_norm,
                 Scratch scratch) {
  const int64_t n = std::ssize(gradient);
  expect(squared_norm.size() == 1, "global_norm: squared_norm must have one element");
  expect(scratch.size() >= global_norm_scratch_bytes(be, n), "global_norm: scratch too small");
  double* partial = carve<double>(scratch, (n + kGrain - 1) / kGrain);
  parallel_ranges(be, n, kGrain, [&](int64_t begin, int64_t end) {
    const real* g = gradient.data();
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += double(g[i]) * double(g[i]);
    partial[begin / kGrain] = sum;
  });
  double total = add ? squared_norm[0] : 0;
  for (int64_t i = 0; i < (n + kGrain - 1) / kGrain; ++i) total += partial[i];
  squared_norm[0] = total;
}

void adam_advance(const Cpu&, AdamState* state) {
  expect(state != nullptr, "adam: no state");
  state->step += 1;
}

void adam(const Cpu& be, const AdamOptions& o, const AdamState* state, In gradient, InOut parameter,
          InOut m, InOut v) {
  expect(state != nullptr && state->step >= 1, "adam: no state or its step is not counted from 1");
  expect(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.eps >= 0 &&
             o.weight_decay >= 0 && o.clip >= 0,
         "adam: option out of range");
  expect(parameter.size() == gradient.size() && m.size() == gradient.size() &&
             v.size() == gradient.size(),
         "adam: gradient, parameter, m and v differ in size");
  const double norm = std::sqrt(state->squared_norm);
  const double factor = o.clip / (norm + 1e-6);  // not min(): a NaN norm must reach the parameters
  const real scale = o.clip > 0 && !(factor >= 1) ? real(factor) : real(1);
  const double t = double(state->step);
  const real step_size = real(state->learning_rate / (1 - std::pow(o.beta1, t)));
  const real inverse_root = real(1 / std::sqrt(1 - std::pow(o.beta2, t)));
  const real decay = real(o.weight_decay), eps = real(o.eps), beta2 = real(o.beta2);
  const real take1 = real(1 - o.beta1), take2 = real(1 - o.beta2);
  parallel_ranges(be, std::ssize(gradient), kGrain, [&](int64_t begin, int64_t end) {
    const real* pg = gradient.data();
    real *pp = parameter.data(), *pm = m.data(), *pv = v.data();
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const real g = scale * pg[i] + decay * pp[i];
      const real mi = pm[i] + take1 * (g - pm[i]);
      const real vi = beta2 * pv[i] + take2 * g * g;
      pm[i] = mi;
      pv[i] = vi;
      pp[i] -= step_size * (mi / (std::sqrt(vi) * inverse_root + eps));
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
