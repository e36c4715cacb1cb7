// The Hessian of the dual, and Newton steps with it.
#include "kernels/cpu/mot_problem.h"

namespace decalign::inline DECALIGN_REAL::mot_detail {
namespace {

double product(const Problem& p, const double* x, const double* y) {
  double sum = 0;
  for (int64_t i = 0; i < p.M * p.ld; ++i) sum += x[i] * y[i];
  return sum;
}

// y = the modality sums of (sum_m x_m) o T.
void apply_hessian(Problem& p, const double* x, double* y) {
  if (!p.complete) {
    tree_tilt(p, {0, x, nullptr}, p.tilted);
    return modality_sums(p, p.tilted, y);
  }
  for (int64_t i = 0; i < p.M * p.ld; ++i) y[i] = p.reached[i] * x[i];
  for (int64_t e = 0; e < p.pairs; ++e) {
    const MotEdge edge = p.edge(e);
    const double *xi = x + edge.first * p.ld, *xj = x + edge.second * p.ld;
    double *yi = y + edge.first * p.ld, *yj = y + edge.second * p.ld;
    for (int64_t i = 0; i < p.K; ++i) {
      const double* row = p.plan + (e * p.K + i) * p.ld;
      vec<double> sum{};
      for (int64_t j = 0; j < p.ld; j += kDoubles) {
        sum += vload(row + j) * vload(xj + j);
        vstore(yj + j, vload(yj + j) + xi[i] * vload(row + j));
      }
      yi[i] += total<double>(sum);
    }
  }
}

// The dual in units of epsilon at phi, with the plan and its sums.
double dual(Problem& p) {
  tilt(p, {1, nullptr, nullptr}, p.plan);
  modality_sums(p, p.plan, p.reached);
  double sum = 0;
  for (int64_t i = 0; i < p.M * p.ld; ++i)
    if (p.a[i] > 0) sum += p.a[i] * p.phi[i];
  for (int64_t k = 0; k < p.K; ++k) sum -= p.reached[k];
  return sum;
}

// Moves b into the Hessian's range: equal sums for every modality.
void equalise(const Problem& p, double* b) {
  double mean = 0;
  for (int64_t i = 0; i < p.M * p.ld; ++i) mean += b[i] / double(p.M);
  for (int64_t m = 0; m < p.M; ++m) {
    double sum = 0, mass = 0;
    for (int64_t k = 0; k < p.K; ++k) sum += b[m * p.ld + k], mass += p.reached[m * p.ld + k];
    for (int64_t k = 0; k < p.K && mass > 0; ++k)
      b[m * p.ld + k] -= (sum - mean) * p.reached[m * p.ld + k] / mass;
  }
}

}  // namespace

void solve_hessian(Problem& p, double damping, double* b, double* x) {
  const int64_t n = p.M * p.ld;
  double *residual = p.vectors, *scaled = residual + n, *direction = scaled + n,
         *image = direction + n;
  equalise(p, b);
  const auto precondition = [&] {
    for (int64_t i = 0; i < n; ++i)
      scaled[i] = p.reached[i] > 1e-290 ? residual[i] / p.reached[i] : 0;
    return product(p, residual, scaled);
  };
  std::copy_n(b, n, residual);
  std::fill_n(x, n, 0.0);
  double norm = precondition();
  const double start = norm;
  std::copy_n(scaled, n, direction);
  const int64_t limit = std::min<int64_t>(10 * p.M * p.K + 50, 5000);
  for (int64_t step = 0; step < limit && norm > 1e-31 * start; ++step) {
    apply_hessian(p, direction, image);
    for (int64_t i = 0; i < n; ++i) image[i] += damping * p.reached[i] * direction[i];
    const double curvature = product(p, direction, image);
    if (!(curvature > 0)) break;
    const double alpha = norm / curvature;
    for (int64_t i = 0; i < n; ++i) {
      x[i] += alpha * direction[i];
      residual[i] -= alpha * image[i];
    }
    const double before = norm;
    norm = precondition();
    for (int64_t i = 0; i < n; ++i) direction[i] = scaled[i] + norm / before * direction[i];
  }
}

int64_t newton(Problem& p, int64_t steps, double tolerance, double& error) {
  const int64_t n = p.M * p.ld;
  double *b = p.vectors + 4 * n, *x = p.lambda, *start = p.vectors + 5 * n;
  double value = dual(p), damping = 0;
  error = marginal_error(p, p.reached);
  for (int64_t step = 0; step < steps; ++step) {
    if (error <= tolerance || !std::isfinite(value)) return step;
    for (int64_t i = 0; i < n; ++i) b[i] = p.a[i] - p.reached[i];
    solve_hessian(p, damping, b, x);
    const double slope = product(p, b, x), allow = 1e-14 * (1 + std::abs(value));
    std::copy_n(p.q, n, start);
    const auto accepted = [&](double length) {
      for (int64_t i = 0; i < n; ++i) p.q[i] = start[i] + length * x[i];
      update_phi(p);
      const double next = dual(p), now = marginal_error(p, p.reached);
      if (!(next >= value + 1e-4 * length * slope - allow)) return false;
      if (next <= value + allow && now >= error) return false;  // no further in this precision
      value = next;
      error = now;
      return true;
    };
    double length = 1;
    while (length > 0.05 && !accepted(length)) length /= 2;
    if (length == 1) damping = damping > 1e-6 ? damping / 10 : 0;
    if (length > 0.05) continue;
    std::copy_n(start, n, p.q);  // a shorter, steeper step
    update_phi(p);
    dual(p);
    damping = std::max(1e-5, 10 * damping);
    if (damping > 1e3) return step;
  }
  return steps;
}

}  // namespace decalign::inline DECALIGN_REAL::mot_detail
