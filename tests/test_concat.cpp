// The fusion head's input.
#include "autograd/concat.h"
#include "kernels/concat.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("concat: part-major, then modality; inactive blocks are zero", "[kernels][concat]") {
  for (int64_t batch : {0, 1, 7, 129}) {
    const std::vector<uint8_t> active{1, 0, 1};
    const ConcatShape s{3, batch, 5, active};
    const Values a = uniform(batch * 15, -1, 1), b = uniform(batch * 15, -1, 1, 2),
                 dy = uniform(batch * 30, -1, 1, 3);
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded y(batch * 30), da(batch * 15, 1), db(batch * 15, 1);
        const std::vector<In> parts{a, b};
        const std::vector<InOut> gradients{da.span(), db.span()}, one{{}, db.span()};
        concat_forward(be, s, parts, y.span());
        concat_backward(be, s, dy, gradients);
        concat_backward(be, s, dy, one);
        for (int64_t p = 0; p < 2; ++p)
          for (int64_t m = 0; m < 3; ++m)
            for (int64_t i = 0; i < batch; ++i)
              for (int64_t j = 0; j < 5; ++j) {
                const size_t from = size_t((m * batch + i) * 5 + j),
                             to = size_t(((i * 2 + p) * 3 + m) * 5 + j);
                REQUIRE(y.span()[to] == (m == 1 ? 0 : (p ? b : a)[from]));
                REQUIRE(close(double((p ? db : da).span()[from]),
                              m == 1 ? 1 : 1 + double(p + 1) * double(dy[to]), 4));
              }
        REQUIRE((y.intact() && da.intact() && db.intact()));
      });
  }
}

TEST_CASE("concat: rejects what does not fit", "[kernels][concat][errors]") {
  const std::vector<uint8_t> active{1, 1};
  const ConcatShape s{2, 3, 4, active};
  const Values a(24);
  Values y(24);
  const std::vector<In> good{a}, bad{In(a).first(23)};
  REQUIRE_NOTHROW(concat_forward(Cpu{}, s, good, y));
  REQUIRE_THROWS_AS(concat_forward(Cpu{}, s, bad, y), std::invalid_argument);
  REQUIRE_THROWS_AS(concat_forward(Cpu{}, s, good, Out(y).first(23)), std::invalid_argument);
  REQUIRE_THROWS_AS(concat_forward(Cpu{}, {3, 2, 4, active}, good, y), std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("concat: gradients", "[autograd][concat]") {
  const std::vector<uint8_t> active{1, 0};
  gradcheck(Device{}, {{2, 3, 4}, {2, 3, 4}}, {uniform(24, -1, 1), uniform(24, -1, 1, 2)},
            [&](Tape& tape, const std::vector<Tensor>& in) { return concat(tape, in, active); });
}
#endif
