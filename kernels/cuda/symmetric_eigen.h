// Eigenvalues and eigenvectors of a small symmetric matrix by a block. See small_matrix.h for the
// layout.
#pragma once

#include "kernels/cuda/small_matrix.h"

namespace decalign::inline DECALIGN_REAL::small {

constexpr int kMostSweeps = 40;  // eight to twelve are usual

/// Rows that meet in pairs: as many as the matrix has, and one of zeros if that is odd.
__host__ __device__ constexpr int players(int n) { return n + n % 2; }

/// By an angle with the sine s and tau = s / (1 + cosine).
struct Rotation {
  double s, tau;
  int p, q;
};

/// p <- cosine p - s q, q <- s p + cosine q, with an error of s roundings (Rutishauser 1966).
__device__ inline void turn(Rotation r, double& p, double& q) {
  const double x = p, y = q;
  p = x - r.s * (y + r.tau * x);
  q = y + r.s * (x - r.tau * y);
}

/// Of a symmetric matrix the upper half is kept.
__device__ inline double& element(double* a, int ld, int i, int j) {
  return a[min(i, j) * ld + max(i, j)];
}

/// Pair `k` of players / 2 in `round` of players - 1: a tournament, in which each meets every other
/// (Brent, Luk 1985). The rotation that makes a_pq 0, and its effect on the three elements that
/// only it changes; an angle of 0 where a_pq is within rounding of 0 already.
__device__ inline Rotation rotate_pair(double* a, int ld, int players, int round, int k) {
  constexpr double kRounding = 0x1p-53, kNothing = 0x1p-80;  // the largest element is 1
  const int circle = players - 1;
  const int p = (round + k) % circle, q = k == 0 ? circle : (round + circle - k) % circle;
  double &pp = a[p * (ld + 1)], &qq = a[q * (ld + 1)], &pq = element(a, ld, p, q);
  const double x = pp, y = qq, z = pq;  // conflicts: a round's pairs lie along an antidiagonal
  if (abs(z) <= max(kNothing, kRounding * sqrt(abs(x) * abs(y)))) return {0, 0, p, q};
  const double theta = (y - x) / (2 * z);
  const double t = (theta < 0 ? -1 : 1) / (abs(theta) + sqrt(theta * theta + 1));
  const double cosine = 1 / sqrt(t * t + 1), s = t * cosine;
  pp = x - t * z;
  qq = y + t * z;
  pq = 0;  // conflicts: as above
  return {s, s / (1 + cosine), p, q};
}

/// The four elements where the rows of one pair cross the columns of another.
__device__ inline void rotate_crossing(double* a, int ld, Rotation down, Rotation across) {
  if (down.s == 0 && across.s == 0) return;
  double &pp = element(a, ld, down.p, across.p), &pq = element(a, ld, down.p, across.q);
  double &qp = element(a, ld, down.q, across.p), &qq = element(a, ld, down.q, across.q);
  double w = pp, x = pq, y = qp, z = qq;
  turn(across, w, x);
  turn(across, y, z);
  turn(down, w, y);
  turn(down, x, z);
  pp = w;
  pq = x;
  qp = y;
  qq = z;
}

/// f(k, l) once for each k < l < count, two rows of the triangle in a line.
template <class F>
__device__ void for_crossings(int count, F f) {
  const int rows = count - 1;
  for_elements((rows + 1) / 2, count, [&](int i, int j) {
    if (j < rows - i)
      f(i, i + 1 + j);
    else if (rows - 1 - i > i)
      f(rows - 1 - i, j);
  });
}

/// vectors [n, n] = the eigenvectors of `a` [players(n), players(n)], one a row in no particular
/// order, and their values. Only the upper half of `a` counts, which is used up; its largest
/// |element| is 1 or 0. Two-sided Jacobi rotations, n / 2 at a time. A barrier after.
__device__ inline void symmetric_eigen(int n, double* a, double* vectors, double* values) {
  SHARED(Rotation, rotation, [128]);
  const int m = players(n), ld = stride(m), half = m / 2, t = int(threadIdx.x);
  for_elements(n, n, [&](int i, int j) { vectors[i * stride(n) + j] = i == j; });
  __syncthreads();
  bool found = true;
  for (int sweep = 0; found && sweep < kMostSweeps; ++sweep) {
    found = false;
    for (int round = 0; round < m - 1; ++round) {
      bool turns = false;
      if (t < half) {
        const Rotation r = rotate_pair(a, ld, m, round, t);
        turns = r.s != 0;
        rotation[t] = r;
      }
      if (!__syncthreads_or(turns)) continue;
      found = true;
      for_crossings(half, [&](int k, int l) { rotate_crossing(a, ld, rotation[k], rotation[l]); });
      for (int k = t / 32; k < half; k += kThreads / 32) {
        const Rotation r = rotation[k];
        double *const p = vectors + r.p * stride(n), *const q = vectors + r.q * stride(n);
        for (int j = t % 32; j < n && r.s != 0; j += 32) turn(r, p[j], q[j]);
      }
      __syncthreads();
    }
  }
  for (int i = t; i < n; i += kThreads) values[i] = a[i * (ld + 1)];
  __syncthreads();
}

}  // namespace decalign::inline DECALIGN_REAL::small
