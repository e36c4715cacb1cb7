// The way back through the transport: sweeps in reverse, or the envelope.
#include <cmath>

#include "kernels/cpu/sinkhorn_solver.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace transport;

struct Adjoint {
  double *dG, *dlogG;        // [N]: d/dG, and what was folded into d/d log G before a rebuild
  double *H, *dR;            // chains
  double *du, *du_old, *ds;  // [M, K]
  double* da;                // [M, K]
};

// The adjoint of one fast sweep. On entry du is d/d(u after it), on exit d/d(u before it).
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

}  // namespace

void sinkhorn_backward(const Cpu& be, const SinkhornShape& s, In cost, In marginals,
                       std::span<const double> scalings, In report, In dvalue, InOut dcost,
                       InOut dmarginals, Scratch scratch) {
  const Sizes z = sizes(s);
  check_sinkhorn(s, cost, marginals, std::ssize(scalings), report, dvalue, scratch,
                 scratch_bytes(z));
  check_sinkhorn_gradients(cost, marginals, dcost, dmarginals);
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
