// Row gather with scale and dropout: definition, share of kept elements, errors, gradients.
#include "autograd/dropout.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {
const RandomState& kState = on_devices(RandomState{9, 1});
}  // namespace

TEST_CASE("dropout: equals its definition", "[kernels][dropout]") {
  for (int64_t width : {1, 7, 33, 64, 129, 1500})
    for (double rate : {0.0, 0.25}) {
      DropoutShape s;
      s.x_rows = 40, s.y_rows = 60, s.width = width, s.scale = 3, s.dropout = {rate, &kState, 2};
      const std::vector<RowCopy> copies{{5, 20, 33}, {0, 0, 20}, {39, 59, 1}, {10, 53, 6}};
      const Values x = uniform(40 * width, -1, 1), dy = uniform(60 * width, -1, 1, 2);
      std::vector<double> y(dy.size()), dx(x.size(), 1);
      for (const RowCopy& c : copies)
        for (int64_t i = 0; i < c.rows * width; ++i) {
          const int64_t e = c.y_row * width + i;
          const bool kept =
              rate == 0 ||
              (dropout_keep_bits(9, 1, 2, s.dropout.threshold(), uint64_t(e / 8)) >> (e % 8) & 1);
          const double factor = kept * 3 * double(s.dropout.scale());
          y[size_t(e)] = factor * double(x[size_t(c.x_row * width + i)]);
          dx[size_t(c.x_row * width + i)] += factor * double(dy[size_t(e)]);
        }
      Bits bits;
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Guarded gy(60 * width), gx(40 * width, 1);
          dropout_forward(be, s, copies, x, gy.span());
          dropout_backward(be, s, copies, dy, gx.span());
          dropout_backward(be, s, copies, dy, {});
          require_close(gy.span(), y, 4);
          require_close(gx.span(), dx, 16);
          REQUIRE((gy.intact() && gx.intact()));
          bits.require(device, {gy.values(), gx.values()});
        });
    }
}

TEST_CASE("dropout: hundreds of copies, any alignment", "[kernels][dropout]") {
  // Rows of x are read by up to ten of 300 copies, so that more than one list of copies is needed.
  const int64_t width = 5, x_rows = 430;
  std::vector<RowCopy> copies;
  int64_t y_rows = 0;
  for (int64_t c = 0; c < 300; ++c) {
    const int64_t rows = c % 4, x_row = c * 37 % (x_rows - 4);
    copies.push_back({x_row, y_rows, rows});
    y_rows += rows;
  }
  DropoutShape s;
  s.x_rows = x_rows, s.y_rows = y_rows, s.width = width, s.dropout = {0.5, &kState, 7};
  const Values x = uniform(x_rows * width, -1, 1), dy = uniform(y_rows * width, -1, 1, 2);
  std::vector<double> y(dy.size()), dx(x.size(), 1);
  for (const RowCopy& c : copies)
    for (int64_t i = 0; i < c.rows * width; ++i) {
      const int64_t e = c.y_row * width + i;
      const bool kept =
          dropout_keep_bits(9, 1, 7, s.dropout.threshold(), uint64_t(e / 8)) >> (e % 8) & 1;
      y[size_t(e)] = kept * 2 * double(x[size_t(c.x_row * width + i)]);
      dx[size_t(c.x_row * width + i)] += kept * 2 * double(dy[size_t(e)]);
    }
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded gy(y_rows * width), gx(x_rows * width, 1);
      dropout_forward(be, s, copies, x, gy.span());
      dropout_backward(be, s, copies, dy, gx.span());
      require_close(gy.span(), y, 4);
      require_close(gx.span(), dx, 16);
      REQUIRE((gy.intact() && gx.intact()));
      bits.require(device, {gy.values(), gx.values()});
    });
}

TEST_CASE("dropout: keeps the expected share, other elements each step", "[autograd][dropout]") {
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor x = tape.constant({1000, 100}, Values(100000, 1));
    Shared<RandomState> state{{1, 1}};
    for (double rate : {0.1, 0.5}) {
      const Dropout d{rate, &state[0], 0};
      const std::vector<real> a = device.read(dropout(tape, x, d).value);
      state[0].step++;
      const std::vector<real> b = device.read(dropout(tape, x, d).value);
      int64_t kept = 0, both = 0;
      for (size_t i = 0; i < 100000; ++i) {
        REQUIRE((a[i] == 0 || a[i] == d.scale()));
        kept += a[i] != 0;
        both += a[i] != 0 && b[i] != 0;
      }
      REQUIRE(std::abs(double(kept) / 1e5 - (1 - rate)) < 0.01);
      REQUIRE(std::abs(double(both) / 1e5 - (1 - rate) * (1 - rate)) < 0.01);
    }
    REQUIRE(dropout(tape, x, {}).value.data() == x.value.data());
  }
}

TEST_CASE("dropout: rejects what does not fit", "[kernels][dropout][errors]") {
  DropoutShape s;
  s.x_rows = s.y_rows = 4, s.width = 3;
  const Values x(12);
  Values y(12);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const auto forward = [&](const DropoutShape& shape, RowCopy c, In a, Out b) {
        dropout_forward(be, shape, {&c, 1}, a, b);
      };
      s.dropout.rate = 0;
      REQUIRE_NOTHROW(forward(s, {0, 0, 4}, x, y));
      REQUIRE_THROWS_AS(forward(s, {0, 0, 3}, x, y), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(s, {1, 0, 4}, x, y), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(s, {0, 0, 4}, In(x).first(9), y), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(s, {0, 0, 4}, x, Out(y).first(9)), std::invalid_argument);
      s.dropout.rate = 0.5;
      REQUIRE_THROWS_AS(forward(s, {0, 0, 4}, x, y), std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("dropout: gradients", "[autograd][dropout]") {
  for (const Device& device : devices()) {
    gradcheck(device, {{10, 3}}, {uniform(30, -1, 1)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                const std::vector<RowCopy> copies{{2, 0, 5}, {4, 5, 4}, {2, 9, 1}};
                return embed(tape, in[0], copies, 10, 3, {.5, &kState, 2});
              });
    gradcheck(device, {{4, 3, 5}}, {uniform(60, -1, 1)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                return dropout(tape, in[0], {.5, &kState, 2});
              });
  }
}
#endif
