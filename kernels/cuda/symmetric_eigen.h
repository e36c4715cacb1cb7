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
__device__ inline void turn(const Rotation& r, double& p, double& q) {
  const double x = p, y = q;
  p = x - r.s * (y + r.tau * x);
  q = y + r.s * (x - r.tau * y);
}

/// Pair `k` of players / 2 in `round` of players - 1: a tournament, in which each meets every other
/// (Brent, Luk 1985).
__device__ inline void set_pair(int players, int round, int k, Rotation& r) {
  const int circle = players - 1;
  const int one = (round + k) % circle, other = k == 0 ? circle : (round + circle - k) % circle;
  r.p = min(one, other);
  r.q = max(one, other);
}

/// The rotation that makes a_pq 0, and its effect on the three elements that only it changes; false
/// where a_pq is within rounding of 0 already.
__device__ inline bool rotate_pair(double* a, int ld, Rotation& r) {
  constexpr double kRounding = 0x1p-53, kNothing = 0x1p-80;  // the largest element is 1
  r.s = r.tau = 0;
  double &pp = a[r.p * ld + r.p], &qq = a[r.q * ld + r.q], &pq = a[r.p * ld + r.q];
  const double x = pp, y = qq, z = pq;
  if (abs(z) <= max(kNothing, kRounding * sqrt(abs(x) * abs(y)))) return false;
  const double theta = (y - x) / (2 * z);
  const double t = (theta < 0 ? -1 : 1) / (abs(theta) + sqrt(theta * theta + 1));
  const double cosine = 1 / sqrt(t * t + 1);
  r.s = t * cosine;
  r.tau = r.s / (1 + cosine);
  pp = x - t * z;
  qq = y + t * z;
  pq = a[r.q * ld + r.p] = 0;
  return true;
}

/// The 2 x 2 elements where the rows of `down` cross the columns of `across`, and their mirror
/// images.
__device__ inline void rotate_crossing(double* a, int ld, const Rotation& down,
                                       const Rotation& across) {
  if (down.s == 0 && across.s == 0) return;
  double pp = a[down.p * ld + across.p], pq = a[down.p * ld + across.q];
  double qp = a[down.q * ld + across.p], qq = a[down.q * ld + across.q];
  turn(across, pp, pq);
  turn(across, qp, qq);
  turn(down, pp, qp);
  turn(down, pq, qq);
  const auto store = [&](int i, int j, double value) {
    a[i * ld + j] = value;
    a[j * ld + i] = value;
  };
  store(down.p, across.p, pp);
  store(down.q, across.p, qp);
  store(down.p, across.q, pq);
  store(down.q, across.q, qq);
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

/// a [players(n), players(n)] = vectors^T diag(values) vectors, vectors [n, n]: an eigenvector a
/// row, in no particular order. The largest |element| of `a`, which is used up, is 1 or 0.
/// Two-sided Jacobi rotations, n / 2 at a time. Barriers before and after.
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
        set_pair(m, round, t, rotation[t]);
        turns = rotate_pair(a, ld, rotation[t]);
      }
      if (!__syncthreads_or(turns)) continue;
      found = true;
      for_crossings(half, [&](int k, int l) { rotate_crossing(a, ld, rotation[k], rotation[l]); });
      for_elements(half, n, [&](int k, int j) {
        const Rotation& r = rotation[k];
        if (r.s != 0) turn(r, vectors[r.p * stride(n) + j], vectors[r.q * stride(n) + j]);
      });
      __syncthreads();
    }
  }
  for (int i = t; i < n; i += kThreads) values[i] = a[i * (ld + 1)];
  __syncthreads();
}

}  // namespace decalign::inline DECALIGN_REAL::small
