// Diagonal Gaussian mixtures by EM, and what all mixtures share.
#include "tests/gmm_problems.h"

using namespace decalign;
using namespace decalign::test;
using namespace decalign::test::mixtures;

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
        same(got.covariances, want.covariances);
        same(got.likelihood, want.likelihood);
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
TEST_CASE("gmm: gradient through every EM step", "[autograd][gmm]") {
  const GmmInit even = GmmInit::linspace, drawn = GmmInit::kmeanspp;
  for (const GradientCase& c :
       {GradientCase{8, 3, 3, 5, even}, GradientCase{9, 3, 4, 2, drawn}, GradientCase{3, 2, 5, 3},
        GradientCase{1, 3, 2, 2}, GradientCase{6, 2, 2, 0}, GradientCase{8, 2, 3, 3, even, 0.02}})
    require_gradient(c, {}, 1e-3);
}

TEST_CASE("gmm: gradient through the last step", "[autograd][gmm]") {
  require_last_step_gradient({});
}
#endif
