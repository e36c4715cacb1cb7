// Multi-marginal transport: sweeps, options and value; gradients.
#include "kernels/mot.h"

#include "kernels/cpu/mot_problem.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace mot_detail;

int64_t sweep(Problem& p, int64_t sweeps, double tolerance, double* store) {
  if (p.complete && p.M == 3) return paired_sweeps(p, sweeps, tolerance, store);
  double* sums = p.vectors;
  for (int64_t t = 0; t < sweeps; ++t) {
    p.slices.range = Slices::unknown;
    for (int64_t place = 0; place < p.M; ++place) {
      const int64_t m = p.complete ? place : p.tree.order[place];
      log_contraction(p, m, sums);
      set_potential(p, m, sums);
    }
    p.start = false;
    for (int64_t m = 0; m < p.M && store != nullptr; ++m)
      std::copy_n(p.q + m * p.ld, p.K, store + (t * p.M + m) * p.K);
    if (tolerance == 0) continue;
    double error = 0;
    for (int64_t m = 0; m < p.M; ++m) {
      log_contraction(p, m, sums);
      for (int64_t k = 0; k < p.K; ++k)
        error += std::abs(std::exp(p.phi[m * p.ld + k] + sums[k]) - p.a[m * p.ld + k]);
    }
    if (error <= tolerance) return t + 1;
  }
  return sweeps;
}

// f stays what it is while epsilon goes from one heat to another.
void reheat(Problem& p, double heat) {
  const double ratio = heat / p.heat;
  p.heat = heat;
  if (!p.start)
    for (int64_t i = 0; i < p.M * p.ld; ++i)
      p.q[i] = ratio * p.q[i] + (p.a[i] > 0 ? (ratio - 1) * p.log_a[i] : 0);
  if (!p.start) update_phi(p);
}

struct Outcome {
  double value, mass, error;
  int64_t sweeps, newton_steps;
};

Outcome solve(Problem& p, double* state) {
  const MotOptions& o = p.s.options;
  const bool unrolled = o.gradient == MotGradient::unrolled;
  Outcome r{};
  for (int64_t h = o.halvings; h > 0; --h) {
    reheat(p, std::ldexp(1.0, -int(h)));
    r.sweeps += sweep(p, std::min<int64_t>(3, o.max_sweeps - r.sweeps), 0, nullptr);
  }
  reheat(p, 1);
  r.sweeps += sweep(p, o.max_sweeps - r.sweeps, o.tolerance, unrolled ? state : nullptr);
  if (o.newton_steps > 0 && !p.start) {
    r.newton_steps = newton(p, o.newton_steps, o.tolerance, r.error);
  } else {
    tilt(p, {1, nullptr, nullptr}, p.plan);
    modality_sums(p, p.plan, p.reached);
    r.error = marginal_error(p, p.reached);
  }
  const double* weight = o.value == MotValue::dual ? p.a : p.reached;
  for (int64_t k = 0; k < p.K; ++k) r.mass += p.reached[k];
  for (int64_t i = 0; i < p.M * p.ld; ++i)
    if (weight[i] > 0 && std::isfinite(p.phi[i])) r.value += weight[i] * p.phi[i];
  r.value = p.epsilon * (r.value - r.mass);
  for (int64_t m = 0; m < p.M && !unrolled; ++m) std::copy_n(p.q + m * p.ld, p.K, state + m * p.K);
  return r;
}

// Where the gradients of one problem go; null: nowhere.
struct Gradients {
  real *dcost, *dmarginals, *depsilon;
};

// In units of epsilon, of J = g V + l(pairs) with g = epsilon dvalue: dcost [pairs, K, ld],
// da [M, ld].
struct Adjoints {
  double *dcost, *da, *dphi;
};

// D, lambda -> d/dC and d/dphi of what depends on T by Gbar = sum D + sum lambda.
void through_plan(Problem& p, const Tilt& t, const Adjoints& x) {
  tilt(p, t, p.tilted);
  for (int64_t i = 0; i < p.pairs * p.K * p.ld; ++i) x.dcost[i] -= p.tilted[i];
  modality_sums(p, p.tilted, p.z);
  for (int64_t i = 0; i < p.M * p.ld; ++i) x.dphi[i] += p.z[i];
}

void converged(Problem& p, double g, const double* D, const Adjoints& x) {
  const int64_t n = p.M * p.ld;
  for (int64_t i = 0; i < p.pairs * p.K * p.ld; ++i) x.dcost[i] = g * p.plan[i];
  for (int64_t i = 0; i < n; ++i) x.da[i] = p.a[i] > 0 ? g * p.phi[i] : 0;
  std::fill_n(x.dphi, n, 0.0);
  if (D != nullptr) {
    through_plan(p, {0, nullptr, D}, x);
    solve_hessian(p, 0, x.dphi, p.lambda);
    tilt(p, {0, p.lambda, nullptr}, p.tilted);
    for (int64_t i = 0; i < p.pairs * p.K * p.ld; ++i) x.dcost[i] += p.tilted[i];
    for (int64_t i = 0; i < n; ++i) x.da[i] += p.a[i] > 0 ? p.lambda[i] : 0;
  }
  for (int64_t m = 0; m < p.M; ++m) {
    double mean = 0, mass = 0;
    for (int64_t k = 0; k < p.K; ++k) {
      mean += p.a[m * p.ld + k] * x.da[m * p.ld + k];
      mass += p.a[m * p.ld + k];
    }
    for (int64_t k = 0; k < p.K && mass > 0; ++k) x.da[m * p.ld + k] -= mean / mass;
  }
}

void unrolled(Problem& p, const double* state, int64_t sweeps, double g, const double* D,
              const Adjoints& x) {
  const int64_t n = p.M * p.ld;
  const bool primal = p.s.options.value == MotValue::primal;
  for (int64_t i = 0; i < p.pairs * p.K * p.ld; ++i) x.dcost[i] = g * p.plan[i];
  for (int64_t i = 0; i < n; ++i) {
    x.da[i] = primal || !(p.a[i] > 0) ? 0 : g * p.phi[i];
    x.dphi[i] = primal ? 0 : g * (p.a[i] - p.reached[i]);
    p.lambda[i] = primal && std::isfinite(p.phi[i]) ? g * p.phi[i] : 0;
  }
  if (primal || D != nullptr) through_plan(p, {0, primal ? p.lambda : nullptr, D}, x);
  unroll(p, state, sweeps, x.dphi, x.dcost, x.da);
}

void back(Problem& p, const double* state, int64_t sweeps, double dvalue, const real* dpairs,
          const Adjoints& x, const Gradients& to) {
  const MotOptions& o = p.s.options;
  const double g = p.epsilon * dvalue;
  const bool all = o.gradient == MotGradient::unrolled;
  const int64_t rows = p.pairs * p.K;
  if (sweeps > 0) load_state(p, state, all ? sweeps - 1 : 0, p.M);
  tilt(p, {1, nullptr, nullptr}, p.plan);
  modality_sums(p, p.plan, p.reached);
  double value = 0;
  const double* weight = o.value == MotValue::dual ? p.a : p.reached;
  for (int64_t i = 0; i < p.M * p.ld; ++i)
    if (weight[i] > 0 && std::isfinite(p.phi[i])) value += weight[i] * p.phi[i];
  for (int64_t k = 0; k < p.K; ++k) value -= p.reached[k];
  const double* D = nullptr;
  if (dpairs != nullptr) {
    for (int64_t i = 0; i < rows * p.ld; ++i)
      p.D[i] = i % p.ld < p.K ? double(dpairs[i / p.ld * p.K + i % p.ld]) : 0;
    D = p.D;
  }
  if (all)
    unrolled(p, state, sweeps, g, D, x);
  else
    converged(p, g, D, x);
  double inner = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t j = 0; j < p.K; ++j) {
      const double d = x.dcost[row * p.ld + j];
      inner += d * p.cost[row * p.ld + j];
      if (to.dcost != nullptr) to.dcost[row * p.K + j] += real(d / p.epsilon);
    }
  for (int64_t m = 0; m < p.M && to.dmarginals != nullptr; ++m)
    for (int64_t k = 0; k < p.K; ++k)
      if (p.a[m * p.ld + k] > 0) to.dmarginals[m * p.K + k] += real(x.da[m * p.ld + k]);
  // Value and plan depend on C / epsilon, the value in proportion to epsilon.
  if (to.depsilon != nullptr) *to.depsilon += real(dvalue * value - inner / p.epsilon);
}

Problem lay_out_both(const Cpu& be, const MotShape& s, Arena& arena, Adjoints& x) {
  Problem p = lay_out(be, s, arena);
  x.dcost = arena.take<double>(p.pairs * p.K * p.ld);
  x.da = arena.take<double>(p.M * p.ld);
  x.dphi = arena.take<double>(p.M * p.ld);
  return p;
}

size_t bytes_each(const MotShape& s) {
  Arena arena{nullptr};
  Adjoints x{};
  lay_out_both(Cpu{1}, s, arena, x);
  return arena.used;
}

// As many problems at a time as there are threads; few are solved one after the other.
int64_t slots(const Cpu& be, const MotShape& s) {
  const int64_t threads = thread_count(be);
  return s.batch >= threads ? std::max<int64_t>(threads, 1) : 1;
}

// f(problem, its adjoints, i) for every problem of the batch.
template <class F>
void for_problems(const Cpu& be, const MotShape& s, Scratch scratch, F&& f) {
  const int64_t parts = slots(be, s), each = int64_t(bytes_each(s));
  if (s.batch > 0 && s.graph == CostGraph::tree) {  // throws here, not in a thread
    Arena arena{scratch.data()};
    Problem p = lay_out(be, s, arena);
    tree_prepare(p);
  }
  parallel_for(parts > 1 ? be : Cpu{1}, parts, [&](int64_t part) {
    Arena arena{scratch.data() + part * each};
    Adjoints x{};
    Problem p = lay_out_both(parts > 1 ? Cpu{1} : be, s, arena, x);
    for (int64_t i = part; i < s.batch; i += parts) f(p, x, i);
  });
}

}  // namespace

int64_t mot_state_size(const MotShape& s) {
  const bool all = s.options.gradient == MotGradient::unrolled;
  return s.batch * s.modalities * s.components * (all ? s.options.max_sweeps : 1);
}

size_t mot_scratch_bytes(const Cpu& be, const MotShape& s) {
  check_mot_shape(s);
  return bytes_each(s) * size_t(slots(be, s));
}

void mot_forward(const Cpu& be, const MotShape& s, In cost, In marginals, std::span<double> state,
                 Out value, Out pairs, Out report, Scratch scratch) {
  check_mot(s, cost, marginals, std::ssize(state), report, scratch, mot_scratch_bytes(be, s));
  check_mot_forward(s, cost, value, pairs);
  const int64_t n = s.modalities * s.components, c = s.pairs() * s.components * s.components,
                each = s.batch > 0 ? std::ssize(state) / s.batch : 0;
  for_problems(be, s, scratch, [&](Problem& p, const Adjoints&, int64_t i) {
    read_problem(p, cost.data() + i * c, marginals.data() + i * n);
    const Outcome r = solve(p, state.data() + i * each);
    value[size_t(i)] = real(r.value);
    const double numbers[] = {r.mass, r.error, double(r.sweeps), double(r.newton_steps)};
    for (size_t j = 0; j < 4; ++j) report[size_t(i) * 4 + j] = real(numbers[j]);
    if (pairs.empty()) return;
    for (int64_t row = 0; row < p.pairs * p.K; ++row)
      for (int64_t j = 0; j < p.K; ++j)
        pairs[size_t(i * c + row * p.K + j)] = real(p.plan[row * p.ld + j]);
  });
}

void mot_backward(const Cpu& be, const MotShape& s, In cost, In marginals,
                  std::span<const double> state, In report, In dvalue, In dpairs, InOut dcost,
                  InOut dmarginals, InOut depsilon, Scratch scratch) {
  check_mot(s, cost, marginals, std::ssize(state), report, scratch, mot_scratch_bytes(be, s));
  check_mot_backward(s, cost, marginals, dvalue, dpairs, dcost, dmarginals, depsilon);
  const int64_t n = s.modalities * s.components, c = s.pairs() * s.components * s.components,
                each = s.batch > 0 ? std::ssize(state) / s.batch : 0;
  const auto part = [](auto span, int64_t at) { return span.empty() ? nullptr : span.data() + at; };
  for_problems(be, s, scratch, [&](Problem& p, const Adjoints& x, int64_t i) {
    read_problem(p, cost.data() + i * c, marginals.data() + i * n);
    back(p, state.data() + i * each, int64_t(report[size_t(i) * 4 + 2]),
         dvalue.empty() ? 0 : double(dvalue[size_t(i)]), part(dpairs, i * c), x,
         {part(dcost, i * c), part(dmarginals, i * n), part(depsilon, i)});
  });
}

}  // namespace decalign::inline DECALIGN_REAL
