// Matrices of up to 256 rows in a block's hands: products and Cholesky factors, in double, in
// shared memory or in scratch. kernels/cpu/small_matrix.h and cholesky.h are their twins.
#pragma once

#include <limits>

#include "kernels/cuda/reduce.h"

namespace decalign::inline DECALIGN_REAL::small {

constexpr int kThreads = 256;
constexpr int kSide = 16;  // threads across a tile, and down
constexpr double kPivotRounding = 4 * double(std::numeric_limits<real>::epsilon());
constexpr size_t kSharedBytes = 160 * 1024;  // what a block may have on sm_80, too

/// Elements from one row to the next: odd, so that neither rows nor columns meet in a bank.
__host__ __device__ constexpr int stride(int n) { return n | 1; }
__host__ __device__ constexpr int64_t matrix_size(int rows, int columns) {
  return int64_t(rows) * stride(columns);
}

/// Element (i, j) is at[i * row + j * column].
struct View {
  const double* at;
  int row, column;
};
__device__ inline View as_is(const double* a, int columns) { return {a, stride(columns), 1}; }
__device__ inline View transposed(const double* a, int columns) { return {a, 1, stride(columns)}; }

/// f(i, j, (a b)_ij) once for each element of [rows, columns]. A thread has kItems^2 at a time.
template <int kItems, class F>
__device__ void product_tiles(int rows, int depth, int columns, View a, View b, F& f) {
  const int down = int(threadIdx.x) / kSide, across = int(threadIdx.x) % kSide;
  for (int top = 0; top < rows; top += kItems * kSide)
    for (int left = 0; left < columns; left += kItems * kSide) {
      double sum[kItems][kItems] = {};
      const double *x[kItems], *y[kItems];
#pragma unroll
      for (int i = 0; i < kItems; ++i) {  // beyond the edge the last is done again
        x[i] = a.at + int64_t(min(top + down + kSide * i, rows - 1)) * a.row;
        y[i] = b.at + int64_t(min(left + across + kSide * i, columns - 1)) * b.column;
      }
#pragma unroll 2
      for (int l = 0; l < depth; ++l) {
        double u[kItems], v[kItems];
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
          u[i] = x[i][int64_t(l) * a.column];
          v[i] = y[i][int64_t(l) * b.row];
        }
#pragma unroll
        for (int i = 0; i < kItems; ++i)
#pragma unroll
          for (int j = 0; j < kItems; ++j) sum[i][j] += u[i] * v[j];
      }
#pragma unroll
      for (int i = 0; i < kItems; ++i)
#pragma unroll
        for (int j = 0; j < kItems; ++j) {
          const int r = top + down + kSide * i, c = left + across + kSide * j;
          if (r < rows && c < columns) f(r, c, sum[i][j]);
        }
    }
}

template <class F>
__device__ void product(int rows, int depth, int columns, View a, View b, F f) {
  if (max(rows, columns) <= kSide)
    product_tiles<1>(rows, depth, columns, a, b, f);
  else if (max(rows, columns) <= 2 * kSide)
    product_tiles<2>(rows, depth, columns, a, b, f);
  else
    product_tiles<4>(rows, depth, columns, a, b, f);
}

/// f(i, j) for the elements of [rows, columns], neighbours by neighbouring threads.
template <class F>
__device__ void for_elements(int rows, int columns, F f) {
  for (int i = int(threadIdx.x) / 32; i < rows; i += kThreads / 32)
    for (int j = int(threadIdx.x) % 32; j < columns; j += 32) f(i, j);
}

/// upper [n, n], upper^T upper = (s + s^T) / 2 + ridge I; see kernels/bures.h for the pivots.
/// Barriers before and after.
__device__ inline void cholesky(int n, const real* s, double ridge, double* upper) {
  SHARED(double, whole, [256]);
  const int ld = stride(n);
  __syncthreads();
  for_elements(n, n, [&](int i, int j) {
    const double x = 0.5 * double(s[i * n + j]) + 0.5 * double(s[j * n + i]);
    upper[i * ld + j] = j < i ? 0 : i == j ? x + ridge : x;
    if (i == j) whole[i] = x + ridge;
  });
  __syncthreads();
  for (int k = 0; k < n; ++k) {
    double* const row = upper + k * ld;
    const double pivot = row[k];
    const double scale = abs(pivot) <= kPivotRounding * abs(whole[k]) ? 0 : 1 / sqrt(pivot);
    __syncthreads();
    for (int j = k + int(threadIdx.x); j < n; j += kThreads) row[j] *= scale;
    __syncthreads();
    const int rest = n - k - 1;
    for_elements(rest, rest, [&](int i, int j) {
      if (j >= i) upper[(k + 1 + i) * ld + k + 1 + j] -= row[k + 1 + i] * row[k + 1 + j];
    });
    __syncthreads();
  }
}

}  // namespace decalign::inline DECALIGN_REAL::small
