// Vector exponential and the dropout decisions of runs of elements.
#include "kernels/cpu/philox.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

TEST_CASE("simd: exp is within 2 ulp and right at its ends", "[kernels][simd]") {
  const double lowest = sizeof(real) == 4 ? -86.97 : -708.03,
               highest = sizeof(real) == 4 ? 88.7 : 709.7;
  Values x = uniform(200000, lowest, highest, 5);
  const Values small = uniform(50000, -1e-3, 1e-3, 6);
  x.insert(x.end(), small.begin(), small.end());
  double worst = 0;
  for (size_t i = 0; i + size_t(kLanes) <= x.size(); i += size_t(kLanes)) {
    real y[kLanes];
    store(y, vexp(load(x.data() + i)));
    for (size_t j = 0; j < size_t(kLanes); ++j) {
      const long double want = std::exp((long double)x[i + j]);
      const real rounded = real(want);
      const long double ulp =
          std::nextafter(rounded, std::numeric_limits<real>::infinity()) - rounded;
      worst = std::max(worst, double(std::abs((long double)y[j] - want) / ulp));
    }
  }
  REQUIRE(worst <= 2);
  const real infinity = std::numeric_limits<real>::infinity();
  const auto one = [](real v) { return vexp(broadcast(v))[0]; };
  REQUIRE(one(-infinity) == 0);
  REQUIRE(one(infinity) == infinity);
  REQUIRE(one(std::numeric_limits<real>::max()) == infinity);
  REQUIRE(one(-std::numeric_limits<real>::max()) == 0);
  REQUIRE(one(-1000) == 0);
  REQUIRE(one(0) == 1);
  REQUIRE(std::isnan(one(NAN)));
}

TEST_CASE("simd: partial vectors touch nothing else", "[kernels][simd]") {
  for (int64_t n = 0; n <= kLanes; ++n) {
    const Values source(size_t(n), 3);
    Guarded target(n);
    store_partial(target.span().data(), load_partial(source.data(), n) + 1, n);
    REQUIRE(target.intact());
    for (real v : target.span()) REQUIRE(v == 4);
    const vreal filled = load_partial(source.data(), n, 7);
    REQUIRE(sum_lanes(filled) == real(3 * n + 7 * (kLanes - n)));
    REQUIRE(max_lanes(filled) == (n < kLanes ? 7 : 3));
    for (int64_t i = 0; i < kLanes; ++i)
      REQUIRE(keep_lanes(uint32_t(1) << n, broadcast(2))[i] == (i == n ? 2 : 0));
  }
}

TEST_CASE("simd: transpose", "[kernels][simd]") {
  vreal m[kLanes];
  for (int64_t i = 0; i < kLanes; ++i)
    for (int64_t j = 0; j < kLanes; ++j) m[i][j] = real(100 * i + j);
  transpose(m);
  for (int64_t i = 0; i < kLanes; ++i)
    for (int64_t j = 0; j < kLanes; ++j) REQUIRE(m[i][j] == real(100 * j + i));
}

TEST_CASE("philox: runs equal the definition", "[kernels][dropout]") {
  const RandomState state{0x123456789abcdefull, 0xfedcba987ull};
  for (double rate : {0.1, 0.5, 0.999}) {
    const KeepStream stream({rate, &state, 77});
    for (uint64_t first : {uint64_t(0), uint64_t(5), (uint64_t(1) << 32) - 9, uint64_t(1) << 40})
      for (int64_t blocks = 0; blocks < 100; ++blocks) {
        std::vector<uint8_t> bits(size_t(blocks) + 1, 0xaa);
        keep_bits(stream, first, blocks, bits.data());
        for (int64_t i = 0; i < blocks; ++i)
          REQUIRE(bits[size_t(i)] == dropout_keep_bits(state.seed, state.step, 77, stream.threshold,
                                                       first + uint64_t(i)));
        REQUIRE(bits[size_t(blocks)] == 0xaa);
      }
  }
}
