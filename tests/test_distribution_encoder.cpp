// The distribution encoder.
#include <array>

#include "autograd/distribution_encoder.h"
#include "kernels/distribution_encoder.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

const RandomState& kRandom = on_devices(RandomState{5, 9});

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

// Gradients by the formula, added to 0.5: dx and, of every modality, those of w1, b1, w2, b2.
std::vector<Doubles> reference_gradients(const DistributionEncoderShape& s,
                                         const std::vector<Weights>& all, const Values& x,
                                         const Values& dz, const Values& drest) {
  const auto at = [](const Values& v, int64_t i) { return double(v[size_t(i)]); };
  std::vector<Doubles> out{Doubles(x.size(), 0.5)};
  for (int64_t m = 0; m < std::ssize(all); ++m) {
    const Weights& w = all[size_t(m)];
    Doubles dw1(w.w1.size(), 0.5), db1(w.b1.size(), 0.5), dw2(w.w2.size(), 0.5),
        db2(w.b2.size(), 0.5);
    for (int64_t row = m * s.batch; row < (m + 1) * s.batch; ++row) {
      Doubles dh(size_t(s.hidden), 0.0), h(size_t(s.hidden), 0.0);
      for (int64_t j = 0; j < s.hidden; ++j) {
        double sum = at(w.b1, j);
        for (int64_t i = 0; i < s.width; ++i)
          sum += at(w.w1, j * s.width + i) * at(x, row * s.width + i);
        if (sum <= 0 || !kept(s.dropout, row * s.hidden + j)) continue;
        h[size_t(j)] = sum * double(s.dropout.scale());
      }
      for (int64_t o = 0; o < s.outputs; ++o) {
        const int64_t e = row * s.outputs + o;
        const double d = at(dz, e) + (drest.empty() ? 0 : at(drest, e));
        db2[size_t(o)] += d;
        for (int64_t j = 0; j < s.hidden; ++j) {
          dw2[size_t(o * s.hidden + j)] += d * h[size_t(j)];
          if (h[size_t(j)] > 0)
            dh[size_t(j)] += d * at(w.w2, o * s.hidden + j) * double(s.dropout.scale());
        }
      }
      for (int64_t j = 0; j < s.hidden; ++j) {
        db1[size_t(j)] += dh[size_t(j)];
        for (int64_t i = 0; i < s.width; ++i) {
          dw1[size_t(j * s.width + i)] += dh[size_t(j)] * at(x, row * s.width + i);
          out[0][size_t(row * s.width + i)] += dh[size_t(j)] * at(w.w1, j * s.width + i);
        }
      }
    }
    out.insert(out.end(), {dw1, db1, dw2, db2});
  }
  return out;
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
      const Doubles want = reference(s, all, x);
      Bits bits;
      for (const Device& device : devices())
        device.run([&, M = M, B = B, H = H, p = p](const auto& be) {
          Guarded z(M * B * p), rest(M * B * p);
          Shared<double> hidden(size_t(M * B * H));
          distribution_encoder_forward(be, s, groups, x, z.span(), rest.span(), hidden);
          require_close(z.span(), want, sizeof(real) == 4 ? 0.51 : 1e3, 0.01);
          REQUIRE((z.intact() && rest.intact()));
          const Values high = z.values(), low = rest.values();
          for (size_t i = 0; i < want.size(); ++i) {  // far below what z alone can say
            const double sum = double(high[i]) + double(low[i]);
            REQUIRE(std::abs(sum - want[i]) <= 1e-12 * (1 + std::abs(want[i])));
          }
          distribution_encoder_forward(be, s, groups, x, rest.span(), {}, hidden);
          REQUIRE((rest.values() == high));
          bits.require(device, {high, low});
        });
    }
}

TEST_CASE(
    "distribution_encoder: gradients follow the formula at every size with the same bits each "
    "time, empty ones are skipped",
    "[kernels][distribution_encoder]") {
  for (const auto& [M, B, d, H, p] : std::vector<std::array<int64_t, 5>>{{3, 32, 40, 40, 40},
                                                                         {3, 33, 9, 17, 5},
                                                                         {2, 1, 1, 1, 1},
                                                                         {2, 7, 129, 33, 3},
                                                                         {2, 300, 5, 6, 3},
                                                                         {1, 300, 70, 3, 2},
                                                                         {17, 2, 3, 4, 5},
                                                                         {3, 0, 4, 4, 4},
                                                                         {2, 3, 0, 4, 2},
                                                                         {2, 3, 4, 0, 2},
                                                                         {2, 3, 4, 2, 0}}) {
    const DistributionEncoderShape s{B, d, H, p, Dropout{0.25, &kRandom, 1}};
    const Values x = uniform(M * B * d, -1, 1, 3), dz = uniform(M * B * p, -1, 1, 4),
                 drest = uniform(B == 33 ? 0 : M * B * p, -1, 1, 5);
    std::vector<Weights> all;
    for (int64_t m = 0; m < M; ++m) all.push_back(weights(s, unsigned(10 * m + 1)));
    const std::vector<Doubles> want = reference_gradients(s, all, x, dz, drest);
    Bits bits;
    for (const Device& device : devices())
      device.run([&, M = M, B = B, H = H](const auto& be) {
        std::vector<Guarded> out;
        out.emplace_back(std::ssize(x), 0.5);
        for (const Weights& w : all)
          for (const Values* v : {&w.w1, &w.b1, &w.w2, &w.b2})
            out.emplace_back(std::ssize(*v), 0.5);
        std::vector<DistributionEncoderGroup> groups;
        for (size_t m = 0; m < all.size(); ++m)
          groups.push_back({all[m].w1, all[m].b1, all[m].w2, all[m].b2, out[4 * m + 1].span(),
                            out[4 * m + 2].span(), out[4 * m + 3].span(), out[4 * m + 4].span()});
        Workspace scratch(distribution_encoder_scratch_bytes(be, s, M));
        Shared<double> hidden(size_t(M * B * H));
        Values z(dz.size());
        distribution_encoder_forward(be, s, groups, x, z, {}, hidden);
        distribution_encoder_backward(be, s, groups, x, hidden, dz, drest, out[0].span(),
                                      scratch.span());
        std::vector<Values> got;
        for (size_t i = 0; i < out.size(); ++i) {
          require_close(out[i].span(), want[i], sizeof(real) == 4 ? 1 : 1e4);
          REQUIRE(out[i].intact());
          got.push_back(out[i].values());
        }
        bits.require(device, got);
        for (DistributionEncoderGroup& g : groups)
          g.dweight1 = g.dbias1 = g.dweight2 = g.dbias2 = {};
        distribution_encoder_backward(be, s, groups, x, hidden, dz, drest, {}, scratch.span());
        for (size_t i = 0; i < out.size(); ++i) REQUIRE((out[i].values() == got[i]));
        groups[0].dbias1 = out[2].span();
        distribution_encoder_backward(be, s, groups, x, hidden, dz, drest, {}, scratch.span());
        for (size_t i = 0; i < out.size(); ++i)
          if (i != 2) REQUIRE((out[i].values() == got[i]));
        for (size_t j = 0; j < want[2].size(); ++j)
          REQUIRE(close(out[2].values()[j], 2 * want[2][j] - 0.5, sizeof(real) == 4 ? 2 : 1e4));
      });
  }
}

TEST_CASE("distribution_encoder: sizes that do not fit throw",
          "[autograd][distribution_encoder][errors]") {
  for (const Device& device : devices()) {
    Tape tape(device);
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
    for (const Device& device : devices())
      gradcheck(
          device, shapes, start,
          [&](Tape& tape, const std::vector<Tensor>& t) {
            const std::vector<DistributionEncoderPart> parts{{t[1], t[2], t[3], t[4]},
                                                             {t[5], t[6], t[7], t[8]}};
            return distribution_encoder(tape, t[0], parts, s.dropout).z;
          },
          1e-8, 1e-4);
  }
}
#endif
