// Temporal convolution: definition, errors, gradients.
#include "autograd/conv1d.h"
#include "kernels/conv1d.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

// Two modalities, the second is computed; lengths may be shorter than the valid convolution.
void compare(int64_t steps, int64_t width, int64_t channels, int64_t kernel,
             const std::vector<int64_t>& lengths) {
  std::vector<int64_t> first{0};
  for (size_t b = 0; b < lengths.size(); ++b) first.push_back(first.back() + 2);
  for (int64_t n : lengths) first.push_back(first.back() + n);
  const int64_t batch = std::ssize(lengths);
  const Rows rows{2, batch, first};
  const Conv1dShape s{batch, steps, width, channels, kernel, 1};
  const Values x = uniform(batch * steps * width, -1, 1, 1),
               w = uniform(channels * width * kernel, -1, 1, 2),
               dy = uniform(rows.total() * channels, -1, 1, 3);
  std::vector<double> y(dy.size(), 9), dx(x.size(), 1), dw(w.size(), 1);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < lengths[size_t(b)]; ++t)
      for (int64_t j = 0; j < channels; ++j) {
        const size_t at = size_t((first[size_t(batch + b)] + t) * channels + j);
        y[at] = 0;
        for (int64_t u = 0; u < kernel; ++u)
          for (int64_t i = 0; i < width; ++i) {
            const size_t xi = size_t((b * steps + t + u) * width + i),
                         wi = size_t((j * width + i) * kernel + u);
            y[at] += double(w[wi]) * double(x[xi]);
            dx[xi] += double(w[wi]) * double(dy[at]);
            dw[wi] += double(x[xi]) * double(dy[at]);
          }
      }
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(conv1d_scratch_bytes(be, s));
      Guarded gy(std::ssize(y), 9), gx(std::ssize(x), 1), gw(std::ssize(w), 1);
      conv1d_forward(be, s, rows, x, w, gy.span(), scratch.span());
      conv1d_backward(be, s, rows, x, w, dy, gx.span(), gw.span(), scratch.span());
      require_close(gy.span(), y, 8 + double(kernel * width) / 2);
      require_close(gx.span(), dx, 8 + double(channels));
      require_close(gw.span(), dw, 8 + double(rows.total()) / 4);
      REQUIRE((gy.intact() && gx.intact() && gw.intact()));
      const std::vector<Values> got{gy.values(), gx.values(), gw.values()};
      bits.require(device, got);
      conv1d_backward(be, s, rows, x, w, dy, {}, {}, scratch.span());
    });
}

}  // namespace

TEST_CASE("conv1d: equals its definition", "[kernels][conv1d]") {
  for (int64_t width : {1, 7, 33})
    for (int64_t channels : {1, 6, 40})
      for (int64_t kernel : {1, 2, 5}) compare(9, width, channels, kernel, {5, 0, 3});
  compare(5, 3, 4, 5, {1, 0});
  compare(7, 3, 4, 1, {});
  compare(1, 1024, 48, 1, {1, 1, 1});
  compare(50, 74, 64, 5, {46, 46, 20});
  compare(50, 129, 64, 1, {50, 50});
  compare(12, 400, 30, 5, {8, 3, 8, 8});  // long sums
  compare(20, 768, 40, 1, {20, 11});
}

namespace {

template <class Backend>
void reject(const Backend& be) {
  const std::vector<int64_t> first{0, 3, 6};
  const Rows rows{1, 2, first};
  const Conv1dShape good{2, 4, 5, 6, 2, 0};
  const Values x(40), w(60);
  Values y(36);
  Workspace space(1 << 16);
  const auto forward = [&](const Conv1dShape& s, In a, In b, Out c) {
    conv1d_forward(be, s, rows, a, b, c, space.span());
  };
  REQUIRE_NOTHROW(forward(good, x, w, y));
  REQUIRE_THROWS_AS(forward(good, In(x).first(39), w, y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(good, x, In(w).first(59), y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(good, x, w, Out(y).first(35)), std::invalid_argument);
  Conv1dShape bad = good;
  bad.modality = 1;
  REQUIRE_THROWS_AS(forward(bad, x, w, y), std::invalid_argument);
  bad = good, bad.steps = 2, bad.width = 10;  // sequences of 3 need 4 steps
  const Values wide(120);
  REQUIRE_THROWS_AS(forward(bad, x, wide, y), std::invalid_argument);
  REQUIRE_THROWS_AS(conv1d_forward(be, good, rows, x, w, y, space.span().first(64)),
                    std::invalid_argument);
}

}  // namespace

TEST_CASE("conv1d: rejects what does not fit", "[kernels][conv1d][errors]") {
  for (const Device& device : devices()) device.run([](const auto& be) { reject(be); });
}

#ifdef DECALIGN_F64
TEST_CASE("conv1d: gradients", "[autograd][conv1d]") {
  const std::vector<int64_t> first{0, 6, 10, 18, 21};
  const Rows rows{2, 2, first};
  for (const Device& device : devices())
    gradcheck(device, {{2, 10, 3}, {6, 3, 5}, {2, 9, 6}},
              {uniform(60, -1, 1), uniform(90, -1, 1, 2), uniform(108, -1, 1, 3)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                const std::vector<Conv1dPart> parts{{in[0], in[1]}, {in[2], {}}};
                return conv1d(tape, rows, parts, 6);
              });
}
#endif
