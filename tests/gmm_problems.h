// Mixtures by the formulas of kernels/gmm.h in double, runs of the kernel in both directions, and
// checks of its gradients.
#pragma once

#include <array>

#include "autograd/gmm.h"
#include "tests/support.h"

namespace decalign::inline DECALIGN_REAL::test::mixtures {

using Doubles = std::vector<double>;

struct Reference {
  Doubles weights, means, covariances, posteriors, marginals;
  double likelihood = 0;
};

// Squared Mahalanobis length of e and log determinant under a covariance, by elimination; a
// diagonal one has d elements.
inline std::array<double, 2> whitened(const double* sigma, Doubles e, bool full) {
  const size_t d = e.size();
  Doubles a(d * d);
  for (size_t i = 0; i < d; ++i)
    for (size_t j = 0; j < d; ++j) a[i * d + j] = full ? sigma[i * d + j] : i == j ? sigma[i] : 0;
  double square = 0, log_det = 0;
  for (size_t p = 0; p < d; ++p) {
    square += e[p] * e[p] / a[p * d + p];
    log_det += std::log(a[p * d + p]);
    for (size_t i = p + 1; i < d; ++i) {
      const double f = a[i * d + p] / a[p * d + p];
      e[i] -= f * e[p];
      for (size_t j = p; j < d; ++j) a[i * d + j] -= f * a[p * d + j];
    }
  }
  return {square, log_det};
}

// One modality by the formulas of kernels/gmm.h, from the given start rows, or with `fixed`
// posteriors [B, K] as the M-step that follows them has it.
struct Definition {
  In x;
  int64_t B, d;
  const GmmOptions& o;
  bool full = o.covariance == GmmCovariance::full;
  int64_t K = o.components, S = full ? d * d : d;
  Reference r{Doubles(size_t(K), 1.0 / double(K)), Doubles(size_t(K* d)), Doubles(size_t(K* S)),
              Doubles(size_t(B* K)), Doubles(size_t(K))};
  double rho = 0;

  double X(int64_t n, int64_t j) const { return double(x[size_t(n * d + j)]); }

  void start(std::span<const int32_t> choice) {
    Doubles mean(size_t(d), 0.0), c(size_t(d * d), 0.0);
    for (int64_t n = 0; n < B; ++n)
      for (int64_t j = 0; j < d; ++j) mean[size_t(j)] += X(n, j) / double(B);
    for (int64_t n = 0; n < B; ++n)
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; ++j)
          c[size_t(i * d + j)] +=
              (X(n, i) - mean[size_t(i)]) * (X(n, j) - mean[size_t(j)]) / double(B);
    rho = o.variance_floor;
    for (int64_t j = 0; j < d; ++j) rho += o.ridge * c[size_t(j * d + j)] / double(d);
    for (int64_t k = 0; k < K && !choice.empty(); ++k)
      for (int64_t i = 0; i < d; ++i) {
        r.means[size_t(k * d + i)] = X(choice[size_t(k)], i);
        for (int64_t j = 0; j < d; ++j)
          if (full)
            r.covariances[size_t(k * S + i * d + j)] = c[size_t(i * d + j)] + (i == j ? rho : 0);
          else if (i == j)
            r.covariances[size_t(k * S + i)] = std::max(c[size_t(i * d + i)], o.variance_floor);
      }
  }
  void expectation() {
    r.likelihood = -0.5 * double(d) * std::log(2 * std::acos(-1.0));
    for (int64_t n = 0; n < B; ++n) {
      Doubles l(size_t(K), 0.0);
      double top = -1e300, sum = 0;
      for (int64_t k = 0; k < K; ++k) {
        Doubles e(size_t(d), 0.0);
        for (int64_t j = 0; j < d; ++j) e[size_t(j)] = X(n, j) - r.means[size_t(k * d + j)];
        const auto [square, log_det] = whitened(r.covariances.data() + k * S, e, full);
        l[size_t(k)] = std::log(std::max(r.weights[size_t(k)], 1e-8)) - 0.5 * (square + log_det);
        top = std::max(top, l[size_t(k)]);
      }
      for (double v : l) sum += std::exp(v - top);
      for (int64_t k = 0; k < K; ++k)
        r.posteriors[size_t(n * K + k)] = std::exp(l[size_t(k)] - top) / sum;
      r.likelihood += (top + std::log(sum)) / double(B);
    }
  }
  void maximisation() {
    for (int64_t k = 0; k < K; ++k) {
      double raw = 0;
      for (int64_t n = 0; n < B; ++n) raw += r.posteriors[size_t(n * K + k)];
      const double count = std::max(raw, 1e-6);
      r.weights[size_t(k)] = count / double(B);
      if (full && raw < 1e-6) continue;
      double* mu = r.means.data() + k * d;
      for (int64_t j = 0; j < d; ++j) {
        mu[j] = 0;
        for (int64_t n = 0; n < B; ++n) mu[j] += r.posteriors[size_t(n * K + k)] * X(n, j) / count;
      }
      for (int64_t i = 0; i < d; ++i)
        for (int64_t j = 0; j < d; ++j) {
          double a = 0;
          for (int64_t n = 0; n < B; ++n)
            a += r.posteriors[size_t(n * K + k)] / count *
                 (full ? (X(n, i) - mu[i]) * (X(n, j) - mu[j]) : X(n, i) * X(n, j));
          if (full)
            r.covariances[size_t(k * S + i * d + j)] = a + (i == j ? rho : 0);
          else if (i == j)
            r.covariances[size_t(k * S + i)] = std::max(a - mu[i] * mu[i], o.variance_floor);
        }
    }
  }
  void marginals() {
    for (int64_t n = 0; n < B; ++n)
      for (int64_t k = 0; k < K; ++k)
        r.marginals[size_t(k)] += r.posteriors[size_t(n * K + k)] / double(B);
  }
};

inline Reference reference(In x, int64_t B, int64_t d, const GmmOptions& o,
                           std::span<const int32_t> choice) {
  Definition f{x, B, d, o};
  f.start(choice);
  for (int64_t step = 0; step < o.iterations; ++step) {
    f.expectation();
    f.maximisation();
  }
  f.expectation();
  f.marginals();
  return f.r;
}

struct Result {
  Values weights, means, covariances, posteriors, marginals, likelihood, dx;
  std::vector<int32_t> choice;
};

inline int64_t covariance_size(const GmmShape& s) {
  return s.options.covariance == GmmCovariance::full ? s.width * s.width : s.width;
}

// The kernel, forward and backward with random cotangents, outputs guarded.
inline Result run(const Device& device, const GmmShape& s, In x) {
  const int64_t M = s.modalities, B = s.batch, K = s.options.components, d = s.width;
  const int64_t C = M * K * covariance_size(s);
  Guarded w(M * K), mu(M * K * d), v(C), post(M * B * K), nu(M * K), ll(M), dx(M * B * d, 0);
  Shared<int32_t> choice(size_t(M * K), -1);
  device.run([&](const auto& be) {
    Workspace state(gmm_state_bytes(be, s));
    gmm_forward(be, s, x, w.span(), mu.span(), v.span(), post.span(), nu.span(), ll.span(), choice,
                state.span());
    gmm_backward(be, s, x, choice, uniform(M * K, -1, 1, 3), uniform(M * K * d, -1, 1, 4),
                 s.options.covariance == GmmCovariance::full ? uniform(C, -1, 1, 8) : Values(),
                 uniform(M * B * K, -1, 1, 5), uniform(M * K, -1, 1, 6), uniform(M, -1, 1, 7),
                 dx.span(), state.span());
  });
  device.wait();
  REQUIRE((w.intact() && mu.intact() && v.intact() && post.intact() && nu.intact() && ll.intact() &&
           dx.intact()));
  return {w.values(),  mu.values(), v.values(),  post.values(),
          nu.values(), ll.values(), dx.values(), {choice.begin(), choice.end()}};
}

// ulps 0: of a sample with components of a width.
inline void require_formulas(const Device& device, const GmmShape& s, const Values& x,
                             double ulps = 0) {
  const size_t M = size_t(s.modalities), K = size_t(s.options.components);
  const Result got = run(device, s, x);
  for (size_t m = 0; m < M; ++m) {
    const auto part = [&](const Values& v) {
      return In(v).subspan(v.size() / M * m, v.size() / M);
    };
    const Reference want =
        reference(part(x), s.batch, s.width, s.options, std::span(got.choice).subspan(m * K, K));
    // d^2 / v amplifies: the variance floor is 1e-4, a full covariance's condition up to 1e4
    if (ulps == 0)
      ulps = sizeof(real) == 8 && s.options.covariance == GmmCovariance::full ? 1e6 : 2e3;
    require_close(part(got.weights), want.weights, ulps);
    require_close(part(got.means), want.means, ulps);
    require_close(part(got.covariances), want.covariances, ulps);
    require_close(part(got.posteriors), want.posteriors, ulps);
    require_close(part(got.marginals), want.marginals, ulps);
    require_close(part(got.likelihood), {want.likelihood}, ulps);
  }
}

// Clusters of unit width at distances of 8; rows alternate between them.
inline Values clusters(int64_t rows, int64_t d, int64_t K, unsigned seed) {
  const Values centres = uniform(K * d, -8, 8, seed);
  Values x = uniform(rows * d, -1.7, 1.7, seed + 1);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] += centres[i / size_t(d) % size_t(K) * size_t(d) + i % size_t(d)];
  return x;
}

#ifdef DECALIGN_F64
inline Tensor part_of(const Mixture& m, int part) {
  return std::array{
      m.weights, m.means, m.covariances, m.posteriors, m.marginals, m.log_likelihood}[size_t(part)];
}

struct GradientCase {
  int64_t B, d, K, iterations;
  GmmInit init = GmmInit::linspace;
  double scale = 1;
};

/// Of every output, through every step; with c's sizes, the rest from `options`.
inline void require_gradient(const GradientCase& c, GmmOptions options, double h) {
  options.components = c.K;
  options.iterations = c.iterations;
  options.init = c.init;
  options.ridge = 0.02;
  for (int part = 0; part < 6; ++part) {
    INFO("rows " << c.B << ", output " << part);
    for (const Device& device : devices())
      // One thread (all give the same bits), and a GPU once.
      if (&device == &devices().front() || (!device.on_host() && &device == &devices().back()))
        gradcheck(
            device, {{2, c.B, c.d}}, {uniform(2 * c.B * c.d, -c.scale, c.scale, 11)},
            [&](Tape& tape, const std::vector<Tensor>& x) {
              return part_of(gmm(tape, x[0], options), part);
            },
            1e-8, h * c.scale);
  }
}

/// Of what is left when the posteriors before the last M-step are constants.
inline void require_last_step_gradient(GmmOptions o) {
  o.components = 3;
  o.iterations = 3;
  o.gradient = GmmGradient::last_step;
  o.ridge = 0.02;
  const int64_t B = 9, d = 3;
  Values x = uniform(B * d, -1, 1, 4);
  GmmOptions before = o;
  before.iterations = 2;
  Tape plain{Device(Cpu{1}), false};
  const Mixture fixed = gmm(plain, plain.leaf({1, B, d}, x), before);
  for (int part = 0; part < 6; ++part)
    for (const Device& device : devices()) {
      INFO("output " << part);
      Values dx(x.size(), 0);
      Tape tape(device);
      const Tensor y = part_of(gmm(tape, tape.leaf({1, B, d}, x, dx), o), part);
      const Values weight = uniform(y.size(), -1, 1, 2);
      tape.backward(y, weight);
      device.wait();
      const auto at = [&](size_t i, double step) {
        Values moved = x;
        moved[i] += real(step);
        Definition f{moved, B, d, o};
        f.start({});
        f.r.posteriors.assign(fixed.posteriors.value.begin(), fixed.posteriors.value.end());
        f.maximisation();
        f.expectation();
        f.marginals();
        const Doubles value =
            std::array{f.r.weights,    f.r.means,     f.r.covariances,
                       f.r.posteriors, f.r.marginals, Doubles{f.r.likelihood}}[size_t(part)];
        double sum = 0;
        for (size_t e = 0; e < value.size(); ++e) sum += double(weight[e]) * value[e];
        return sum;
      };
      double largest = 1e-6;
      for (const real e : dx) largest = std::max(largest, std::abs(double(e)));
      for (size_t i = 0; i < x.size(); ++i) {
        const auto slope = [&](double h) { return (at(i, h) - at(i, -h)) / (2 * h); };
        const double want = (4 * slope(5e-5) - slope(1e-4)) / 3;
        REQUIRE(std::abs(double(dx[i]) - want) <= 1e-8 * largest);
      }
    }
}
#endif

}  // namespace decalign::inline DECALIGN_REAL::test::mixtures
