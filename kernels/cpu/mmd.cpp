#include "kernels/mmd.h"

#include <cmath>

#include "kernels/carve.h"
#include "kernels/check/mmd.h"
#include "kernels/cpu/pair.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

// One task per pair of modalities i <= j, each with a gradient of its own that is added in order.
int64_t task_count(const MmdShape& s) { return s.modalities * (s.modalities + 1) / 2; }

int64_t values(const MmdShape& s) { return s.batch * s.width; }

// Sum of the kernel over the pairs of rows (a < b if `same`), and its gradient times `weight`. In
// double: what shifts all rows alike cancels, and the bias before z sees only what is left.
double block(const MmdShape& s, const double* x, const double* y, bool same, double weight,
             double* dx, double* dy) {
  const int64_t n = s.batch, p = s.width;
  const double scale = -0.5 / s.bandwidth, slope = -weight / s.bandwidth;
  double sum = 0;
  for (int64_t a = 0; a < n; ++a)
    for (int64_t b = same ? a + 1 : 0; b < n; ++b) {
      const double *xa = x + a * p, *yb = y + b * p;
      double distance = 0;
#pragma omp simd reduction(+ : distance)
      for (int64_t t = 0; t < p; ++t) {
        const double e = xa[t] - yb[t];
        distance += e * e;
      }
      const double k = std::exp(scale * distance);
      sum += k;
      if (dx == nullptr) continue;
      const double g = slope * k;
      double *da = dx + a * p, *db = dy + b * p;
#pragma omp simd
      for (int64_t t = 0; t < p; ++t) {
        const double e = g * (xa[t] - yb[t]);
        da[t] += e;
        db[t] -= e;
      }
    }
  return sum;
}

}  // namespace

size_t mmd_scratch_bytes(const Cpu&, const MmdShape& s) {
  return carve_bytes<double>(s.modalities * values(s)) + carve_bytes<double>(task_count(s)) +
         carve_bytes<double>((task_count(s) * 2 + 1) * values(s));
}

void mmd_forward(const Cpu& be, const MmdShape& s, In z, In rest, Out value, Out gradient,
                 Out gradient_rest, Scratch scratch) {
  check_mmd_forward(s, z, rest, value, gradient, gradient_rest, scratch, mmd_scratch_bytes(be, s));
  const int64_t M = s.modalities, n = values(s), tasks = task_count(s);
  std::fill(gradient.begin(), gradient.end(), real(0));
  std::fill(gradient_rest.begin(), gradient_rest.end(), real(0));
  value[0] = 0;
  if (M < 2 || s.batch == 0) return;

  double* zs = carve<double>(scratch, M * n);  // z + rest
  for (size_t i = 0; i < z.size(); ++i) zs[i] = pair_at(z, rest, i);
  double* partial = carve<double>(scratch, tasks);
  double* work = carve<double>(scratch, (tasks * 2 + 1) * n);
  const auto [within, between] = mmd_weights(s);
  parallel_for(be, tasks, [&, within = within, between = between](int64_t task) {
    int64_t i = 0, rest = task;
    while (rest >= M - i) rest -= M - i++;
    const int64_t j = i + rest;
    const bool same = i == j;
    double* dx = gradient.empty() ? nullptr : work + task * 2 * n;
    if (dx != nullptr) std::fill(dx, dx + (same ? n : 2 * n), 0.0);
    const double sum = block(s, zs + i * n, zs + j * n, same, same ? within : between, dx,
                             dx == nullptr || same ? dx : dx + n);
    partial[task] = same ? within * (sum + 0.5 * double(s.batch)) : between * sum;
  });
  double total = 0;
  for (int64_t task = 0; task < tasks; ++task) total += partial[task];
  value[0] = real(total);
  if (gradient.empty()) return;
  double* sum = work + tasks * 2 * n;  // of one modality
  for (int64_t m = 0; m < M; ++m) {
    std::fill(sum, sum + n, 0.0);
    int64_t task = 0;
    for (int64_t i = 0; i < M; ++i)
      for (int64_t j = i; j < M; ++j, ++task) {
        if (i != m && j != m) continue;
        const double* from = work + (task * 2 + (i == m ? 0 : 1)) * n;
#pragma omp simd
        for (int64_t t = 0; t < n; ++t) sum[t] += from[t];
      }
    for (int64_t t = 0; t < n; ++t) set_pair(sum[t], gradient, gradient_rest, size_t(m * n + t));
  }
}

void mmd_backward(const Cpu&, In gradient, In gradient_rest, In dvalue, InOut dz, InOut drest) {
  check_mmd_backward(gradient, gradient_rest, dvalue, dz, drest);
  const double g = double(dvalue[0]);
  for (size_t i = 0; i < dz.size(); ++i)
    set_pair(pair_at(dz, drest, i) + g * pair_at(gradient, gradient_rest, i), dz, drest, i);
}

}  // namespace decalign::inline DECALIGN_REAL
