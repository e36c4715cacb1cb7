// Zeroing of padded rows.
#include "autograd/mask.h"
#include "kernels/mask.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("mask_rows: zeroes rows and their gradients", "[kernels][mask]") {
  for (int64_t rows : {0, 1, 7, 33, 300}) {
    Values x = uniform(rows * 5, -1, 1), mask(static_cast<size_t>(rows));
    for (size_t r = 0; r < mask.size(); ++r) mask[r] = real(r % 3 != 1);
    if (rows > 1) x[5] = NAN;  // a masked row
    std::vector<double> y(x.size()), dx(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = mask[i / 5] != 0 ? double(x[i]) : 0;
      dx[i] = mask[i / 5] != 0 ? 3 : 1;
    }
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded gy(rows * 5), gx(rows * 5, 1);
        mask_rows_forward(be, 5, x, mask, gy.span());
        mask_rows_backward(be, 5, mask, Values(x.size(), 2), gx.span());
        mask_rows_backward(be, 5, mask, Values(x.size(), 2), {});
        require_close(gy.span(), y, 0);
        require_close(gx.span(), dx, 0);
        REQUIRE((gy.intact() && gx.intact()));
      });
  }
}

TEST_CASE("mask_rows: rejects what does not fit", "[kernels][mask][errors]") {
  const Values x(10), mask(2);
  Values y(10);
  REQUIRE_THROWS_AS(mask_rows_forward(Cpu{}, 4, x, mask, y), std::invalid_argument);
  REQUIRE_THROWS_AS(mask_rows_forward(Cpu{}, 5, x, mask, Out(y).first(9)), std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("mask_rows: gradients", "[autograd][mask]") {
  const Values mask{1, 0, 1};
  gradcheck(
      Device{}, {{3, 4}}, {uniform(12, -1, 1)},
      [&](Tape& tape, const std::vector<Tensor>& in) { return mask_rows(tape, in[0], mask); });
}
#endif
