#include <cmath>
#include <limits>

#include "kernels/cpu/sinkhorn_solver.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace transport;

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
  for (int64_t i = 0; i < n; ++i) usable &= v.q[i] > 1 / kUsable && v.q[i] < kUsable;
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

}  // namespace

size_t sinkhorn_scratch_bytes(const Cpu&, const SinkhornShape& s) {
  return scratch_bytes(sizes(s));
}

void sinkhorn_forward(const Cpu& be, const SinkhornShape& s, In cost, In marginals,
                      std::span<double> scalings, Out value, Out report, Scratch scratch) {
  const Sizes z = sizes(s);
  check_sinkhorn(s, cost, marginals, std::ssize(scalings), report, value, scratch,
                 scratch_bytes(z));
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

}  // namespace decalign::inline DECALIGN_REAL
