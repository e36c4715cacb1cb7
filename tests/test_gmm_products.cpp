// Large diagonal Gaussian mixtures: EM as matrix products.
#include "tests/gmm_problems.h"

using namespace decalign;
using namespace decalign::test;
using namespace decalign::test::mixtures;

namespace {

constexpr double kUlps = sizeof(real) == 4 ? 200 : 1e4;  // EM amplifies

GmmShape products(int64_t M, int64_t B, int64_t d, int64_t K, int64_t iterations) {
  GmmShape s{M, B, d, {}};
  s.options.components = K;
  s.options.iterations = iterations;
  s.options.arithmetic = GmmArithmetic::products;
  return s;
}

// Every backend's outputs and gradients are the host's, and its bits the same on every run.
void require_host(const GmmShape& s, const Values& x) {
  INFO("rows " << s.batch << ", columns " << s.width << ", components " << s.options.components
               << ", start " << int(s.options.init) << ", gradient " << int(s.options.gradient));
  const Result want = run(Device(Cpu{1}), s, x);
  Bits bits;
  for (const Device& device : devices()) {
    const Result got = run(device, s, x);
    REQUIRE(got.choice == want.choice);
    const auto same = [&](const Values& a, const Values& b) {
      double largest = 0;
      for (const real e : b) largest = std::max(largest, std::abs(double(e)));
      require_close(a, Doubles(b.begin(), b.end()), kUlps, largest);
    };
    same(got.weights, want.weights);
    same(got.means, want.means);
    same(got.covariances, want.covariances);
    same(got.likelihood, want.likelihood);
    same(got.posteriors, want.posteriors);
    same(got.marginals, want.marginals);
    same(got.dx, want.dx);
    bits.require(device, {got.covariances, got.posteriors, got.likelihood, got.dx});
  }
}

}  // namespace

TEST_CASE("gmm: products match the formulas", "[kernels][gmm]") {
  for (const auto& [B, d, K] : std::vector<std::array<int64_t, 3>>{
           {2017, 9, 7}, {1030, 5, 33}, {120, 3, 1}, {350, 2, 300}, {7, 1, 7}}) {
    INFO("rows " << B << ", columns " << d << ", components " << K);
    const GmmShape s = products(1, B, d, K, 2);
    const Values x = clusters(B, d, K, 5);
    // Posteriors see logits of some hundred, of which float has five digits left.
    for (const Device& device : devices()) require_formulas(device, s, x, 1e4);
    const Result one = run(Device(Cpu{1}), s, x), five = run(Device(Cpu{5}), s, x);
    REQUIRE((one.dx == five.dx && one.covariances == five.covariances));
  }
}

TEST_CASE("gmm: every backend gives the host's products and gradients", "[kernels][gmm]") {
  for (const GmmInit init : {GmmInit::linspace, GmmInit::kmeanspp})
    for (const GmmGradient gradient : {GmmGradient::every_step, GmmGradient::last_step})
      for (const auto& [B, d, K, iterations] :
           std::vector<std::array<int64_t, 4>>{{200, 20, 8, 2},
                                               {1, 5, 2, 2},
                                               {9, 2, 1, 0},
                                               {3, 2, 7, 1},
                                               {130, 5, 70, 1},
                                               {33, 3, 300, 1}}) {
        GmmShape s = products(2, B, d, K, iterations);
        s.options.init = init;
        s.options.gradient = gradient;
        s.options.seed = uint64_t(K) << 30;
        require_host(s, uniform(2 * B * d, -1, 1, unsigned(B + 1)));
      }
}

// More than a block's rows in every sum and in k-means++, then more than a chunk's.
TEST_CASE("gmm: products of many rows", "[kernels][gmm]") {
  GmmShape s = products(2, 1100, 2, 3, 1);
  s.options.init = GmmInit::kmeanspp;
  s.options.random = &on_devices(RandomState{5, 6});
  require_host(s, uniform(2 * s.batch * s.width, -1, 1, 3));
  s = products(1, 16500, 1, 2, 0);
  require_host(s, uniform(s.batch, -1, 1, 4));
}

// More components than a warp's registers hold of a row.
TEST_CASE("gmm: products of many components", "[kernels][gmm]") {
  const GmmShape s = products(1, 40, 1, 1030, 1);
  require_host(s, uniform(s.batch, -1, 1, 4));
}

#ifdef DECALIGN_CUDA
TEST_CASE("gmm: products are in real whatever the backend's precision", "[kernels][gmm]") {
  if (!gpu()) return;
  const GmmShape s = products(1, 70, 5, 3, 2);
  const Values x = uniform(s.batch * s.width, -1, 1);
  Cuda rough = *gpu()->cuda();
  rough.precision = Precision::bf16;
  const Result want = run(*gpu(), s, x), got = run(Device(rough), s, x);
  REQUIRE((got.posteriors == want.posteriors && got.dx == want.dx));
}
#endif

#ifdef DECALIGN_F64
TEST_CASE("gmm: gradient of products through every EM step", "[autograd][gmm]") {
  GmmOptions o;
  o.arithmetic = GmmArithmetic::products;
  for (const GradientCase& c :
       {GradientCase{9, 3, 4, 1, GmmInit::kmeanspp}, GradientCase{3, 2, 5, 2},
        GradientCase{12, 20, 2, 0}, GradientCase{8, 2, 3, 1, GmmInit::linspace, 0.005}})
    require_gradient(c, o, 1e-3);
}

TEST_CASE("gmm: gradient of products through the last step", "[autograd][gmm]") {
  GmmOptions o;
  o.arithmetic = GmmArithmetic::products;
  require_last_step_gradient(o);
}
#endif
