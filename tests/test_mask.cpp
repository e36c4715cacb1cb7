// Zeroing of padded rows.
#include "autograd/mask.h"
#include "kernels/mask.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("mask_rows: zeroes rows and their gradients", "[kernels][mask]") {
  for (int64_t rows : {0, 1, 7, 33, 300})
    for (int64_t width : {1, 5, 8, 300, 1100}) {
      if (rows > 33 && width > 8) continue;
      Values x = uniform(rows * width, -1, 1), mask(static_cast<size_t>(rows));
      for (size_t r = 0; r < mask.size(); ++r) mask[r] = real(r % 3 != 1);
      if (rows > 1) x[size_t(width)] = NAN;  // a masked row
      std::vector<double> y(x.size()), dx(x.size());
      for (size_t i = 0; i < x.size(); ++i) {
        const bool on = mask[i / size_t(width)] != 0;
        y[i] = on ? double(x[i]) : 0;
        dx[i] = on ? 3 : 1;
      }
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Guarded gy(rows * width), gx(rows * width, 1);
          const Values dy(x.size(), 2);
          mask_rows_forward(be, width, x, mask, gy.span());
          mask_rows_backward(be, width, mask, dy, gx.span());
          mask_rows_backward(be, width, mask, dy, {});
          require_close(gy.span(), y, 0);
          require_close(gx.span(), dx, 0);
          REQUIRE((gy.intact() && gx.intact()));
        });
    }
}

TEST_CASE("mask_rows: memory that starts between 16-byte lines", "[kernels][mask]") {
  const Values x = uniform(41, -1, 1), dy(41, 2), mask{1, 0, 1, 1, 0};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values y(41, -1), dx(41, 1);
      mask_rows_forward(be, 8, In(x).last(40), mask, Out(y).last(40));
      mask_rows_backward(be, 8, mask, In(dy).last(40), Out(dx).last(40));
      device.wait();
      REQUIRE((y[0] == -1 && dx[0] == 1));
      for (size_t i = 0; i < 40; ++i) {
        const bool on = mask[i / 8] != 0;
        REQUIRE((y[i + 1] == (on ? x[i + 1] : real(0)) && dx[i + 1] == (on ? 3 : 1)));
      }
    });
}

TEST_CASE("zero_rows_mask: 0 where a step is zeros throughout", "[kernels][mask]") {
  // Modalities of 40 columns, of none, not looked at, and of one; sequences shorter than the steps.
  const std::vector<int64_t> first{0, 9, 9, 12, 16, 20, 23, 25};
  const int64_t batch = 1, steps = 10;
  for (int64_t width : {1, 31, 32, 40, 129}) {
    const Rows rows{7, batch, first};
    Values wide = uniform(steps * width, 1, 2), narrow(size_t(steps), 0);
    for (int64_t t : {2, 3, 8}) std::fill_n(wide.begin() + t * width, width, real(0));
    wide[size_t(4 * width - 1)] = real(-0.5);  // the last column of step 3
    wide[size_t(8 * width)] = real(-0.0);
    narrow[1] = NAN;
    const StepSource zeros{narrow, steps, 1}, none;
    const std::vector<StepSource> sources{{wide, steps, width}, none, zeros, none, zeros,
                                          {wide, steps, width}, none};
    const std::vector<double> want{1, 1, 0, 1, 1, 1, 1, 1, 0,  // of `wide`
                                   0, 1, 0, 1, 1, 1, 1,        // of `narrow`; not looked at
                                   0, 1, 0, 0, 1, 1, 0, 1, 1};
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded mask(25);
        zero_rows_mask(be, rows, sources, mask.span());
        require_close(mask.span(), want, 0);
        REQUIRE(mask.intact());
      });
  }
}

TEST_CASE("zero_rows_mask: samples of a batch, more modalities than a launch takes",
          "[kernels][mask]") {
  const int64_t batch = 3, steps = 4, modalities = 19;
  std::vector<Values> x;
  std::vector<StepSource> sources;
  std::vector<int64_t> first{0};
  std::vector<double> want;
  for (int64_t m = 0; m < modalities; ++m) {
    x.push_back(uniform(batch * steps * 2, 1, 2));
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t t = 0; t < (m + b) % 5; ++t) {
        const bool zero = (m + b + t) % 3 == 0;
        if (zero) std::fill_n(x.back().begin() + (b * steps + t) * 2, 2, real(0));
        want.push_back(zero ? 0 : 1);
      }
    for (int64_t b = 0; b < batch; ++b) first.push_back(first.back() + (m + b) % 5);
  }
  for (const Values& v : x) sources.push_back({v, steps, 2});
  const Rows rows{modalities, batch, first};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded mask(rows.total());
      zero_rows_mask(be, rows, sources, mask.span());
      require_close(mask.span(), want, 0);
      REQUIRE(mask.intact());
    });
}

TEST_CASE("mask: rejects what does not fit", "[kernels][mask][errors]") {
  const Values x(10), mask(2);
  Values y(10);
  const std::vector<int64_t> first{0, 2, 5};
  const Rows rows{1, 2, first};
  const std::vector<StepSource> good{{In(x).first(6), 3, 1}}, wrong{{In(x).first(5), 3, 1}},
      short_one{{In(x).first(4), 2, 1}}, two(2);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(mask_rows_forward(be, 4, x, mask, y), std::invalid_argument);
      REQUIRE_THROWS_AS(mask_rows_forward(be, 5, x, mask, Out(y).first(9)), std::invalid_argument);
      REQUIRE_THROWS_AS(mask_rows_backward(be, 4, mask, x, y), std::invalid_argument);
      REQUIRE_THROWS_AS(mask_rows_backward(be, 5, mask, x, Out(y).first(9)), std::invalid_argument);
      REQUIRE_NOTHROW(zero_rows_mask(be, rows, good, Out(y).first(5)));
      REQUIRE_THROWS_AS(zero_rows_mask(be, rows, good, Out(y).first(4)), std::invalid_argument);
      for (const auto& sources : {wrong, short_one, two})
        REQUIRE_THROWS_AS(zero_rows_mask(be, rows, sources, Out(y).first(5)),
                          std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("mask_rows: gradients", "[autograd][mask]") {
  const Values mask{1, 0, 1};
  for (const Device& device : devices())
    gradcheck(
        device, {{3, 4}}, {uniform(12, -1, 1)},
        [&](Tape& tape, const std::vector<Tensor>& in) { return mask_rows(tape, in[0], mask); });
}
#endif
