// Diagonal Gaussian mixtures by EM.
#include <array>

#include "autograd/gmm.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

struct Reference {
  Doubles weights, means, variances, posteriors, marginals;
};

// One modality, from the given start rows, by the formulas of kernels/gmm.h.
Reference reference(In x, int64_t B, int64_t d, const GmmOptions& o,
                    std::span<const int32_t> choice) {
  const int64_t K = o.components;
  const auto X = [&](int64_t n, int64_t j) { return double(x[size_t(n * d + j)]); };
  Reference r{Doubles(size_t(K), 1.0 / double(K)), Doubles(size_t(K * d)), Doubles(size_t(K * d)),
              Doubles(size_t(B * K)), Doubles(size_t(K))};
  for (int64_t k = 0; k < K; ++k)
    for (int64_t j = 0; j < d; ++j) {
      double mean = 0, v = 0;
      for (int64_t n = 0; n < B; ++n) mean += X(n, j) / double(B);
      for (int64_t n = 0; n < B; ++n) v += (X(n, j) - mean) * (X(n, j) - mean) / double(B);
      r.means[size_t(k * d + j)] = X(choice[size_t(k)], j);
      r.variances[size_t(k * d + j)] = std::max(v, o.variance_floor);
    }
  for (int64_t step = 0;; ++step) {
    for (int64_t n = 0; n < B; ++n) {
      Doubles l(size_t(K), 0.0);
      double top = -1e300, sum = 0;
      for (int64_t k = 0; k < K; ++k) {
        double q = 0;
        for (int64_t j = 0; j < d; ++j) {
          const double e = X(n, j) - r.means[size_t(k * d + j)], v = r.variances[size_t(k * d + j)];
          q += e * e / v + std::log(v);
        }
        l[size_t(k)] = std::log(std::max(r.weights[size_t(k)], 1e-8)) - 0.5 * q;
        top = std::max(top, l[size_t(k)]);
      }
      for (double v : l) sum += std::exp(v - top);
      for (int64_t k = 0; k < K; ++k)
        r.posteriors[size_t(n * K + k)] = std::exp(l[size_t(k)] - top) / sum;
    }
    if (step == o.iterations) break;
    for (int64_t k = 0; k < K; ++k) {
      double count = 0;
      for (int64_t n = 0; n < B; ++n) count += r.posteriors[size_t(n * K + k)];
      count = std::max(count, 1e-6);
      r.weights[size_t(k)] = count / double(B);
      for (int64_t j = 0; j < d; ++j) {
        double a = 0, b = 0;
        for (int64_t n = 0; n < B; ++n) {
          a += r.posteriors[size_t(n * K + k)] * X(n, j) / count;
          b += r.posteriors[size_t(n * K + k)] * X(n, j) * X(n, j) / count;
        }
        r.means[size_t(k * d + j)] = a;
        r.variances[size_t(k * d + j)] = std::max(b - a * a, o.variance_floor);
      }
    }
  }
  for (int64_t n = 0; n < B; ++n)
    for (int64_t k = 0; k < K; ++k)
      r.marginals[size_t(k)] += r.posteriors[size_t(n * K + k)] / double(B);
  return r;
}

struct Result {
  Values weights, means, variances, posteriors, marginals, dx;
  std::vector<int32_t> choice;
};

// The kernel, forward and backward with random cotangents, outputs guarded.
Result run(const Device& device, const GmmShape& s, In x) {
  const int64_t M = s.modalities, B = s.batch, K = s.options.components, d = s.width;
  Guarded w(M * K), mu(M * K * d), v(M * K * d), post(M * B * K), nu(M * K), dx(M * B * d, 0);
  Shared<int32_t> choice(size_t(M * K), -1);
  device.run([&](const auto& be) {
    Workspace state(gmm_state_bytes(be, s));
    gmm_forward(be, s, x, w.span(), mu.span(), v.span(), post.span(), nu.span(), choice,
                state.span());
    gmm_backward(be, s, x, choice, uniform(M * K, -1, 1, 3), uniform(M * K * d, -1, 1, 4), {},
                 uniform(M * B * K, -1, 1, 5), uniform(M * K, -1, 1, 6), dx.span(), state.span());
  });
  device.wait();
  REQUIRE((w.intact() && mu.intact() && v.intact() && post.intact() && nu.intact() && dx.intact()));
  return {w.values(),
          mu.values(),
          v.values(),
          post.values(),
          nu.values(),
          dx.values(),
          {choice.begin(), choice.end()}};
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
    const double ulps = 2e3;  // d^2 / v amplifies: the variance floor is 1e-4
    require_close(part(got.weights), want.weights, ulps);
    require_close(part(got.means), want.means, ulps);
    require_close(part(got.variances), want.variances, ulps);
    require_close(part(got.posteriors), want.posteriors, ulps);
    require_close(part(got.marginals), want.marginals, ulps);
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
        same(got.variances, want.variances);
        same(got.posteriors, want.posteriors);
        same(got.marginals, want.marginals);
        same(got.dx, want.dx);
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
  for (double scale : {0.0, 1e-12, 1.0, 1e4})
    for (int64_t B : {1, 5, 12})
      for (GmmInit init : {GmmInit::linspace, GmmInit::kmeanspp}) {
        GmmShape s{2, B, 4, {}};
        s.options.init = init;
        Values x = uniform(2 * B * 4, -scale, scale);
        for (size_t i = 4; i < x.size(); ++i)
          if (B == 12) x[i] = x[i % 4];  // every row the same
        for (const Device& device : devices()) {
          const Result r = run(device, s, x);
          for (const Values* v :
               {&r.weights, &r.means, &r.variances, &r.posteriors, &r.marginals, &r.dx})
            for (real e : *v) REQUIRE(std::isfinite(e));
          double sum = 0;
          for (real e : r.marginals) sum += double(e);
          REQUIRE(close(sum, 2, 16));
        }
      }
}

TEST_CASE("gmm: every run and thread count gives the same bits", "[kernels][gmm]") {
  const GmmShape s{3, 33, 40, {}};
  const Values x = uniform(3 * 33 * 40, -1, 1);
  Bits bits;
  for (const Device& device : devices()) {
    const Result r = run(device, s, x);
    bits.require(device, {r.posteriors, r.variances, r.dx});
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
        gmm_forward(be, s, in, small, table, table, posteriors, small, choice, room);
      };
      REQUIRE_THROWS_AS(forward(In(x).first(23), post, state.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(x, Out(post).first(47), state.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(x, post, state.span().first(64)), std::invalid_argument);
      REQUIRE_THROWS_AS(gmm_backward(be, s, x, choice, small, table, table, post, small,
                                     InOut(x).first(23), state.span()),
                        std::invalid_argument);
    });
  }
}

#ifdef DECALIGN_F64
TEST_CASE("gmm: gradient through every EM step", "[autograd][gmm]") {
  struct Case {
    int64_t B, d, K, iterations;
    GmmInit init;
    double scale;
  };
  for (const Case& c :
       {Case{8, 3, 3, 5, GmmInit::linspace, 1}, Case{9, 3, 4, 2, GmmInit::kmeanspp, 1},
        Case{3, 2, 5, 3, GmmInit::linspace, 1}, Case{1, 3, 2, 2, GmmInit::linspace, 1},
        Case{6, 2, 2, 0, GmmInit::linspace, 1}, Case{8, 2, 3, 3, GmmInit::linspace, 0.02}})
    for (int part = 0; part < 5; ++part) {
      GmmOptions o;
      o.components = c.K;
      o.iterations = c.iterations;
      o.init = c.init;
      for (const Device& device : devices())
        if (device.on_host() || &device == &devices().back())  // a GPU once
          gradcheck(
              device, {{2, c.B, c.d}}, {uniform(2 * c.B * c.d, -c.scale, c.scale, 11)},
              [&](Tape& tape, const std::vector<Tensor>& x) {
                const Mixture m = gmm(tape, x[0], o);
                return std::array{m.weights, m.means, m.variances, m.posteriors,
                                  m.marginals}[size_t(part)];
              },
              1e-8, 1e-3 * c.scale);
    }
}
#endif
