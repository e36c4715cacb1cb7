// One transport problem with its memory, and the contractions that its sweeps are made of. Shared
// by the forward and the backward pass.
//
// Everything in double: at the network's size that costs nothing, and a tolerance of 1e-6 is out of
// reach of a float sum.
//
// Dense arrays of M modalities have modality 0 innermost: element sum_m k_m K^m. A contraction from
// the last modality inwards is then a sum of contiguous slices. Of one sweep, with G [K, .., K] and
// R_{M-1} = G:
//   R_{m-1}[p] = sum_k u_m[k] R_m[k, p]              (old u)        "the chain"
//   q_m[k] = 1 / (sum_p U_m[p] R_m[k, p] + guard),   U_m = u_{m-1} x ... x u_0 (new u)
// so that G itself is read twice a sweep, whatever M.
#pragma once

#include "kernels/check/sinkhorn.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL::transport {

struct Sizes {
  int64_t M, K, N;  // N = K^M
  int64_t power(int64_t m) const {
    int64_t p = 1;
    while (m-- > 0) p *= K;
    return p;
  }
};

/// Throws std::invalid_argument unless 2 <= M, 1 <= K, K^M <= 2^24.
Sizes sizes(const SinkhornShape& s);

inline int64_t pair_index(const Sizes& z, int64_t i, int64_t j) {
  return i * z.M - i * (i + 1) / 2 + j - i - 1;
}

// f(start of a run of K^i elements, pair, element of [K, K]) over all elements, for every pair.
template <class F>
void for_pairs(const Sizes& z, F&& f) {
  for (int64_t i = 0; i < z.M; ++i)
    for (int64_t j = i + 1; j < z.M; ++j) {
      const int64_t run = z.power(i), middle = z.power(j - i - 1), high = z.power(z.M - 1 - j);
      int64_t at = 0;
      for (int64_t h = 0; h < high; ++h)
        for (int64_t b = 0; b < z.K; ++b)
          for (int64_t l = 0; l < middle; ++l)
            for (int64_t a = 0; a < z.K; ++a, at += run)
              f(at, run, (pair_index(z, i, j) * z.K + a) * z.K + b);
    }
}

// One problem with its memory. `u`, `q` are relative to the absorbed potentials log_q = `absorbed`.
struct Solver {
  Cpu be;
  Sizes z;
  SinkhornOptions o;
  double epsilon;
  double guard;      // 0 in the log domain
  double *cost, *G;  // [N]: joint cost, kernel
  double *R, *U;     // chains
  double* marginal;  // [M, K] a
  double *u, *q;     // [M, K] relative scalings, u = a q after the first sweep
  double* absorbed;  // [M, K]
  double* reached;   // [M, K] marginals of T
  double* work;      // [M, K]

  double* level(double* chain, int64_t m) const {  // array m of a chain: R_m or U_{m+1}, K^{m+1}
    for (int64_t i = 0; i < m; ++i) chain += (z.power(i + 1) + 7) / 8 * 8;
    return chain;
  }
  const double* R_at(int64_t m) const { return m == z.M - 1 ? G : level(R, m); }
};

inline double* take(double*& memory, int64_t n) {
  double* p = memory;
  memory += (n + 7) / 8 * 8;
  return p;
}

/// Elements of the arrays R_0 .. R_{M-2} (or U_1 .. U_{M-1}) together, each rounded to a cache
/// line.
int64_t chain_size(const Sizes& z);
/// Scratch of either direction.
size_t scratch_bytes(const Sizes& z);

/// Carves a problem from `memory`: joint cost, marginals, u = 1.
Solver make_solver(const Cpu& be, const Sizes& z, const SinkhornOptions& o, In cost, In marginals,
                   double*& memory);

/// y[p] = sum_k w[k] x[k, p]
void contract(const Cpu& be, const double* w, const double* x, int64_t K, int64_t L, double* y);
/// y[k] = sum_p u[p] x[k, p]
void rows_dot(const Cpu& be, const double* u, const double* x, int64_t K, int64_t L, double* y);
/// y[k, p] = a[k] x[p] (+ b[k] z[p] if z)
void outer(const Cpu& be, const double* a, const double* x, const double* b, const double* z,
           int64_t K, int64_t L, double* y, bool add);
/// out[k_1 .. k_M] += sum over m of potential_m[k_m]
void add_potentials(const Solver& v, const double* potential, double* out);
/// G = exp(-C / epsilon + absorbed potentials), or the release's clamped kernel.
void build_kernel(const Solver& v);
/// R_{M-2} .. R_0 from G and u.
void chain(const Solver& v, const double* u);
/// U_{m+1} = u_m x U_m
void extend(const Solver& v, int64_t m);
/// out[k] = contraction of G with all u but u_m, for the newest u_0 .. u_{m-1} in the U chain.
void contraction(const Solver& v, int64_t m, double* out);
/// One sweep on the kernel as it stands; the chain must be that of the current u.
void fast_sweep(const Solver& v);
/// Log u where u > 0, else 0; sweeps = 0: u = 1.
double log_scaling(const Solver& v, int64_t i);

// f(element of T, its index) in order; needs the full U chain of u.
template <class F>
void for_plan(const Solver& v, F&& f) {
  const int64_t L = v.z.power(v.z.M - 1);
  const double *U = v.level(v.U, v.z.M - 2), *last = v.u + (v.z.M - 1) * v.z.K;
  for (int64_t k = 0; k < v.z.K; ++k)
    for (int64_t p = 0; p < L; ++p) f(U[p] * last[k] * v.G[k * L + p], k * L + p);
}

}  // namespace decalign::inline DECALIGN_REAL::transport
