// Masked mean and temporal resampling: definition, errors, gradients.
#include "autograd/pooling.h"
#include "kernels/pooling.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {
const std::vector<int64_t> kFirst{0, 3, 3, 36, 165}, kTo{0, 5, 8, 41, 48};
const Rows kRows{2, 2, kFirst}, kOther{2, 2, kTo};
}  // namespace

TEST_CASE("pooling: masked mean of each sequence", "[kernels][pooling]") {
  for (int64_t width : {1, 7, 33, 64})
    for (bool masked : {false, true}) {
      Values x = uniform(165 * width, -1, 1), mask = uniform(masked ? 165 : 0, 0, 1, 2);
      for (real& m : mask) m = m < real(0.5) ? 0 : 1;
      for (size_t r = 0; masked && r < 3; ++r) mask[r] = 0;
      if (masked) x[0] = NAN;  // what is masked does not count, whatever it is
      const Values dy = uniform(4 * width, -1, 1, 3);
      std::vector<double> y(size_t(4 * width)), dx(x.size(), 1);
      for (int64_t s = 0; s < 4; ++s) {
        double count = 0;
        const auto on = [&](int64_t r) { return !masked || mask[size_t(r)] != 0; };
        for (int64_t r = kRows.begin(s); r < kRows.begin(s + 1); ++r) count += on(r);
        for (int64_t r = kRows.begin(s); r < kRows.begin(s + 1); ++r)
          for (int64_t j = 0; on(r) && j < width; ++j) {
            y[size_t(s * width + j)] += double(x[size_t(r * width + j)]) / count;
            dx[size_t(r * width + j)] += double(dy[size_t(s * width + j)]) / count;
          }
      }
      Bits bits;
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Guarded gy(4 * width), gx(165 * width, 1);
          pooling_forward(be, kRows, width, x, mask, gy.span());
          pooling_backward(be, kRows, width, mask, dy, gx.span());
          pooling_backward(be, kRows, width, mask, dy, {});
          require_close(gy.span(), y, 64);
          require_close(gx.span(), dx, 4);
          REQUIRE((gy.intact() && gx.intact()));
          bits.require(device, {gy.values(), gx.values()});
        });
    }
}

TEST_CASE("pooling: adaptive average windows", "[kernels][pooling]") {
  const int64_t width = GENERATE(1, 3, 40);
  const Values x = uniform(165 * width, -1, 1), dy = uniform(48 * width, -1, 1, 2);
  std::vector<double> y(dy.size()), dx(x.size(), 1);
  for (int64_t s = 0; s < 4; ++s)
    for (int64_t i = 0; i < kOther.length(s); ++i) {
      const double length = double(kRows.length(s)), n = double(kOther.length(s));
      const auto begin = int64_t(std::floor(double(i) * length / n)),
                 end = int64_t(std::ceil(double(i + 1) * length / n));
      for (int64_t t = begin; t < end; ++t)
        for (int64_t j = 0; j < width; ++j) {
          const size_t to = size_t((kOther.begin(s) + i) * width + j),
                       from = size_t((kRows.begin(s) + t) * width + j);
          y[to] += double(x[from]) / double(end - begin);
          dx[from] += double(dy[to]) / double(end - begin);
        }
    }
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded gy(48 * width), gx(165 * width, 1);
      temporal_pooling_forward(be, kRows, kOther, width, x, gy.span());
      temporal_pooling_backward(be, kRows, kOther, width, dy, gx.span());
      temporal_pooling_backward(be, kRows, kOther, width, dy, {});
      require_close(gy.span(), y, 64);
      require_close(gx.span(), dx, 16);
      REQUIRE((gy.intact() && gx.intact()));
      bits.require(device, {gy.values(), gx.values()});
    });
}

TEST_CASE("pooling: no rows, no columns", "[kernels][pooling]") {
  const std::vector<int64_t> none{0, 0, 0};
  const Rows empty{1, 2, none};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded y(6), to(0);
      pooling_forward(be, empty, 3, {}, {}, y.span());
      pooling_backward(be, empty, 3, {}, y.span(), to.span());
      require_close(y.span(), std::vector<double>(6, 0), 0);
      pooling_forward(be, kRows, 0, {}, {}, to.span());
      temporal_pooling_forward(be, empty, empty, 3, {}, to.span());
      temporal_pooling_backward(be, empty, empty, 3, {}, to.span());
      REQUIRE((y.intact() && to.intact()));
    });
}

TEST_CASE("pooling: rejects what does not fit", "[kernels][pooling][errors]") {
  const Values x(330), mask(164);
  Values y(8);
  const Rows fewer{1, 2, std::span(kTo).first(3)};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(pooling_forward(be, kRows, 2, In(x).first(329), {}, y),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(pooling_forward(be, kRows, 2, x, mask, y), std::invalid_argument);
      REQUIRE_THROWS_AS(pooling_forward(be, kRows, 2, x, {}, Out(y).first(7)),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(pooling_backward(be, kRows, 2, mask, y, {}), std::invalid_argument);
      REQUIRE_THROWS_AS(pooling_backward(be, kRows, 2, {}, y, y), std::invalid_argument);
      REQUIRE_THROWS_AS(temporal_pooling_forward(be, kRows, kOther, 2, x, y),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(temporal_pooling_forward(be, kRows, fewer, 2, x, y), std::invalid_argument);
      REQUIRE_THROWS_AS(temporal_pooling_backward(be, kRows, kOther, 2, y, {}),
                        std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("pooling: gradients", "[autograd][pooling]") {
  Values mask = uniform(165, 0, 1, 2);
  for (real& m : mask) m = m < 0.5 ? 0 : 1;
  for (const Device& device : devices()) {
    gradcheck(device, {{165, 2}}, {uniform(330, -1, 1)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                return pooling(tape, kRows, in[0], mask);
              });
    gradcheck(device, {{165, 2}}, {uniform(330, -1, 1)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                return temporal_pooling(tape, kRows, kOther, in[0]);
              });
  }
}
#endif
