// Residual, dropout and layer normalisation: definition, errors, gradients.
#include "autograd/layer_norm.h"
#include "kernels/layer_norm.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

const RandomState& kState = on_devices(RandomState{3, 4});

void compare(int64_t rows, int64_t width, double rate, bool with_z) {
  LayerNormShape s;
  s.rows = rows, s.width = width, s.dropout = {rate, &kState, 6};
  const int64_t border = rows / 3, size = rows * width;
  const Values x = uniform(size, -2, 3, 1), z = uniform(with_z ? size : 0, -2, 2, 2),
               dy = uniform(size, -1, 1, 3), w = uniform(2 * width, 0, 2, 4),
               b = uniform(2 * width, -1, 1, 5);
  std::vector<double> y(x.size()), dx(x.size(), 1), dz(x.size(), 1), dw(w.size(), 1),
      db(w.size(), 1);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t g = r < border ? 0 : width;
    std::vector<double> v(static_cast<size_t>(width)), keep(v.size());
    double mean = 0, variance = 0, total = 0, along = 0;
    for (int64_t j = 0; j < width; ++j) {
      const int64_t e = r * width + j;
      const bool kept =
          !s.dropout.on() ||
          (dropout_keep_bits(3, 4, 6, s.dropout.threshold(), uint64_t(e / 8)) >> (e % 8) & 1);
      keep[size_t(j)] = kept * double(s.dropout.scale());
      v[size_t(j)] = double(x[size_t(e)]) + (with_z ? keep[size_t(j)] * double(z[size_t(e)]) : 0);
      mean += v[size_t(j)] / double(width);
    }
    for (double e : v) variance += (e - mean) * (e - mean) / double(width);
    const double rstd = 1 / std::sqrt(variance + 1e-5);
    for (int64_t j = 0; j < width; ++j) {
      const double hat = (v[size_t(j)] - mean) * rstd, d = double(dy[size_t(r * width + j)]);
      const double wj = double(w[size_t(g + j)]);
      y[size_t(r * width + j)] = hat * wj + double(b[size_t(g + j)]);
      dw[size_t(g + j)] += d * hat;
      db[size_t(g + j)] += d;
      total += d * wj / double(width);
      along += d * wj * hat / double(width);
    }
    for (int64_t j = 0; j < width; ++j) {
      const double hat = (v[size_t(j)] - mean) * rstd;
      const double dr = rstd * (double(dy[size_t(r * width + j)]) * double(w[size_t(g + j)]) -
                                total - hat * along);
      dx[size_t(r * width + j)] += dr;
      dz[size_t(r * width + j)] += dr * keep[size_t(j)];
    }
  }
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded gy(size), sum(size), stats(2 * rows), gx(size, 1), gz(with_z ? size : 0, 1),
          gw(2 * width, 1), gb(2 * width, 1);
      std::vector<LayerNormGroup> groups(2);
      for (size_t g = 0; g < 2; ++g) {
        const size_t at = g * size_t(width), n = size_t(width);
        groups[g] = {g ? border : 0,       g ? rows - border : border, In(w).subspan(at, n),
                     In(b).subspan(at, n), gw.span().subspan(at, n),   gb.span().subspan(at, n)};
      }
      layer_norm_forward(be, s, groups, x, z, sum.span(), stats.span(), gy.span());
      Workspace scratch(layer_norm_scratch_bytes(be, s));
      layer_norm_backward(be, s, groups, sum.span(), stats.span(), dy, gx.span(), gz.span(),
                          scratch.span());
      // One column has variance 0 and rstd 316.
      const double scale = width == 1 ? 1000 : 4;
      require_close(gy.span(), y, 64, scale);
      require_close(gx.span(), dx, 128, scale);
      if (with_z) require_close(gz.span(), dz, 128, scale);
      require_close(gw.span(), dw, 64 + double(rows), scale);
      require_close(gb.span(), db, 64 + double(rows), scale);
      REQUIRE((gy.intact() && sum.intact() && stats.intact() && gx.intact() && gz.intact() &&
               gw.intact() && gb.intact()));
      const std::vector<Values> got{gy.values(), gx.values(), gz.values(), gw.values(),
                                    gb.values()};
      bits.require(device, got);
    });
}

}  // namespace

TEST_CASE("layer_norm: equals its definition", "[kernels][layer_norm]") {
  for (int64_t rows : {0, 1, 7, 33, 129, 400})
    for (int64_t width : {1, 7, 33, 64, 129}) compare(rows, width, 0.2, true);
  compare(5, 2500, 0.5, true);
  compare(70, 48, 0, true);
  compare(70, 40, 0.3, false);
}

TEST_CASE("layer_norm: sum may take the place of z", "[kernels][layer_norm]") {
  LayerNormShape s;
  s.rows = 9, s.width = 20;
  const Values x = uniform(180, -1, 1, 1), w(20, 1), b(20, 0);
  Values z = uniform(180, -1, 1, 2), sum(180), y(180), again(180), stats(18);
  const std::vector<LayerNormGroup> groups{{0, 9, w, b, {}, {}}};
  layer_norm_forward(Cpu{}, s, groups, x, z, sum, stats, y);
  layer_norm_forward(Cpu{}, s, groups, x, z, z, stats, again);
  REQUIRE(y == again);
  REQUIRE(z == sum);
}

TEST_CASE("layer_norm: rejects what does not fit", "[kernels][layer_norm][errors]") {
  LayerNormShape s;
  s.rows = 4, s.width = 3;
  const Values x(12), w(3);
  Values y(12), sum(12), stats(8);
  const auto forward = [&](LayerNormGroup g, In a, In b, Out c, Out d, Out e) {
    layer_norm_forward(Cpu{}, s, {&g, 1}, a, b, c, d, e);
  };
  const LayerNormGroup good{0, 4, w, w, {}, {}};
  REQUIRE_NOTHROW(forward(good, x, x, sum, stats, y));
  REQUIRE_THROWS_AS(forward(good, In(x).first(11), x, sum, stats, y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(good, x, In(x).first(11), sum, stats, y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(good, x, x, Out(sum).first(11), stats, y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(good, x, x, sum, Out(stats).first(7), y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(good, x, x, sum, stats, Out(y).first(11)), std::invalid_argument);
  REQUIRE_THROWS_AS(forward({0, 3, w, w, {}, {}}, x, x, sum, stats, y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward({0, 4, In(w).first(2), w, {}, {}}, x, x, sum, stats, y),
                    std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("layer_norm: gradients", "[autograd][layer_norm]") {
  for (const Device& device : devices())
    gradcheck(device, {{70, 9}, {70, 9}, {9}, {9}, {9}, {9}},
              {uniform(630, -1, 1), uniform(630, -1, 1, 2), uniform(9, -1, 1, 3),
               uniform(9, -1, 1, 4), uniform(9, -1, 1, 5), uniform(9, -1, 1, 6)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                const std::vector<LayerNormPart> parts{{0, 3, in[2], in[3]}, {3, 67, in[4], in[5]}};
                return layer_norm(tape, in[0], in[1], parts, {.3, &kState, 9});
              });
}
#endif
