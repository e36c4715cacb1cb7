// Gaussian mixtures with full covariances by EM.
#include "tests/gmm_problems.h"

using namespace decalign;
using namespace decalign::test;
using namespace decalign::test::mixtures;

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

TEST_CASE("gmm: large samples match the formulas of full covariances", "[kernels][gmm]") {
  for (const auto& [B, d, K] : std::vector<std::array<int64_t, 3>>{{1000, 9, 3}, {513, 33, 2}}) {
    GmmShape s{1, B, d, {}};
    s.options.components = K;
    s.options.iterations = 2;
    s.options.covariance = GmmCovariance::full;
    const Values x = clusters(B, d, K, 5);
    for (const Device& device : devices()) require_formulas(device, s, x, 2e4);
    const Result one = run(Device(Cpu{1}), s, x), five = run(Device(Cpu{5}), s, x);
    REQUIRE((one.dx == five.dx && one.covariances == five.covariances));
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

#ifdef DECALIGN_F64
TEST_CASE("gmm: gradient of full covariances through every EM step", "[autograd][gmm]") {
  GmmOptions o;
  o.covariance = GmmCovariance::full;
  for (const GradientCase& c :
       {GradientCase{12, 3, 3, 5}, GradientCase{9, 3, 4, 2, GmmInit::kmeanspp},
        GradientCase{3, 2, 5, 3}, GradientCase{1, 3, 2, 2}, GradientCase{6, 2, 2, 0},
        GradientCase{5, 6, 2, 2}})
    require_gradient(c, o, 3e-4);
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

TEST_CASE("gmm: gradient of full covariances through the last step", "[autograd][gmm]") {
  GmmOptions o;
  o.covariance = GmmCovariance::full;
  require_last_step_gradient(o);
}
#endif
