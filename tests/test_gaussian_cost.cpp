// Pair costs between diagonal Gaussians.
#include <array>

#include "autograd/gaussian_cost.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("gaussian_cost: matches the definition in lexicographic order",
          "[kernels][gaussian_cost]") {
  for (Reduction reduction : {Reduction::sum, Reduction::mean})
    for (const auto& [M, K, d] : std::vector<std::array<int64_t, 3>>{
             {3, 7, 40}, {4, 2, 33}, {2, 1, 1}, {1, 3, 2}, {5, 6, 7}})
      for (double scale : {1.0, 1e-4, 1e3}) {
        const Values mu = uniform(M * K * d, -scale, scale, 1),
                     v = uniform(M * K * d, 1e-4 * scale, scale, 2);
        std::vector<double> want;
        for (int64_t i = 0; i < M; ++i)
          for (int64_t j = i + 1; j < M; ++j)
            for (int64_t a = 0; a < K; ++a)
              for (int64_t b = 0; b < K; ++b) {
                double sum = 0;
                for (int64_t t = 0; t < d; ++t) {
                  const size_t p = size_t((i * K + a) * d + t), q = size_t((j * K + b) * d + t);
                  const double e = double(mu[p]) - double(mu[q]), x = double(v[p]),
                               y = double(v[q]);
                  sum += e * e + x + y - 2 * std::sqrt(x * y + 1e-8);
                }
                want.push_back(reduction == Reduction::sum ? sum : sum / double(d));
              }
        Bits bits;
        for (const Device& device : devices())
          device.run([&, M = M, K = K, d = d](const auto& be) {
            const GaussianCostShape s{M, K, d, reduction};
            Guarded cost(int64_t(want.size()));
            gaussian_cost_forward(be, s, mu, v, cost.span());
            REQUIRE(cost.intact());
            require_close(cost.span(), want, 64, scale);
            bits.require(device, {cost.values()});
          });
      }
}

TEST_CASE("gaussian_cost: the gradient follows its formula and is added, empty ones are skipped",
          "[kernels][gaussian_cost]") {
  for (const auto& [M, K, d] :
       std::vector<std::array<int64_t, 3>>{{3, 7, 40}, {1, 3, 2}, {5, 2, 33}, {2, 3, 0}}) {
    const GaussianCostShape s{M, K, d, Reduction::mean};
    const int64_t size = M * K * d;
    const Values mu = uniform(size, -1, 1, 1), v = uniform(size, 1e-3, 1, 2),
                 dcost = uniform(M * (M - 1) / 2 * K * K, -1, 1, 3);
    std::vector<double> dmu(size_t(size), 0.5), dv(size_t(size), 0.5);
    size_t at = 0;
    for (int64_t i = 0; i < M; ++i)
      for (int64_t j = i + 1; j < M; ++j)
        for (int64_t a = 0; a < K; ++a)
          for (int64_t b = 0; b < K; ++b, ++at)
            for (int64_t t = 0; t < d; ++t) {
              const size_t p = size_t((i * K + a) * d + t), q = size_t((j * K + b) * d + t);
              const double g = double(dcost[at]) / double(d), x = double(v[p]), y = double(v[q]),
                           e = 2 * g * (double(mu[p]) - double(mu[q])),
                           root = std::sqrt(x * y + 1e-8);
              dmu[p] += e;
              dmu[q] -= e;
              dv[p] += g * (1 - y / root);
              dv[q] += g * (1 - x / root);
            }
    Bits bits;
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded gmu(size, 0.5), gv(size, 0.5), alone(size, 0.5);
        gaussian_cost_backward(be, s, mu, v, dcost, gmu.span(), gv.span());
        gaussian_cost_backward(be, s, mu, v, dcost, {}, alone.span());
        REQUIRE((gmu.intact() && gv.intact() && alone.intact()));
        require_close(gmu.span(), dmu, 64);
        require_close(gv.span(), dv, 64);
        bits.require(device, {gmu.values(), gv.values()});
        REQUIRE((alone.values() == gv.values()));
        gaussian_cost_backward(be, s, mu, v, dcost, gmu.span(), {});
        for (size_t i = 0; i < dmu.size(); ++i)
          REQUIRE(close(gmu.values()[i], 2 * dmu[i] - 0.5, 99));
      });
  }
}

TEST_CASE("gaussian_cost: spans that do not fit throw", "[kernels][gaussian_cost][errors]") {
  Values a(12), cost(4), wrong(3);
  const GaussianCostShape s{2, 2, 3, Reduction::sum};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_NOTHROW(gaussian_cost_forward(be, s, a, a, cost));
      REQUIRE_THROWS_AS(gaussian_cost_forward(be, s, a, a, wrong), std::invalid_argument);
      REQUIRE_THROWS_AS(gaussian_cost_forward(be, s, wrong, a, cost), std::invalid_argument);
      REQUIRE_THROWS_AS(gaussian_cost_backward(be, s, a, a, cost, wrong, a), std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("gaussian_cost: gradient", "[autograd][gaussian_cost]") {
  for (Reduction reduction : {Reduction::sum, Reduction::mean})
    for (const Device& device : devices())
      gradcheck(device, {{3, 2, 5}, {3, 2, 5}}, {uniform(30, -1, 1, 1), uniform(30, 0.2, 1, 2)},
                [&](Tape& tape, const std::vector<Tensor>& x) {
                  return gaussian_cost(tape, x[0], x[1], reduction);
                });
}
#endif
