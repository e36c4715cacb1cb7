// The README's example, word for word (tests/test_docs.sh compares them), and what it must compute.
// README
#include <span>
#include <vector>

#include "kernels/sinkhorn.h"

using namespace decalign;  // real is float; with -DDECALIGN_F64 and the _f64 libraries it is double

// Optimal transport between three sets of seven weighted points: cost [3 pairs, 7, 7], weights
// [3, 7]. Returns the value and adds its gradient to dcost.
real transport(const std::vector<real>& cost, const std::vector<real>& weights,
               std::vector<real>& dcost) {
  SinkhornShape shape{3, 7, {}};
  shape.options.log_domain = true;
  shape.options.gradient = OtGradient::envelope;
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> work(sinkhorn_scratch_bytes(Cpu{}, shape) / 64 + 1);  // yours, reusable
  const Scratch scratch = std::as_writable_bytes(std::span(work));
  std::vector<double> scalings(size_t(shape.options.max_sweeps) * 3 * 7);
  std::vector<real> value(1), report(3), dvalue{1};
  const Cpu cpu{2};  // threads
  sinkhorn_forward(cpu, shape, cost, weights, scalings, value, report, scratch);
  sinkhorn_backward(cpu, shape, cost, weights, scalings, report, dvalue, dcost, {}, scratch);
  return value[0];
}
// README

#include <cmath>

#include "tests/support.h"

TEST_CASE("readme: the transport of equal points is the product of the weights", "[docs]") {
  const std::vector<real> cost(3 * 49, real(0)), weights(3 * 7, real(1) / 7);
  std::vector<real> dcost(3 * 49, real(0));
  const real value = transport(cost, weights, dcost);
  test::require_close({&value, 1}, {-0.1 * (3 * std::log(7.0) + 1)}, 8);
  test::require_close(dcost, std::vector<double>(3 * 49, 1 / 49.0), 8);
}
