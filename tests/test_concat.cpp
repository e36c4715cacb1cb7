// The fusion head's input.
#include "autograd/concat.h"
#include "kernels/concat.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("concat: part-major, then modality; inactive blocks are zero", "[kernels][concat]") {
  for (int64_t batch : {0, 1, 7, 129}) {
    const std::vector<uint8_t> active{1, 0, 1};
    const ConcatShape s{batch, 5, active};
    const Values a = uniform(batch * 10, -1, 1), b = uniform(batch * 10, -1, 1, 2),
                 dy = uniform(batch * 30, -1, 1, 3);
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded y(batch * 30), da(batch * 10, 1), db(batch * 10, 1);
        const std::vector<In> parts{a, b};
        const std::vector<InOut> gradients{da.span(), db.span()}, one{{}, db.span()};
        concat_forward(be, s, parts, y.span());
        concat_backward(be, s, dy, gradients);
        concat_backward(be, s, dy, one);
        device.wait();
        for (int64_t p = 0; p < 2; ++p)
          for (int64_t m = 0; m < 3; ++m)
            for (int64_t i = 0; i < batch; ++i)
              for (int64_t j = 0; j < 5; ++j) {
                if (m == 1) {
                  REQUIRE(y.span()[size_t(((i * 2 + p) * 3 + m) * 5 + j)] == 0);
                  continue;
                }
                const size_t from = size_t((m / 2 * batch + i) * 5 + j),
                             to = size_t(((i * 2 + p) * 3 + m) * 5 + j);
                REQUIRE(y.span()[to] == (p ? b : a)[from]);
                REQUIRE(close(double((p ? db : da).span()[from]),
                              1 + double(p + 1) * double(dy[to]), 4));
              }
        REQUIRE((y.intact() && da.intact() && db.intact()));
      });
  }
}

TEST_CASE("concat: more modalities and parts than a launch takes", "[kernels][concat]") {
  std::vector<uint8_t> active(70);
  for (size_t m = 0; m < active.size(); ++m) active[m] = m % 3 != 1;
  const ConcatShape s{3, 2, active};
  const int64_t part = s.active_count() * 6;
  const size_t count = 18, row = count * 70 * 2;
  std::vector<Values> values, gradients(count, Values(size_t(part), 1));
  std::vector<In> parts;
  std::vector<InOut> dparts;
  for (size_t p = 0; p < count; ++p) values.push_back(uniform(part, -1, 1, unsigned(p)));
  for (const Values& v : values) parts.push_back(v);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      dparts.clear();
      for (Values& g : gradients) {
        std::fill(g.begin(), g.end(), real(1));
        dparts.push_back(g);
      }
      Guarded y(int64_t(row) * 3);
      concat_forward(be, s, parts, y.span());
      concat_backward(be, s, y.span(), dparts);
      REQUIRE(y.intact());
      size_t a = 0;
      for (size_t m = 0; m < 70; a += active[m++])
        for (size_t e = 0; e < row * 3 / 70; ++e) {
          const size_t j = e % 2, b = e / 2 % 3, p = e / 6, from = (a * 3 + b) * 2 + j;
          const real got = y.span()[b * row + (p * 70 + m) * 2 + j];
          REQUIRE(got == (active[m] ? values[p][from] : real(0)));
          if (active[m]) REQUIRE(gradients[p][from] == 1 + values[p][from]);
        }
    });
}

TEST_CASE("concat: rejects what does not fit", "[kernels][concat][errors]") {
  const std::vector<uint8_t> active{1, 1};
  const ConcatShape s{3, 4, active};
  const Values a(24);
  Values y(24);
  const std::vector<In> good{a}, bad{In(a).first(23)};
  const std::vector<InOut> gradient{y}, short_one{Out(y).first(23)};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_NOTHROW(concat_forward(be, s, good, y));
      REQUIRE_THROWS_AS(concat_forward(be, s, bad, y), std::invalid_argument);
      REQUIRE_THROWS_AS(concat_forward(be, s, good, Out(y).first(23)), std::invalid_argument);
      REQUIRE_THROWS_AS(concat_forward(be, {2, 4, active}, good, y), std::invalid_argument);
      REQUIRE_NOTHROW(concat_backward(be, s, a, gradient));
      REQUIRE_THROWS_AS(concat_backward(be, s, a, short_one), std::invalid_argument);
      REQUIRE_THROWS_AS(concat_backward(be, s, In(a).first(23), gradient), std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("concat: gradients", "[autograd][concat]") {
  const std::vector<uint8_t> active{1, 0};
  for (const Device& device : devices())
    gradcheck(device, {{1, 3, 4}, {1, 3, 4}}, {uniform(12, -1, 1), uniform(12, -1, 1, 2)},
              [&](Tape& tape, const std::vector<Tensor>& in) { return concat(tape, in, active); });
}
#endif
