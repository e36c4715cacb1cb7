// Everything in double: at the network's size that costs nothing, and a tolerance of 1e-6 is out of
// reach of a float sum.
//
// Dense arrays of M modalities have modality 0 innermost: element sum_m k_m K^m. A contraction from
// the last modality inwards is then a sum of contiguous slices. Of one sweep, with G [K, .., K] and
// R_{M-1} = G:
//   R_{m-1}[p] = sum_k u_m[k] R_m[k, p]              (old u)        "the chain"
//   q_m[k] = 1 / (sum_p U_m[p] R_m[k, p] + guard),   U_m = u_{m-1} x ... x u_0 (new u)
// so that G itself is read twice a sweep, whatever M.
#include "kernels/sinkhorn.h"

#include <cmath>
#include <limits>

#include "kernels/cpu/carve.h"
#include "kernels/cpu/parallel.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kGuard = 1e-8, kKernelFloor = 1e-30, kPlanFloor = 1e-8, kEpsilonFloor = 1e-6;
constexpr double kAbsorb = 30;  // |log| of a scaling at which it is absorbed into the kernel
constexpr double kLargestLog =
    500;  // of an absorbed kernel element; beyond, its mass is below 1e-200
constexpr int64_t kLargest = int64_t(1) << 24, kSerial = int64_t(1) << 15;

struct Sizes {
  int64_t M, K, N;  // N = K^M
  int64_t power(int64_t m) const {
    int64_t p = 1;
    while (m-- > 0) p *= K;
    return p;
  }
};

Sizes sizes(const SinkhornShape& s) {
  expect(s.modalities >= 2 && s.components >= 1, "sinkhorn: sizes out of range");
  Sizes z{s.modalities, s.components, 1};
  for (int64_t m = 0; m < z.M && z.K > 1; ++m) {
    z.N *= z.K;
    expect(z.N <= kLargest, "sinkhorn: components^modalities is too large for the dense form");
  }
  return z;
}

// Elements of the arrays R_0 .. R_{M-2} (or U_1 .. U_{M-1}) together, each rounded to a cache line.
int64_t chain_size(const Sizes& z) {
  int64_t total = 0;
  for (int64_t m = 1; m < z.M; ++m) total += (z.power(m) + 7) / 8 * 8;
  return total;
}

// The serial path for small problems keeps the cost of a thread team away from 10 us solves.
Cpu team(const Cpu& be, const Sizes& z) { return z.N >= kSerial ? be : Cpu{1}; }

// y[p] = sum_k w[k] x[k, p]
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

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// y[k] = sum_p u[p] x[k, p]
void rows_dot(const Cpu& be, const double* u, const double* x, int64_t K, int64_t L, double* y) {
  parallel_ranges(be, K, std::max<int64_t>(1, 8192 / L), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) y[k] = dot(u, x + k * L, L);
  });
}

// y[k, p] = a[k] x[p] (+ b[k] z[p] if z)
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

int64_t pair_index(const Sizes& z, int64_t i, int64_t j) {
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

double* take(double*& memory, int64_t n) {
  double* p = memory;
  memory += (n + 7) / 8 * 8;
  return p;
}

size_t doubles_bytes(const Sizes& z) {
  // Backward: two more dense arrays, two more chains, small vectors; every array rounded to 64
  // bytes.
  return sizeof(double) * size_t(4 * z.N + 4 * chain_size(z) + 14 * z.M * z.K + 8 * 24);
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

// out[k_1 .. k_M] += sum over m of potential_m[k_m]
void add_potentials(const Solver& v, const double* potential, double* out) {
  const Sizes& z = v.z;
  for (int64_t m = 0; m < z.M; ++m) {
    const int64_t run = z.power(m);
    for (int64_t at = 0; at < z.N;)
      for (int64_t k = 0; k < z.K; ++k, at += run)
        for (int64_t i = 0; i < run; ++i) out[at + i] += potential[m * z.K + k];
  }
}

// G = exp(-C / epsilon + absorbed potentials), or the release's clamped kernel.
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

// R_{M-2} .. R_0 from G and u.
void chain(const Solver& v, const double* u) {
  for (int64_t m = v.z.M - 1; m > 0; --m)
    contract(v.be, u + m * v.z.K, v.R_at(m), v.z.K, v.z.power(m), v.level(v.R, m - 1));
}

// U_{m+1} = u_m x U_m
void extend(const Solver& v, int64_t m) {
  const int64_t K = v.z.K;
  const double* u = v.u;
  if (m == 0)
    std::copy_n(u, K, v.level(v.U, 0));
  else if (m < v.z.M - 1)
    outer(v.be, u + m * K, v.level(v.U, m - 1), nullptr, nullptr, K, v.z.power(m), v.level(v.U, m),
          false);
}

// out[k] = contraction of G with all u but u_m, for the newest u_0 .. u_{m-1} in the U chain.
void contraction(const Solver& v, int64_t m, double* out) {
  if (m == 0)
    std::copy_n(v.R_at(0), v.z.K, out);
  else
    rows_dot(v.be, v.level(v.U, m - 1), v.R_at(m), v.z.K, v.z.power(m), out);
}

// One sweep on the kernel as it stands; the chain must be that of the current u.
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

// Marginals of T for modalities 0 .. M - 2 from the chain of u; returns their L1 error.
double marginal_error(const Solver& v, bool last) {
  const int64_t K = v.z.K;
  double error = 0;
  for (int64_t m = 0; m < v.z.M - (last ? 0 : 1); ++m) {
    contraction(v, m, v.work + m * K);
    for (int64_t k = 0; k < K; ++k) {
      v.reached[m * K + k] = v.u[m * K + k] * v.work[m * K + k];
      error += std::abs(v.reached[m * K + k] - v.marginal[m * K + k]);
    }
    extend(v, m);
  }
  return error;
}

// ---- log domain --------------------------------------------------------------------------------

// Log of contraction m for any log u (-inf where u is 0), about the maximum: out[k]. Where all is
// -inf, 0.
void log_contraction(const Solver& v, int64_t m, const double* log_u, double* dense, double* out) {
  const Sizes& z = v.z;
  const double scale = -1 / v.epsilon;
  for (int64_t i = 0; i < z.N; ++i) dense[i] = scale * v.cost[i];
  std::copy_n(log_u, z.M * z.K, v.work);
  std::fill_n(v.work + m * z.K, z.K, 0.0);
  add_potentials(v, v.work, dense);
  const int64_t run = z.power(m), block = run * z.K;
  parallel_for(v.be, z.K, [&](int64_t k) {
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t at = k * run; at < z.N; at += block)
      for (int64_t i = 0; i < run; ++i) top = std::max(top, dense[at + i]);
    if (std::isfinite(top))
      for (int64_t at = k * run; at < z.N; at += block)
        for (int64_t i = 0; i < run; ++i) sum += std::exp(dense[at + i] - top);
    out[k] = std::isfinite(top) ? top + std::log(sum) : 0;
  });
}

// u relative to `absorbed` becomes log u.
void log_scalings(const Solver& v, const double* u, double* log_u) {
  for (int64_t i = 0; i < v.z.M * v.z.K; ++i) log_u[i] = std::log(u[i]) + v.absorbed[i];
}

// One sweep by log-sum-exp, then a kernel that absorbed its result.
void slow_sweep(const Solver& v, double* log_u) {
  const int64_t K = v.z.K;
  log_scalings(v, v.u, log_u);
  for (int64_t m = 0; m < v.z.M; ++m) {
    double* g = v.absorbed + m * K;
    log_contraction(v, m, log_u, v.G, g);
    for (int64_t k = 0; k < K; ++k) {
      g[k] = -g[k];
      log_u[m * K + k] = std::log(v.marginal[m * K + k]) + g[k];
      v.q[m * K + k] = 1;
      v.u[m * K + k] = v.marginal[m * K + k];
    }
  }
  build_kernel(v);
}

bool in_range(const Solver& v) {
  for (int64_t i = 0; i < v.z.M * v.z.K; ++i)
    if (!(v.q[i] > std::exp(-kAbsorb) && v.q[i] < std::exp(kAbsorb))) return false;
  return true;
}

// A sweep in the log domain. True if the kernel was rebuilt.
bool log_sweep(const Solver& v, bool first, double* before) {
  const int64_t n = v.z.M * v.z.K;
  if (first) {
    slow_sweep(v, before);
    return true;
  }
  std::copy_n(v.u, n, before);
  fast_sweep(v);
  if (in_range(v)) return false;
  bool usable = true;
  for (int64_t i = 0; i < n; ++i) usable &= v.q[i] > 1e-100 && v.q[i] < 1e100;
  if (usable) {
    for (int64_t i = 0; i < n; ++i) {
      v.absorbed[i] += std::log(v.q[i]);
      v.q[i] = 1;
      v.u[i] = v.marginal[i];
    }
    build_kernel(v);
  } else {
    std::copy_n(before, n, v.u);
    slow_sweep(v, before);
  }
  return true;
}

void store_scalings(const Solver& v, double* to) {
  for (int64_t i = 0; i < v.z.M * v.z.K; ++i)
    to[i] = v.o.log_domain ? std::log(v.q[i]) + v.absorbed[i] : v.q[i];
}

// Log u where u > 0, else 0; sweeps = 0: u = 1.
double log_scaling(const Solver& v, int64_t i) {
  return v.u[i] > 0 ? std::log(v.u[i]) + v.absorbed[i] : 0;
}

// ---- value -------------------------------------------------------------------------------------

// f(element of T, joint cost, index of the element) in order; needs the full U chain of u.
template <class F>
void for_plan(const Solver& v, F&& f) {
  const int64_t L = v.z.power(v.z.M - 1);
  const double *U = v.level(v.U, v.z.M - 2), *last = v.u + (v.z.M - 1) * v.z.K;
  for (int64_t k = 0; k < v.z.K; ++k)
    for (int64_t p = 0; p < L; ++p) f(U[p] * last[k] * v.G[k * L + p], k * L + p);
}

double transport_value(const Solver& v, double& mass) {
  const double shift = v.o.entropy == OtEntropy::log_minus_one ? 1 : 0;
  double cost = 0, entropy = 0;
  mass = 0;
  if (v.o.log_domain) {
    // epsilon log T = -C + epsilon sum log u: <T, C> + epsilon <T, log T> needs the marginals only.
    for (int64_t i = 0; i < v.z.M * v.z.K; ++i) cost += v.reached[i] * log_scaling(v, i);
    for (int64_t k = 0; k < v.z.K; ++k) mass += v.reached[k];
    return v.epsilon * (cost - shift * mass);
  }
  for_plan(v, [&](double t, int64_t i) {
    mass += t;
    cost += t * v.cost[i];
    entropy += t * (std::log(std::max(t, kPlanFloor)) - shift);
  });
  return cost + v.o.epsilon * entropy;
}

// ---- backward ----------------------------------------------------------------------------------

// The adjoint of one fast sweep. On entry du is d/d(u after it), on exit d/d(u before it).
struct Adjoint {
  double *dG, *dlogG;        // [N]: d/dG, and what was folded into d/d log G before a rebuild
  double *H, *dR;            // chains
  double *du, *du_old, *ds;  // [M, K]
  double* da;                // [M, K]
};

void fast_sweep_backward(const Solver& v, const Adjoint& a, const double* u_old) {
  const int64_t K = v.z.K, M = v.z.M;
  chain(v, u_old);
  for (int64_t m = 0; m < M - 1; ++m) extend(v, m);
  std::fill_n(a.du_old, M * K, 0.0);
  for (int64_t m = M - 1; m >= 0; --m) {
    double *du = a.du + m * K, *ds = a.ds + m * K;
    const int64_t L = v.z.power(m);
    double* dU = v.level(a.H, m);  // d/dU_{m+1}, complete once modality m + 1 is done
    if (m < M - 1) {
      if (m == 0) {
        for (int64_t k = 0; k < K; ++k) du[k] += dU[k];
      } else {
        rows_dot(v.be, v.level(v.U, m - 1), dU, K, L, v.work);
        for (int64_t k = 0; k < K; ++k) du[k] += v.work[k];
      }
    }
    for (int64_t k = 0; k < K; ++k) {
      const double q = v.q[m * K + k];
      a.da[m * K + k] += du[k] * q;
      ds[k] = -du[k] * v.u[m * K + k] * q;
    }
    if (m == 0) break;
    double* below = v.level(a.H, m - 1);
    contract(v.be, ds, v.R_at(m), K, L, below);
    if (m < M - 1) {
      double* more = v.level(a.dR, m - 1);  // free until the second half
      contract(v.be, v.u + m * K, dU, K, L, more);
      for (int64_t p = 0; p < L; ++p) below[p] += more[p];
    }
  }
  // d/dR_0, then outwards.
  std::copy_n(a.ds, K, v.level(a.dR, 0));
  for (int64_t m = 1; m < M; ++m) {
    const double *dR = v.level(a.dR, m - 1), *U = v.level(v.U, m - 1);
    const int64_t L = v.z.power(m);
    rows_dot(v.be, dR, v.R_at(m), K, L, a.du_old + m * K);
    outer(v.be, a.ds + m * K, U, u_old + m * K, dR, K, L, m == M - 1 ? a.dG : v.level(a.dR, m),
          m == M - 1);
  }
  std::copy_n(a.du_old, M * K, a.du);
}

// The adjoint of a sweep by log-sum-exp. On entry and exit du is d/d log u.
void slow_sweep_backward(const Solver& v, const Adjoint& a, const double* log_q,
                         const double* log_old, double* log_u, double* dense) {
  const Sizes& z = v.z;
  const int64_t K = z.K;
  const double scale = -1 / v.epsilon;
  for (int64_t m = z.M - 1; m >= 0; --m) {
    // log u as update m found it: new below m, old above.
    for (int64_t i = 0; i < z.M * K; ++i)
      log_u[i] = i < m * K ? std::log(v.marginal[i]) + log_q[i] : log_old[i];
    std::copy_n(log_q + m * K, K, log_u + m * K);
    for (int64_t k = 0; k < K; ++k) {
      const double alpha = v.marginal[m * K + k];
      a.ds[k] = alpha > 0 ? a.du[m * K + k] : 0;
      if (alpha > 0) a.da[m * K + k] += a.du[m * K + k] / alpha;
      a.du[m * K + k] = 0;
    }
    for (int64_t i = 0; i < z.N; ++i) dense[i] = scale * v.cost[i];
    add_potentials(v, log_u, dense);
    const int64_t run = z.power(m);
    for (int64_t at = 0; at < z.N;)
      for (int64_t k = 0; k < K; ++k)
        for (int64_t i = 0; i < run; ++i, ++at) {
          dense[at] = -a.ds[k] * std::exp(dense[at]);
          a.dlogG[at] += dense[at];
        }
    for (int64_t other = 0; other < z.M; ++other) {
      if (other == m) continue;
      const int64_t step = z.power(other);
      for (int64_t at = 0; at < z.N;)
        for (int64_t k = 0; k < K; ++k, at += step)
          for (int64_t i = 0; i < step; ++i) a.du[other * K + k] += dense[at + i];
    }
  }
}

// A stored sweep's scalings, relative to `absorbed`.
void load_scalings(const Solver& v, const double* stored, double* q, double* u) {
  for (int64_t i = 0; i < v.z.M * v.z.K; ++i) {
    q[i] = v.o.log_domain ? std::exp(stored[i] - v.absorbed[i]) : stored[i];
    u[i] = v.marginal[i] * q[i];
  }
}

void fold(const Solver& v, const Adjoint& a) {
  for (int64_t i = 0; i < v.z.N; ++i) {
    a.dlogG[i] += a.dG[i] * v.G[i];
    a.dG[i] = 0;
  }
}

// g d value: d/dG and d/du of T's factors, and T itself, the direct share of d/dC, in `plan`.
void seed(const Solver& v, const Adjoint& a, double g, double* plan) {
  const int64_t K = v.z.K, L = v.z.power(v.z.M - 1);
  const double shift = v.o.entropy == OtEntropy::log_minus_one ? 1 : 0;
  const double *U = v.level(v.U, v.z.M - 2), *last = v.u + (v.z.M - 1) * K;
  // plan[i] = d value / d T_i for now.
  for_plan(v, [&](double t, int64_t i) {
    if (!v.o.log_domain)
      plan[i] = v.cost[i] + v.o.epsilon * (std::log(std::max(t, kPlanFloor)) - shift +
                                           (t >= kPlanFloor ? 1 : 0));
    else
      plan[i] = v.epsilon * (1 - shift);
  });
  if (v.o.log_domain) {
    for (int64_t i = 0; i < v.z.M * K; ++i) v.work[i] = v.epsilon * log_scaling(v, i);
    add_potentials(v, v.work, plan);
  }
  // H_m [K^{m+1}]: sum over the outer modalities of G dT u; du_m from it and the inner ones.
  for (int64_t k = 0; k < K; ++k)
    for (int64_t p = 0; p < L; ++p) {
      const int64_t i = k * L + p;
      a.dG[i] = g * plan[i] * U[p] * last[k];
      plan[i] *= g * v.G[i];
    }
  double* current = plan;
  for (int64_t m = v.z.M - 1; m >= 0; --m) {
    const int64_t inner = v.z.power(m);
    if (m == 0) {
      std::copy_n(current, K, a.du);
      break;
    }
    rows_dot(v.be, v.level(v.U, m - 1), current, K, inner, a.du + m * K);
    contract(v.be, v.u + m * K, current, K, inner, v.level(a.H, m - 1));
    current = v.level(a.H, m - 1);
  }
  for_plan(v, [&](double t, int64_t i) { plan[i] = g * t; });
}

// The unrolled way back in the log domain: fast sweeps on the kernel at hand, a new kernel when the
// scalings leave its range, log-sum-exp where one sweep alone spans more.
void unroll_log(const Solver& v, const Adjoint& a, const double* stored, int64_t sweeps,
                double* u_old, double* q_old, double* log_old) {
  const int64_t n = v.z.M * v.z.K;
  const auto to_relative = [&] {
    for (int64_t i = 0; i < n; ++i) a.du[i] = v.u[i] > 0 ? a.du[i] / v.u[i] : 0;
  };
  for (int64_t t = sweeps - 1; t >= 0; --t) {
    const double *now = stored + t * n, *before = t > 0 ? now - n : nullptr;
    const auto fits = [&](const double* reference) {
      for (int64_t i = 0; i < n; ++i)
        if (!(std::abs(now[i] - reference[i]) < kAbsorb) ||
            !(before != nullptr && std::abs(before[i] - reference[i]) < kAbsorb))
          return false;
      return true;
    };
    const bool fits_now = fits(v.absorbed), fits_new = fits_now || fits(now);
    if (!fits_now) {
      // d/du on the old kernel -> d/d log u -> on the new one.
      fold(v, a);
      for (int64_t i = 0; i < n; ++i) a.du[i] *= v.u[i];
      std::copy_n(now, n, v.absorbed);
      load_scalings(v, now, v.q, v.u);
      if (fits_new) {
        build_kernel(v);
        to_relative();
      }
    }
    if (fits_new) {
      load_scalings(v, now, v.q, v.u);
      load_scalings(v, before, q_old, u_old);
      fast_sweep_backward(v, a, u_old);
      std::copy_n(u_old, n, v.u);
      continue;
    }
    for (int64_t i = 0; i < n; ++i)
      log_old[i] = before != nullptr ? std::log(v.marginal[i]) + before[i] : 0;
    slow_sweep_backward(v, a, now, log_old, u_old, v.G);
    if (before == nullptr) return;
    // Back to a kernel: that of the sweep before.
    std::copy_n(before, n, v.absorbed);
    load_scalings(v, before, v.q, v.u);
    build_kernel(v);
    to_relative();
  }
  fold(v, a);  // no sweep at all
}

void check(const SinkhornShape& s, const Sizes& z, In cost, In marginals, int64_t scalings,
           In report, In value, Scratch scratch) {
  expect(std::isfinite(s.options.epsilon), "sinkhorn: epsilon is not finite");
  expect(s.options.max_sweeps >= 0 && s.options.tolerance >= 0, "sinkhorn: option out of range");
  expect(std::ssize(cost) == z.M * (z.M - 1) / 2 * z.K * z.K,
         "sinkhorn: cost must be [pairs, K, K]");
  expect(std::ssize(marginals) == z.M * z.K, "sinkhorn: marginals must be [M, K]");
  expect(scalings == s.options.max_sweeps * z.M * z.K,
         "sinkhorn: scalings must be [max_sweeps, M, K]");
  expect(report.size() == 3, "sinkhorn: report must have three elements");
  expect(value.size() == 1, "sinkhorn: value must have one element");
  expect(scratch.size() >= doubles_bytes(z), "sinkhorn: scratch too small");
}

}  // namespace

size_t sinkhorn_scratch_bytes(const Cpu&, const SinkhornShape& s) {
  return doubles_bytes(sizes(s));
}

void sinkhorn_forward(const Cpu& be, const SinkhornShape& s, In cost, In marginals,
                      std::span<double> scalings, Out value, Out report, Scratch scratch) {
  const Sizes z = sizes(s);
  check(s, z, cost, marginals, std::ssize(scalings), report, value, scratch);
  double* memory = reinterpret_cast<double*>(scratch.data());
  const Solver v = make_solver(be, z, s.options, cost, marginals, memory);
  double* before = take(memory, z.M * z.K);
  const bool log = s.options.log_domain;
  int64_t sweep = 0;
  if (!log || s.options.max_sweeps == 0) build_kernel(v);
  for (; sweep < s.options.max_sweeps; ++sweep) {
    if (!log || sweep > 0) chain(v, v.u);
    if (log && sweep > 0 && s.options.tolerance > 0 &&
        marginal_error(v, false) <= s.options.tolerance)
      break;
    if (log)
      log_sweep(v, sweep == 0, before);
    else
      fast_sweep(v);
    store_scalings(v, scalings.data() + sweep * z.M * z.K);
  }
  chain(v, v.u);
  const double error = marginal_error(v, true);
  double mass = 0;
  value[0] = real(transport_value(v, mass));
  report[0] = real(mass);
  report[1] = real(error);
  report[2] = real(sweep);
}

void sinkhorn_backward(const Cpu& be, const SinkhornShape& s, In cost, In marginals,
                       std::span<const double> scalings, In report, In dvalue, InOut dcost,
                       InOut dmarginals, Scratch scratch) {
  const Sizes z = sizes(s);
  check(s, z, cost, marginals, std::ssize(scalings), report, dvalue, scratch);
  expect(dcost.empty() || dcost.size() == cost.size(), "sinkhorn: dcost must have cost's size");
  expect(dmarginals.empty() || dmarginals.size() == marginals.size(),
         "sinkhorn: dmarginals must have the size of marginals");
  if (dcost.empty() && dmarginals.empty()) return;
  double* memory = reinterpret_cast<double*>(scratch.data());
  const Solver v = make_solver(be, z, s.options, cost, marginals, memory);
  const int64_t n = z.M * z.K, sweeps = int64_t(report[2]);
  const bool log = s.options.log_domain;
  Adjoint a{};
  a.dG = take(memory, z.N);
  double* plan = a.dlogG = take(memory, z.N);  // T's direct share and the folded one, in units of C
  a.H = take(memory, chain_size(z));
  a.dR = take(memory, chain_size(z));
  for (double** p : {&a.du, &a.du_old, &a.ds, &a.da}) *p = take(memory, n);
  std::fill_n(a.da, n, 0.0);

  // The last iterate on a kernel of its own.
  if (sweeps > 0) {
    const double* last = scalings.data() + (sweeps - 1) * n;
    if (log) std::copy_n(last, n, v.absorbed);
    load_scalings(v, last, v.q, v.u);
  }
  build_kernel(v);
  for (int64_t m = 0; m < z.M - 1; ++m) extend(v, m);
  const double g = double(dvalue[0]);

  if (s.options.gradient == OtGradient::envelope) {
    for_plan(v, [&](double t, int64_t i) { plan[i] = g * t; });
    for (int64_t m = 0; m < z.M; ++m) {
      double mean = 0, mass = 0;
      for (int64_t k = 0; k < z.K; ++k) {
        mean += v.marginal[m * z.K + k] * log_scaling(v, m * z.K + k);
        mass += v.marginal[m * z.K + k];
      }
      for (int64_t k = 0; k < z.K; ++k)
        if (v.u[m * z.K + k] > 0)
          a.da[m * z.K + k] =
              g * v.epsilon * (log_scaling(v, m * z.K + k) - (mass > 0 ? mean / mass : 0));
    }
  } else {
    seed(v, a, g, plan);
    for (int64_t i = 0; i < z.N; ++i) plan[i] *= -v.epsilon;  // C = -epsilon log G
    double *u_old = take(memory, n), *q_old = take(memory, n), *log_old = take(memory, n);
    if (log) {
      unroll_log(v, a, scalings.data(), sweeps, u_old, q_old, log_old);
    } else {
      for (int64_t t = sweeps - 1; t >= 0; --t) {
        load_scalings(v, scalings.data() + t * n, v.q, v.u);
        if (t > 0)
          load_scalings(v, scalings.data() + (t - 1) * n, q_old, u_old);
        else
          std::fill_n(u_old, n, 1.0);
        fast_sweep_backward(v, a, u_old);
      }
      for (int64_t i = 0; i < z.N; ++i)
        if (std::exp(-v.cost[i] / v.epsilon) < kKernelFloor) a.dG[i] = 0;
      fold(v, a);
    }
    for (int64_t i = 0; i < z.N; ++i) plan[i] *= -1 / v.epsilon;
  }
  if (!dcost.empty())
    for_pairs(z, [&](int64_t at, int64_t run, int64_t pair) {
      double sum = 0;
      for (int64_t i = 0; i < run; ++i) sum += plan[at + i];
      dcost[size_t(pair)] += real(sum);
    });
  if (!dmarginals.empty())
    for (int64_t i = 0; i < n; ++i)
      if (!(log && v.marginal[i] == 0)) dmarginals[size_t(i)] += real(a.da[size_t(i)]);
}

}  // namespace decalign::inline DECALIGN_REAL
