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
        Values bits;
        for (int threads : {1, 2, 5}) {
          Guarded cost(int64_t(want.size()));
          gaussian_cost_forward(Cpu{threads}, {M, K, d, reduction}, mu, v, cost.span());
          REQUIRE(cost.intact());
          require_close(cost.span(), want, 64, scale);
          if (threads == 1) bits = cost.values();
          REQUIRE((cost.values() == bits));
        }
      }
}

TEST_CASE("gaussian_cost: spans that do not fit throw", "[kernels][gaussian_cost][errors]") {
  Values a(12), cost(4), wrong(3);
  const GaussianCostShape s{2, 2, 3, Reduction::sum};
  REQUIRE_NOTHROW(gaussian_cost_forward(Cpu{}, s, a, a, cost));
  REQUIRE_THROWS_AS(gaussian_cost_forward(Cpu{}, s, a, a, wrong), std::invalid_argument);
  REQUIRE_THROWS_AS(gaussian_cost_forward(Cpu{}, s, wrong, a, cost), std::invalid_argument);
  REQUIRE_THROWS_AS(gaussian_cost_backward(Cpu{}, s, a, a, cost, wrong, a), std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("gaussian_cost: gradient", "[autograd][gaussian_cost]") {
  for (Reduction reduction : {Reduction::sum, Reduction::mean})
    gradcheck(devices()[1], {{3, 2, 5}, {3, 2, 5}}, {uniform(30, -1, 1, 1), uniform(30, 0.2, 1, 2)},
              [&](Tape& tape, const std::vector<Tensor>& x) {
                return gaussian_cost(tape, x[0], x[1], reduction);
              });
}
#endif
