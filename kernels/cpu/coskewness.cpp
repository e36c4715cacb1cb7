#include "kernels/coskewness.h"

#include "kernels/carve.h"
#include "kernels/check/coskewness.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 64;  // of a task
constexpr int64_t kMost = kCoskewnessWidth;

// W_j for every j, packed: the mean of w over the orders of its indices.
void pack_symmetric(int64_t d, const real* w, int64_t j, real* packed) {
  alignas(64) real slice[kMost * 2 * kLanes];
  const auto at = [&](int64_t a, int64_t b, int64_t c) { return double(w[(a * d + b) * d + c]); };
  for (int64_t l = 0; l < d; l += 2 * kLanes) {
    const int64_t columns = std::min(d - l, 2 * kLanes);
    for (int64_t a = 0; a < d; ++a)
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t b = l + i;
        slice[a * 2 * kLanes + i] = real(
            (at(j, a, b) + at(j, b, a) + at(a, j, b) + at(a, b, j) + at(b, j, a) + at(b, a, j)) /
            6);
      }
    pack(slice, 2 * kLanes, d, columns, packed + l * d);
  }
}

}  // namespace

size_t coskewness_scratch_bytes(const Cpu&, const CoskewnessShape& s) {
  const int64_t tasks = piece_count(s.rows, kRows);
  return carve_bytes<real>(s.width * packed_size(s.width, s.width)) +
         carve_bytes<double>(tasks * (s.width + 1)) + carve_bytes<double>(s.width);
}

void coskewness_forward(const Cpu& be, const CoskewnessShape& s, In x, In w,
                        std::span<const double> mean, Out value, Out dx, Scratch scratch) {
  check_coskewness(s, x, w, mean, value, dx, scratch, coskewness_scratch_bytes(be, s));
  const int64_t d = s.width, tasks = piece_count(s.rows, kRows);
  real* const packed = carve<real>(scratch, d * packed_size(d, d));
  double* const parts = carve<double>(scratch, tasks * (d + 1));  // of q's columns, of the value
  double* const shift = carve<double>(scratch, d);
  const double n = double(s.rows), scale = 3 / n;
  value[0] = 0;
  if (s.rows == 0) return;
  parallel_for(be, d,
               [&](int64_t j) { pack_symmetric(d, w.data(), j, packed + j * packed_size(d, d)); });
  parallel_for(be, tasks, [&](int64_t task) {
    alignas(64) real y[kRows * kMost], product[kRows * kMost];
    const int64_t begin = task * kRows, rows = std::min(kRows, s.rows - begin);
    double* const part = parts + task * (d + 1);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < d; ++j)
        y[i * d + j] = real(double(x[size_t((begin + i) * d + j)]) - mean[size_t(j)]);
    part[d] = 0;
    for (int64_t j = 0; j < d; ++j) {
      multiply(rows, d, d, y, d, packed + j * packed_size(d, d), nullptr, product, d,
               Store::overwrite);
      part[j] = 0;
      for (int64_t i = 0; i < rows; ++i) {
        real q = 0;
#pragma omp simd reduction(+ : q)
        for (int64_t l = 0; l < d; ++l) q += product[i * d + l] * y[i * d + l];
        part[j] += double(q);
        part[d] += double(q) * double(y[i * d + j]);
        if (!dx.empty()) dx[size_t((begin + i) * d + j)] = q;
      }
    }
  });
  double total = 0;
  for (int64_t task = 0; task < tasks; ++task) total += parts[task * (d + 1) + d];
  value[0] = real(total / n);
  for (int64_t j = 0; j < d; ++j) {
    shift[j] = 0;
    for (int64_t task = 0; task < tasks; ++task) shift[j] += parts[task * (d + 1) + j] / n;
  }
  if (dx.empty()) return;
  parallel_ranges(be, s.rows, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < d; ++j) {
        real& to = dx[size_t(i * d + j)];
        to = real(scale * (double(to) - shift[j]));
      }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
