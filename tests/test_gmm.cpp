// Diagonal Gaussian mixtures by EM.
#include <array>

#include "autograd/gmm.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

struct Reference {
  Doubles weights, means, covariances, posteriors, marginals;
  double likelihood = 0;
};

// Squared Mahalanobis length of e and log determinant under a covariance, by elimination; a
// diagonal one has d elements.
std::array<double, 2> whitened(const double* sigma, Doubles e, bool full) {
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

Reference reference(In x, int64_t B, int64_t d, const GmmOptions& o,
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

int64_t covariance_size(const GmmShape& s) {
  return s.options.covariance == GmmCovariance::full ? s.width * s.width : s.width;
}

// The kernel, forward and backward with random cotangents, outputs guarded.
Result run(const Device& device, const GmmShape& s, In x) {
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

void require_formulas(const Device& device, const GmmShape& s, const Values& x) {
  const size_t M = size_t(s.modalities), K = size_t(s.options.components);
  const Result got = run(device, s, x);
  for (size_t m = 0; m < M; ++m) {
    const auto part = [&](const Values& v) {
      return In(v).subspan(v.size() / M * m, v.size() / M);
    };
    const Reference want =
        reference(part(x), s.batch, s.width, s.options, std::span(got.choice).subspan(m * K, K));
    // d^2 / v amplifies: the variance floor is 1e-4, a full covariance's condition up to 1e4
    const double ulps =
        sizeof(real) == 8 && s.options.covariance == GmmCovariance::full ? 1e6 : 2e3;
    require_close(part(got.weights), want.weights, ulps);
    require_close(part(got.means), want.means, ulps);
    require_close(part(got.covariances), want.covariances, ulps);
    require_close(part(got.posteriors), want.posteriors, ulps);
    require_close(part(got.marginals), want.marginals, ulps);
    require_close(part(got.likelihood), {want.likelihood}, ulps);
  }
}

}  // namespace

TEST_CASE("gmm: matches the formulas at every size", "[kernels][gmm]") {
  for (GmmInit init : {GmmInit::linspace, GmmInit::kmeanspp})
    for (const auto& [B, d, K] : std::vector<std::array<int64_t, 3>>{
             {32, 40, 7}, {33, 7, 6}, {1, 5, 7}, {3, 2, 7}, {7, 1, 7}, {8, 33, 1}}) {
      GmmShape s{2, B, d, {}};
      s.options.components = K;
      s.options.init = init;
      for (const Device& device : devices())
        require_formulas(device, s, uniform(2 * B * d, -1, 1, unsigned(B)));
    }
}

TEST_CASE("gmm: full covariances match the formulas at every size", "[kernels][gmm]") {
  for (GmmInit init : {GmmInit::linspace, GmmInit::kmeanspp})
    for (const auto& [B, d, K] : std::vector<std::array<int64_t, 3>>{
             {32, 40, 7}, {33, 7, 6}, {1, 5, 7}, {3, 2, 7}, {7, 1, 7}, {129, 33, 2}}) {
      GmmShape s{2, B, d, {}};
      s.options.components = K;
      s.options.init = init;
      s.options.covariance = GmmCovariance::full;
      s.options.iterations = 3;
      for (const Device& device : devices())
        require_formulas(device, s, uniform(2 * B * d, -1, 1, unsigned(B)));
    }
}

// Sizes at which a GPU keeps some, or none, of its arrays in shared memory.
TEST_CASE("gmm: matches the formulas where much memory is needed", "[kernels][gmm]") {
  for (const auto& [B, d, K] :
       std::vector<std::array<int64_t, 3>>{{500, 40, 7}, {40, 40, 33}, {9, 130, 80}}) {
    GmmShape s{1, B, d, {}};
    s.options.components = K;
    s.options.iterations = 2;
    for (const Device& device : devices())
      require_formulas(device, s, uniform(B * d, -1, 1, unsigned(B)));
  }
}

// In double inside, so that a backend's results are the host's but for the last rounding.
TEST_CASE("gmm: every backend gives the host's start rows, values and gradients",
          "[kernels][gmm]") {
  for (GmmInit init : {GmmInit::linspace, GmmInit::kmeanspp})
    for (const auto& [B, d, K, iterations] : std::vector<std::array<int64_t, 4>>{{32, 40, 8, 5},
                                                                                 {33, 17, 16, 3},
                                                                                 {7, 3, 3, 5},
                                                                                 {1, 5, 2, 2},
                                                                                 {9, 2, 1, 0},
                                                                                 {65, 33, 33, 1},
                                                                                 {500, 20, 3, 1},
                                                                                 {7, 130, 81, 1}}) {
      const int64_t M = B * K > 512 ? 1 : 2;
      GmmShape s{M, B, d, {}};
      s.options.components = K;
      s.options.iterations = iterations;
      s.options.init = init;
      s.options.seed = uint64_t(K) << 30;
      if (K > 2) s.options.random = &on_devices(RandomState{5, uint64_t(B)});
      const Values x = uniform(M * B * d, -1, 1, unsigned(B + 1));
      const Result want = run(Device(Cpu{1}), s, x);
      for (const Device& device : devices()) {
        const Result got = run(device, s, x);
        REQUIRE(got.choice == want.choice);
        const auto same = [](const Values& a, const Values& b) {
          const double ulps = sizeof(real) == 4 ? 4 : 1e6;  // 1e6: EM and 1 / v amplify
          require_close(a, Doubles(b.begin(), b.end()), ulps);
        };
        same(got.weights, want.weights);
        same(got.means, want.means);
        same(got.covariances, want.covariances);
        same(got.likelihood, want.likelihood);
        same(got.posteriors, want.posteriors);
        same(got.marginals, want.marginals);
        same(got.dx, want.dx);
      }
    }
}

TEST_CASE("gmm: every backend gives the host's full covariances and gradients", "[kernels][gmm]") {
  for (const GmmGradient gradient : {GmmGradient::every_step, GmmGradient::last_step})
    for (const auto& [B, d, K, iterations] : std::vector<std::array<int64_t, 4>>{
             {32, 40, 7, 2}, {33, 17, 5, 3}, {1, 5, 2, 2}, {9, 3, 2, 0}, {65, 33, 3, 1}}) {
      GmmShape s{2, B, d, {}};
      s.options.components = K;
      s.options.iterations = iterations;
      s.options.covariance = GmmCovariance::full;
      s.options.gradient = gradient;
      const Values x = uniform(2 * B * d, -1, 1, unsigned(B + 1));
      const Result want = run(Device(Cpu{1}), s, x);
      double largest = 0;
      for (const real e : want.dx) largest = std::max(largest, std::abs(double(e)));
      for (const Device& device : devices()) {
        const Result got = run(device, s, x);
        const double ulps = sizeof(real) == 4 ? 8 : 1e8;  // 1e8: the condition, in every step
        require_close(got.covariances, Doubles(want.covariances.begin(), want.covariances.end()),
                      ulps);
        require_close(got.posteriors, Doubles(want.posteriors.begin(), want.posteriors.end()),
                      ulps);
        require_close(got.dx, Doubles(want.dx.begin(), want.dx.end()), ulps, largest);
      }
    }
}

TEST_CASE("gmm: start rows", "[kernels][gmm]") {
  for (const Device& device : devices()) {
    const auto rows = [&](int64_t B, int64_t K, GmmInit init, uint64_t seed = 0) {
      GmmShape s{1, B, 2, {}};
      s.options.components = K;
      s.options.init = init;
      s.options.seed = seed;
      return run(device, s, uniform(2 * B, -1, 1)).choice;
    };
    using V = std::vector<int32_t>;
    REQUIRE(rows(7, 7, GmmInit::linspace) == V{0, 1, 2, 3, 4, 5, 6});
    REQUIRE(rows(16, 7, GmmInit::linspace) ==
            V{0, 2, 5, 8, 10, 12, 15});  // 2.5, 7.5, 12.5: ties to even
    REQUIRE(rows(32, 7, GmmInit::linspace) == V{0, 5, 10, 16, 21, 26, 31});
    REQUIRE(rows(9, 1, GmmInit::linspace) == V{0});
    REQUIRE(rows(3, 7, GmmInit::linspace) == V{0, 1, 2, 0, 1, 2, 0});
    REQUIRE(rows(3, 7, GmmInit::kmeanspp) == V{0, 1, 2, 0, 1, 2, 0});
    // PyTorch's float linspace misses the tie 58.5 -> 58 of exact arithmetic in one of these rows.
    REQUIRE(rows(118, 15, GmmInit::linspace) ==
            V{0, 8, 17, 25, 33, 42, 50, 59, 67, 75, 84, 92, 100, 109, 117});
    V seen = rows(33, 33, GmmInit::kmeanspp, 5);  // distinct rows are drawn once each
    REQUIRE(seen == rows(33, 33, GmmInit::kmeanspp, 5));
    REQUIRE(seen != rows(33, 33, GmmInit::kmeanspp, 6));
    std::sort(seen.begin(), seen.end());
    for (int32_t i = 0; i < 33; ++i) REQUIRE(seen[size_t(i)] == i);
  }
}

TEST_CASE("gmm: degenerate batches stay finite", "[kernels][gmm]") {
  for (double scale : {0.0, 1e-15, 1e-12, 1.0, 1e4, 1e15})
    for (int64_t B : {1, 5, 12})
      for (int kind = 0; kind < 4; ++kind) {
        GmmShape s{2, B, 4, {}};
        s.options.init = kind % 2 ? GmmInit::kmeanspp : GmmInit::linspace;
        if (kind == 2) s.options.covariance = GmmCovariance::full;
        if (kind == 3) s.options.arithmetic = GmmArithmetic::products;
        INFO("scale " << scale << ", rows " << B << ", kind " << kind);
        Values x = uniform(2 * B * 4, -scale, scale);
        for (size_t i = 4; i < x.size(); ++i)
          if (B == 12) x[i] = x[i % 4];  // every row the same
        for (const Device& device : devices()) {
          const Result r = run(device, s, x);
          for (const Values* v : {&r.weights, &r.means, &r.covariances, &r.posteriors, &r.marginals,
                                  &r.likelihood, &r.dx})
            for (real e : *v) REQUIRE(std::isfinite(e));
          double sum = 0;
          for (real e : r.marginals) sum += double(e);
          REQUIRE(close(sum, 2, 64));
        }
      }
}

// Clusters of unit width at distances of 8; rows alternate between them.
Values clusters(int64_t rows, int64_t d, int64_t K, unsigned seed) {
  const Values centres = uniform(K * d, -8, 8, seed);
  Values x = uniform(rows * d, -1.7, 1.7, seed + 1);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] += centres[i / size_t(d) % size_t(K) * size_t(d) + i % size_t(d)];
  return x;
}

TEST_CASE("gmm: large samples match the formulas", "[kernels][gmm]") {
  struct Case {
    int64_t B, d, K;
    GmmOptions options;
  };
  GmmOptions full, products;
  full.covariance = GmmCovariance::full;
  products.arithmetic = GmmArithmetic::products;
  for (Case c : {Case{1000, 9, 3, full}, Case{513, 33, 2, full}, Case{5000, 9, 7, products},
                 Case{2017, 17, 33, products}, Case{120, 3, 1, products}}) {
    c.options.components = c.K;
    c.options.iterations = 2;
    const GmmShape s{1, c.B, c.d, c.options};
    const Values x = clusters(c.B, c.d, c.K, 5);
    for (const Device& device : devices()) {
      const Result got = run(device, s, x);
      const Reference want = reference(x, c.B, c.d, c.options, got.choice);
      // products: posteriors see logits of some hundred, of which float has five digits left
      const double ulps = c.options.covariance == GmmCovariance::full ? 2e4 : 1e4;
      require_close(got.weights, want.weights, ulps);
      require_close(got.means, want.means, ulps);
      require_close(got.covariances, want.covariances, ulps);
      require_close(got.posteriors, want.posteriors, ulps);
      require_close(got.marginals, want.marginals, ulps);
      require_close(got.likelihood, {want.likelihood}, ulps);
    }
    const Result one = run(Device(Cpu{1}), s, x), five = run(Device(Cpu{5}), s, x);
    REQUIRE((one.dx == five.dx && one.covariances == five.covariances));
  }
}

// By default a cluster's mean and variance are what its rows say, wherever it lies.
TEST_CASE("gmm: a large sample of clusters a thousand widths apart", "[kernels][gmm]") {
  const int64_t B = 4200, d = 8, K = 8;
  GmmShape s{1, B, d, {}};
  s.options.components = K;
  s.options.iterations = 4;
  const Values centres = uniform(K * d, -1000, 1000, 4);
  Values x = uniform(B * d, -1, 1, 5);
  const auto cluster = [&](int64_t row) { return row * K / B; };  // of each, one row is a start
  for (int64_t i = 0; i < B * d; ++i) x[size_t(i)] += centres[size_t(cluster(i / d) * d + i % d)];
  std::vector<double> mean(size_t(K * d), 0.0), variance(size_t(K * d), 0.0);
  const double rows = double(B) / double(K);
  for (int64_t i = 0; i < B * d; ++i)
    mean[size_t(cluster(i / d) * d + i % d)] += double(x[size_t(i)]) / rows;
  for (int64_t i = 0; i < B * d; ++i) {
    const size_t at = size_t(cluster(i / d) * d + i % d);
    variance[at] += std::pow(double(x[size_t(i)]) - mean[at], 2) / rows;
  }
  const Result got = run(Device(Cpu{1}), s, x);
  require_close(got.means, mean, 4, 0);
  require_close(got.covariances, variance, sizeof(real) == 8 ? 1e4 : 4, 0);
}

TEST_CASE("gmm: outputs that are not asked for are left out", "[kernels][gmm]") {
  for (const auto& [covariance, arithmetic] :
       {std::pair{GmmCovariance::diagonal, GmmArithmetic::direct},
        std::pair{GmmCovariance::diagonal, GmmArithmetic::products},
        std::pair{GmmCovariance::full, GmmArithmetic::direct}}) {
    GmmShape s{2, 20, 3, {}};
    s.options.components = 4;
    s.options.covariance = covariance;
    s.options.arithmetic = arithmetic;
    const Values x = uniform(120, -1, 1);
    for (const Device& device : devices()) {
      const Result want = run(device, s, x);
      Guarded w(8), mu(24), v(8 * covariance_size(s)), ll(2);
      Shared<int32_t> choice(8);
      device.run([&](const auto& be) {
        Workspace state(gmm_state_bytes(be, s));
        gmm_forward(be, s, x, w.span(), mu.span(), v.span(), {}, {}, {}, choice, state.span());
        gmm_forward(be, s, x, w.span(), mu.span(), v.span(), {}, {}, ll.span(), choice,
                    state.span());
      });
      device.wait();
      REQUIRE((w.intact() && mu.intact() && v.intact() && ll.intact()));
      REQUIRE((w.values() == want.weights && mu.values() == want.means));
      REQUIRE((v.values() == want.covariances && ll.values() == want.likelihood));
    }
  }
}

// Samples, found by search, in which a component loses all of its rows.
GmmShape emptying(Values& x, bool second) {
  GmmShape s{1, 6, 2, {}};
  s.options.components = second ? 6 : 4;
  s.options.iterations = second ? 16 : 8;
  s.options.covariance = GmmCovariance::full;
  x = uniform(12, -1, 1, second ? 4437 : 7949);
  for (real& e : x) e = 8 * e * e * e;
  return s;
}

TEST_CASE("gmm: a full component without rows keeps its parameters", "[kernels][gmm]") {
  for (const bool second : {false, true}) {
    Values x;
    const GmmShape s = emptying(x, second);
    for (const Device& device : devices()) {
      const Result got = run(device, s, x);
      REQUIRE(double(*std::min_element(got.weights.begin(), got.weights.end())) < 1.1e-6 / 6);
      require_formulas(device, s, x);
    }
  }
}

TEST_CASE("gmm: every run and thread count gives the same bits", "[kernels][gmm]") {
  const GmmShape s{3, 33, 40, {}};
  const Values x = uniform(3 * 33 * 40, -1, 1);
  Bits bits;
  for (const Device& device : devices()) {
    const Result r = run(device, s, x);
    bits.require(device, {r.posteriors, r.covariances, r.likelihood, r.dx});
  }
  REQUIRE(run(Device(Cpu{5}), s, x).dx == run(Device(Cpu{1}), s, x).dx);
}

TEST_CASE("gmm: sizes that do not fit throw", "[autograd][gmm][errors]") {
  for (const Device& device : devices()) {
    Tape tape(device);
    Values x(24);
    GmmOptions o;
    o.components = 0;
    REQUIRE_THROWS_AS(gmm(tape, tape.leaf({2, 3, 4}, x), o), std::invalid_argument);
    REQUIRE_THROWS_AS(gmm(tape, tape.leaf({24}, x), {}), std::invalid_argument);
    REQUIRE_THROWS_AS(gmm(tape, tape.leaf({2, 0, 4}, {}), {}), std::invalid_argument);
    const GmmShape s{2, 3, 4, {}};
    Values post(48), small(16), table(64);
    Shared<int32_t> choice(16);
    device.run([&](const auto& be) {
      Workspace state(gmm_state_bytes(be, s));
      const auto forward = [&](In in, Out posteriors, Scratch room) {
        gmm_forward(be, s, in, small, table, table, posteriors, small, {}, choice, room);
      };
      REQUIRE_THROWS_AS(forward(In(x).first(23), post, state.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(x, Out(post).first(47), state.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(x, post, state.span().first(64)), std::invalid_argument);
      REQUIRE_THROWS_AS(gmm_backward(be, s, x, choice, small, table, table, post, small, {},
                                     InOut(x).first(23), state.span()),
                        std::invalid_argument);
    });
  }
}

#ifdef DECALIGN_F64
namespace {

Tensor part_of(const Mixture& m, int part) {
  return std::array{
      m.weights, m.means, m.covariances, m.posteriors, m.marginals, m.log_likelihood}[size_t(part)];
}

}  // namespace

TEST_CASE("gmm: gradient through every EM step", "[autograd][gmm]") {
  struct Case {
    int64_t B, d, K, iterations;
    GmmInit init;
    double scale;
    int kind = 0;  // diagonal, full, products
  };
  const GmmInit even = GmmInit::linspace, drawn = GmmInit::kmeanspp;
  for (const Case& c :
       {Case{8, 3, 3, 5, even, 1}, Case{9, 3, 4, 2, drawn, 1}, Case{3, 2, 5, 3, even, 1},
        Case{1, 3, 2, 2, even, 1}, Case{6, 2, 2, 0, even, 1}, Case{8, 2, 3, 3, even, 0.02},
        Case{12, 3, 3, 5, even, 1, 1}, Case{9, 3, 4, 2, drawn, 1, 1}, Case{3, 2, 5, 3, even, 1, 1},
        Case{1, 3, 2, 2, even, 1, 1}, Case{6, 2, 2, 0, even, 1, 1}, Case{5, 6, 2, 2, even, 1, 1},
        Case{9, 3, 3, 4, even, 1, 2}, Case{3, 2, 5, 3, even, 1, 2}, Case{6, 2, 2, 0, even, 1, 2}})
    for (int part = 0; part < 6; ++part) {
      GmmOptions o;
      o.components = c.K;
      o.iterations = c.iterations;
      o.init = c.init;
      o.ridge = 0.02;
      if (c.kind == 1) o.covariance = GmmCovariance::full;
      if (c.kind == 2) o.arithmetic = GmmArithmetic::products;
      INFO("rows " << c.B << ", kind " << c.kind << ", output " << part);
      for (const Device& device : devices())
        // One thread (all give the same bits), and a GPU once.
        if (&device == &devices().front() || (!device.on_host() && &device == &devices().back()))
          gradcheck(
              device, {{2, c.B, c.d}}, {uniform(2 * c.B * c.d, -c.scale, c.scale, 11)},
              [&](Tape& tape, const std::vector<Tensor>& x) {
                return part_of(gmm(tape, x[0], o), part);
              },
              1e-8, (c.kind == 1 ? 3e-4 : 1e-3) * c.scale);
    }
}

TEST_CASE("gmm: gradient where a full component has lost its rows", "[autograd][gmm]") {
  Values x;
  const GmmShape s = emptying(x, false);
  for (const int part : {1, 2, 5})  // the others hardly move
    gradcheck(
        devices().front(), {{1, 6, 2}}, {x},
        [&](Tape& tape, const std::vector<Tensor>& leaf) {
          return part_of(gmm(tape, leaf[0], s.options), part);
        },
        1e-8, 1e-4);
}

// Of what is left when the posteriors before the last M-step are constants.
TEST_CASE("gmm: gradient through the last step", "[autograd][gmm]") {
  for (int kind = 0; kind < 3; ++kind) {
    GmmOptions o;
    o.components = 3;
    o.iterations = 3;
    o.gradient = GmmGradient::last_step;
    o.ridge = 0.02;
    if (kind == 1) o.covariance = GmmCovariance::full;
    if (kind == 2) o.arithmetic = GmmArithmetic::products;
    const int64_t B = 9, d = 3;
    Values x = uniform(B * d, -1, 1, 4);
    GmmOptions before = o;
    before.iterations = 2;
    Tape plain{Device(Cpu{1}), false};
    const Mixture fixed = gmm(plain, plain.leaf({1, B, d}, x), before);
    for (int part = 0; part < 6; ++part)
      for (const Device& device : devices()) {
        INFO("kind " << kind << ", output " << part);
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
}
#endif
