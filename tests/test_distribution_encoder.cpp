// The distribution encoder.
#include <array>

#include "autograd/distribution_encoder.h"
#include "kernels/distribution_encoder.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

const RandomState kRandom{5, 9};

bool kept(const Dropout& d, int64_t element) {
  return !d.on() || (dropout_keep_bits(kRandom.seed, kRandom.step, d.op, d.threshold(),
                                       uint64_t(element / 8)) >>
                     (element % 8)) &
                        1;
}

struct Weights {
  Values w1, b1, w2, b2;
};

Weights weights(const DistributionEncoderShape& s, unsigned seed) {
  return {uniform(s.hidden * s.width, -1, 1, seed), uniform(s.hidden, -1, 1, seed + 1),
          uniform(s.outputs * s.hidden, -1, 1, seed + 2), uniform(s.outputs, -1, 1, seed + 3)};
}

// z of every modality by the formula.
Doubles reference(const DistributionEncoderShape& s, const std::vector<Weights>& all,
                  const Values& x) {
  Doubles z;
  for (size_t row = 0; row < all.size() * size_t(s.batch); ++row) {
    const Weights& w = all[row / size_t(s.batch)];
    Doubles h;
    for (int64_t j = 0; j < s.hidden; ++j) {
      double sum = double(w.b1[size_t(j)]);
      for (int64_t i = 0; i < s.width; ++i)
        sum += double(w.w1[size_t(j * s.width + i)]) * double(x[row * size_t(s.width) + size_t(i)]);
      h.push_back(sum > 0 && kept(s.dropout, int64_t(row) * s.hidden + j)
                      ? sum * double(s.dropout.scale())
                      : 0);
    }
    for (int64_t k = 0; k < s.outputs; ++k) {
      double sum = double(w.b2[size_t(k)]);
      for (int64_t j = 0; j < s.hidden; ++j)
        sum += double(w.w2[size_t(k * s.hidden + j)]) * h[size_t(j)];
      z.push_back(sum);
    }
  }
  return z;
}

}  // namespace

TEST_CASE("distribution_encoder: matches the formula to the last bits at every size",
          "[kernels][distribution_encoder]") {
  for (const auto& [M, B, d, H, p] : std::vector<std::array<int64_t, 5>>{{3, 32, 40, 40, 40},
                                                                         {2, 33, 7, 5, 129},
                                                                         {5, 1, 1, 1, 1},
                                                                         {2, 7, 129, 33, 3},
                                                                         {3, 0, 4, 4, 4},
                                                                         {2, 3, 0, 4, 2},
                                                                         {2, 3, 4, 0, 2}})
    for (double rate : {0.0, 0.4}) {
      DistributionEncoderShape s{B, d, H, p, Dropout{rate, &kRandom, 3}};
      std::vector<Weights> all;
      std::vector<DistributionEncoderGroup> groups;
      for (int64_t m = 0; m < M; ++m) all.push_back(weights(s, unsigned(10 * m + 1)));
      for (const Weights& w : all) groups.push_back({w.w1, w.b1, w.w2, w.b2, {}, {}, {}, {}});
      const Values x = uniform(M * B * d, -1, 1, 7);
      for (int threads : {1, 2, 5}) {
        Guarded z(M * B * p), rest(M * B * p);
        Doubles hidden(size_t(M * B * H));
        distribution_encoder_forward(Cpu{threads}, s, groups, x, z.span(), rest.span(), hidden);
        REQUIRE((z.intact() && rest.intact()));
        const Doubles want = reference(s, all, x);
        require_close(z.span(), want, sizeof(real) == 4 ? 0.51 : 1e3, 0.01);
        for (size_t i = 0; i < want.size(); ++i) {  // far below what z alone can say
          const double sum = double(z.values()[i]) + double(rest.values()[i]);
          REQUIRE(std::abs(sum - want[i]) <= 1e-12 * (1 + std::abs(want[i])));
        }
        distribution_encoder_forward(Cpu{threads}, s, groups, x, rest.span(), {}, hidden);
        REQUIRE((rest.values() == z.values()));
      }
    }
}

TEST_CASE(
    "distribution_encoder: every thread count gives the same gradients, empty ones are "
    "skipped",
    "[kernels][distribution_encoder]") {
  const int64_t M = 3, B = 33;
  const DistributionEncoderShape s{B, 9, 17, 5, Dropout{0.25, &kRandom, 1}};
  const Values x = uniform(M * B * s.width, -1, 1, 3), dz = uniform(M * B * s.outputs, -1, 1, 4);
  std::vector<Weights> all;
  for (int64_t m = 0; m < M; ++m) all.push_back(weights(s, unsigned(10 * m + 1)));
  std::vector<Values> bits;
  for (int threads : {1, 2, 5}) {
    std::vector<Guarded> out;
    for (const Weights& w : all)
      for (const Values* v : {&w.w1, &w.b1, &w.w2, &w.b2}) out.emplace_back(std::ssize(*v), 0.5);
    Guarded dx(M * B * s.width, 0.5);
    std::vector<DistributionEncoderGroup> groups;
    for (size_t m = 0; m < all.size(); ++m)
      groups.push_back({all[m].w1, all[m].b1, all[m].w2, all[m].b2, out[4 * m].span(),
                        out[4 * m + 1].span(), out[4 * m + 2].span(), out[4 * m + 3].span()});
    Workspace scratch(distribution_encoder_scratch_bytes(Cpu{}, s, M));
    Doubles hidden(size_t(M * B * s.hidden));
    Values z(dz.size());
    distribution_encoder_forward(Cpu{threads}, s, groups, x, z, {}, hidden);
    distribution_encoder_backward(Cpu{threads}, s, groups, x, hidden, dz, {}, dx.span(),
                                  scratch.span());
    std::vector<Values> got{dx.values()};
    REQUIRE(dx.intact());
    for (const Guarded& g : out) {
      REQUIRE(g.intact());
      got.push_back(g.values());
    }
    if (threads == 1) bits = got;
    REQUIRE((got == bits));
    for (DistributionEncoderGroup& g : groups) g.dweight1 = g.dbias1 = g.dweight2 = g.dbias2 = {};
    distribution_encoder_backward(Cpu{threads}, s, groups, x, hidden, dz, {}, {}, scratch.span());
    for (size_t i = 0; i < out.size(); ++i) REQUIRE((out[i].values() == bits[i + 1]));
  }
}

TEST_CASE("distribution_encoder: sizes that do not fit throw",
          "[autograd][distribution_encoder][errors]") {
  Tape tape;
  Values x(24), w1(20), b1(5), w2(15), b2(3);
  const DistributionEncoderPart part{tape.leaf({5, 4}, w1), tape.leaf({5}, b1),
                                     tape.leaf({3, 5}, w2), tape.leaf({3}, b2)};
  const std::vector<DistributionEncoderPart> two{part, part};
  REQUIRE(distribution_encoder(tape, tape.leaf({2, 3, 4}, x), two).z.shape == Shape{2, 3, 3});
  REQUIRE_THROWS_AS(distribution_encoder(tape, tape.leaf({3, 2, 4}, x), two),
                    std::invalid_argument);
  REQUIRE_THROWS_AS(distribution_encoder(tape, tape.leaf({2, 2, 6}, x), two),
                    std::invalid_argument);
  REQUIRE_THROWS_AS(distribution_encoder(tape, tape.leaf({2, 3, 4}, x), two, Dropout{0.5}),
                    std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("distribution_encoder: gradient", "[autograd][distribution_encoder]") {
  for (double rate : {0.0, 0.3}) {
    const DistributionEncoderShape s{4, 3, 6, 2, Dropout{rate, &kRandom, 2}};
    std::vector<Shape> shapes{{2, s.batch, s.width}};
    std::vector<Values> start{uniform(2 * s.batch * s.width, -1, 1, 3)};
    for (unsigned m = 0; m < 2; ++m) {
      const Weights w = weights(s, 10 * m + 20);
      for (const Shape& shape : {Shape{s.hidden, s.width}, Shape{s.hidden},
                                 Shape{s.outputs, s.hidden}, Shape{s.outputs}})
        shapes.push_back(shape);
      for (const Values& v : {w.w1, w.b1, w.w2, w.b2}) start.push_back(v);
    }
    gradcheck(
        devices()[1], shapes, start,
        [&](Tape& tape, const std::vector<Tensor>& t) {
          const std::vector<DistributionEncoderPart> parts{{t[1], t[2], t[3], t[4]},
                                                           {t[5], t[6], t[7], t[8]}};
          return distribution_encoder(tape, t[0], parts, s.dropout).z;
        },
        1e-8, 1e-4);
  }
}
#endif
