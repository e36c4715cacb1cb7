#include "kernels/adam.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/adam.h"
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
  check_global_norm(squared_norm, scratch, global_norm_scratch_bytes(be, n));
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
  check_adam(o, state, gradient, parameter, m, v);
  expect(state->step >= 1, "adam: the step is not counted from 1");
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

size_t clipped_adam_scratch_bytes(const Cpu& be, int64_t n, int64_t) {
  return carve_bytes<double>(1) + global_norm_scratch_bytes(be, n);
}

void clipped_adam(const Cpu& be, std::span<const AdamGroup> groups,
                  std::span<const AdamRange> ranges, In gradient, InOut parameter, InOut m, InOut v,
                  Scratch scratch) {
  check_clipped_adam(groups, ranges, gradient, parameter, m, v, scratch,
                     clipped_adam_scratch_bytes(be, std::ssize(gradient), std::ssize(groups)));
  double* norm = carve<double>(scratch, 1);
  global_norm(be, gradient, false, {norm, 1}, scratch);
  for (const AdamGroup& group : groups) {
    group.state->squared_norm = *norm;
    adam_advance(be, group.state);
  }
  for (const AdamRange& r : ranges) {
    const AdamGroup& group = groups[size_t(r.group)];
    const size_t begin = size_t(r.begin), size = size_t(r.size);
    adam(be, group.options, group.state, gradient.subspan(begin, size),
         parameter.subspan(begin, size), m.subspan(begin, size), v.subspan(begin, size));
  }
}

}  // namespace decalign::inline DECALIGN_REAL
