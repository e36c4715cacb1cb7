#include "kernels/cpu/sinkhorn_solver.h"

#include <cmath>

namespace decalign::inline DECALIGN_REAL::transport {
namespace {

constexpr int64_t kSerial = int64_t(1) << 15;

// The serial path for small problems keeps the cost of a thread team away from 10 us solves.
Cpu team(const Cpu& be, const Sizes& z) { return z.N >= kSerial ? be : Cpu{1}; }

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Sizes sizes(const SinkhornShape& s) {
  const int64_t n = check_sinkhorn_sizes(s);
  return {s.modalities, s.components, n};
}

int64_t chain_size(const Sizes& z) {
  int64_t total = 0;
  for (int64_t m = 1; m < z.M; ++m) total += (z.power(m) + 7) / 8 * 8;
  return total;
}

size_t scratch_bytes(const Sizes& z) {
  // Backward: two more dense arrays, two more chains, small vectors; every array rounded to 64
  // bytes.
  return sizeof(double) * size_t(4 * z.N + 4 * chain_size(z) + 14 * z.M * z.K + 8 * 24);
}

void contract(const Cpu& be, const double* w, const double* x, int64_t K, int64_t L, double* y) {
  parallel_ranges(be, L, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) y[p] = 0;
    for (int64_t k = 0; k < K; ++k) {
      const double wk = w[k], *slice = x + k * L;
#pragma omp simd
      for (int64_t p = begin; p < end; ++p) y[p] += wk * slice[p];
    }
  });
}

void rows_dot(const Cpu& be, const double* u, const double* x, int64_t K, int64_t L, double* y) {
  parallel_ranges(be, K, std::max<int64_t>(1, 8192 / L), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) y[k] = dot(u, x + k * L, L);
  });
}

void outer(const Cpu& be, const double* a, const double* x, const double* b, const double* z,
           int64_t K, int64_t L, double* y, bool add) {
  parallel_ranges(be, K, std::max<int64_t>(1, 8192 / L), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      double* out = y + k * L;
      const double ak = a[k], bk = z != nullptr ? b[k] : 0;
      const double* zz = z != nullptr ? z : x;
      if (add) {
#pragma omp simd
        for (int64_t p = 0; p < L; ++p) out[p] += ak * x[p] + bk * zz[p];
      } else {
#pragma omp simd
        for (int64_t p = 0; p < L; ++p) out[p] = ak * x[p] + bk * zz[p];
      }
    }
  });
}

Solver make_solver(const Cpu& be, const Sizes& z, const SinkhornOptions& o, In cost, In marginals,
                   double*& memory) {
  Solver v{};
  v.be = team(be, z);
  v.z = z;
  v.o = o;
  v.epsilon = std::max(o.epsilon, kEpsilonFloor);
  v.guard = o.log_domain ? 0 : kGuard;
  v.cost = take(memory, z.N);
  v.G = take(memory, z.N);
  v.R = take(memory, chain_size(z));
  v.U = take(memory, chain_size(z));
  for (double** p : {&v.marginal, &v.u, &v.q, &v.absorbed, &v.reached, &v.work})
    *p = take(memory, z.M * z.K);
  std::fill(v.cost, v.cost + z.N, 0.0);
  for_pairs(z, [&](int64_t at, int64_t run, int64_t pair) {
    const double c = double(cost[size_t(pair)]);
    for (int64_t i = 0; i < run; ++i) v.cost[at + i] += c;
  });
  for (int64_t i = 0; i < z.M * z.K; ++i) {
    v.marginal[i] = double(marginals[size_t(i)]);
    v.u[i] = 1;
    v.absorbed[i] = 0;
  }
  return v;
}

void add_potentials(const Solver& v, const double* potential, double* out) {
  const Sizes& z = v.z;
  for (int64_t m = 0; m < z.M; ++m) {
    const int64_t run = z.power(m);
    for (int64_t at = 0; at < z.N;)
      for (int64_t k = 0; k < z.K; ++k, at += run)
        for (int64_t i = 0; i < run; ++i) out[at + i] += potential[m * z.K + k];
  }
}

void build_kernel(const Solver& v) {
  const double scale = -1 / v.epsilon;
  for (int64_t i = 0; i < v.z.N; ++i) v.G[i] = scale * v.cost[i];
  if (v.o.log_domain) add_potentials(v, v.absorbed, v.G);
  const double low = v.o.log_domain ? 0 : kKernelFloor;
  parallel_ranges(v.be, v.z.N, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      v.G[i] = std::max(std::exp(std::min(v.G[i], kLargestLog)), low);
  });
}

void chain(const Solver& v, const double* u) {
  for (int64_t m = v.z.M - 1; m > 0; --m)
    contract(v.be, u + m * v.z.K, v.R_at(m), v.z.K, v.z.power(m), v.level(v.R, m - 1));
}

void extend(const Solver& v, int64_t m) {
  const int64_t K = v.z.K;
  const double* u = v.u;
  if (m == 0)
    std::copy_n(u, K, v.level(v.U, 0));
  else if (m < v.z.M - 1)
    outer(v.be, u + m * K, v.level(v.U, m - 1), nullptr, nullptr, K, v.z.power(m), v.level(v.U, m),
          false);
}

void contraction(const Solver& v, int64_t m, double* out) {
  if (m == 0)
    std::copy_n(v.R_at(0), v.z.K, out);
  else
    rows_dot(v.be, v.level(v.U, m - 1), v.R_at(m), v.z.K, v.z.power(m), out);
}

void fast_sweep(const Solver& v) {
  const int64_t K = v.z.K;
  for (int64_t m = 0; m < v.z.M; ++m) {
    double *q = v.q + m * K, *u = v.u + m * K;
    contraction(v, m, q);
    for (int64_t k = 0; k < K; ++k) {
      q[k] = 1 / (q[k] + v.guard);
      u[k] = v.marginal[m * K + k] * q[k];
    }
    extend(v, m);
  }
}

double log_scaling(const Solver& v, int64_t i) {
  return v.u[i] > 0 ? std::log(v.u[i]) + v.absorbed[i] : 0;
}

}  // namespace decalign::inline DECALIGN_REAL::transport
