// The fused feed-forward layer: definition, equality with two dense layers, errors, gradients.
#include "autograd/feed_forward.h"
#include "kernels/feed_forward.h"
#include "kernels/matmul.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

const RandomState& kState = on_devices(RandomState{11, 5});

// y and, from dy, the gradients, in double, from the header's formulas. h is taken to be open where
// `given` says so: rounding decides at a kink.
struct Reference {
  std::vector<double> h, y, dx, dweight1, dbias1, dweight2, dbias2;
  Reference(const FeedForwardShape& s, const std::vector<FeedForwardGroup>& groups, In x, In dy,
            In given)
      : h(size_t(s.rows * s.hidden)), y(x.size()), dx(x.size()) {
    const size_t size = size_t(s.width * s.hidden), width = size_t(s.width),
                 hidden = size_t(s.hidden);
    dweight1.resize(groups.size() * size), dweight2 = dweight1;
    dbias1.resize(groups.size() * hidden), dbias2.resize(groups.size() * width);
    for (size_t i = 0; i < groups.size(); ++i) {
      const FeedForwardGroup& g = groups[i];
      for (size_t r = size_t(g.row); r < size_t(g.row + g.rows); ++r) {
        for (size_t c = 0; c < width; ++c) {
          y[r * width + c] = g.bias2.empty() ? 0 : double(g.bias2[c]);
          dbias2[i * width + c] += double(dy[r * width + c]);
        }
        for (size_t j = 0; j < hidden; ++j) {
          const size_t e = r * hidden + j;
          double z = g.bias1.empty() ? 0 : double(g.bias1[j]), dh = 0;
          for (size_t c = 0; c < width; ++c) {
            z += double(x[r * width + c]) * double(g.weight1[j * width + c]);
            dh += double(dy[r * width + c]) * double(g.weight2[c * hidden + j]);
          }
          const uint32_t bits = s.dropout.on()
                                    ? dropout_keep_bits(kState.seed, kState.step, s.dropout.op,
                                                        s.dropout.threshold(), e / 8)
                                    : 255;
          const double scale = bits >> (e % 8) & 1 ? double(s.dropout.scale()) : 0;
          h[e] = z > 0 ? z * scale : 0;
          const double dz = given[e] > 0 ? dh * scale : 0;
          dbias1[i * hidden + j] += dz;
          for (size_t c = 0; c < width; ++c) {
            y[r * width + c] += h[e] * double(g.weight2[c * hidden + j]);
            dx[r * width + c] += dz * double(g.weight1[j * width + c]);
            dweight1[i * size + j * width + c] += dz * double(x[r * width + c]);
            dweight2[i * size + c * hidden + j] += double(dy[r * width + c]) * h[e];
          }
        }
      }
    }
  }
};

// Arrays of a problem with three groups of rows: `rows`, none and about half as many.
struct Problem {
  FeedForwardShape s;
  Values x, dy, weight1, weight2, bias1, bias2;
  std::vector<FeedForwardGroup> groups;
  Problem(int64_t rows, int64_t width, int64_t hidden, double rate) {
    const int64_t second = rows / 2;
    s.rows = rows + second, s.width = width, s.hidden = hidden;
    s.dropout = {rate, &kState, 3};
    x = uniform(s.rows * width, -1, 1, 1), dy = uniform(s.rows * width, -1, 1, 2);
    weight1 = uniform(3 * hidden * width, -1, 1, 3),
    weight2 = uniform(3 * hidden * width, -1, 1, 4);
    bias1 = uniform(3 * hidden, -1, 1, 5), bias2 = uniform(3 * width, -1, 1, 6);
    for (int64_t g = 0; g < 3; ++g) {
      FeedForwardGroup group;
      group.row = g == 0 ? 0 : rows, group.rows = g == 0 ? rows : g == 1 ? 0 : second;
      group.weight1 = part<In>(weight1, g), group.weight2 = part<In>(weight2, g);
      if (g != 2) group.bias1 = part<In>(bias1, g), group.bias2 = part<In>(bias2, g);
      groups.push_back(group);
    }
  }
  // The third of an array that belongs to group g.
  template <class Span, class Array>
  static Span part(Array& all, int64_t g) {
    const size_t size = std::size(all) / 3;
    return Span(all).subspan(size_t(g) * size, size);
  }
};

void compare(int64_t rows, int64_t width, int64_t hidden, double rate) {
  CAPTURE(rows, width, hidden, rate);
  Problem p(rows, width, hidden, rate);
  const FeedForwardShape& s = p.s;
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(feed_forward_scratch_bytes(be, s, p.groups));
      Guarded h(s.rows * hidden), y(s.rows * width), dx(s.rows * width, 1),
          dweight1(3 * hidden * width, 1), dweight2(3 * hidden * width, 1), dbias1(3 * hidden, 1),
          dbias2(3 * width, 1);
      Out all1 = dweight1.span(), all2 = dweight2.span(), sums1 = dbias1.span(),
          sums2 = dbias2.span();
      for (int64_t g = 0; g < 3; ++g) {
        FeedForwardGroup& group = p.groups[size_t(g)];
        group.dweight1 = p.part<InOut>(all1, g), group.dweight2 = p.part<InOut>(all2, g);
        group.dbias1 = p.part<InOut>(sums1, g), group.dbias2 = p.part<InOut>(sums2, g);
      }
      feed_forward_forward(be, s, p.groups, p.x, h.span(), y.span(), scratch.span());
      feed_forward_backward(be, s, p.groups, p.x, h.span(), p.dy, dx.span(), scratch.span());
      REQUIRE((h.intact() && y.intact() && dx.intact() && dweight1.intact() && dweight2.intact() &&
               dbias1.intact() && dbias2.intact()));
      const std::vector<Values> got{h.values(),        y.values(),      dx.values(),
                                    dweight1.values(), dbias1.values(), dweight2.values(),
                                    dbias2.values()};
      const Reference want(s, p.groups, p.x, p.dy, h.span());
      const auto plus_one = [](std::vector<double> v) {
        for (double& e : v) e += 1;
        return v;
      };
      // Bounds follow the number and the size of the terms of a sum.
      const double inner = 8 + double(width), outer = inner + double(hidden);
      require_close(got[0], want.h, inner, 1);
      require_close(got[1], want.y, 2 * outer, 1);
      require_close(got[2], plus_one(want.dx), 2 * outer, 1);
      require_close(got[3], plus_one(want.dweight1), inner + double(rows), 1);
      require_close(got[4], plus_one(want.dbias1), inner + double(rows), 1);
      require_close(got[5], plus_one(want.dweight2), inner + double(rows), 1);
      require_close(got[6], plus_one(want.dbias2), inner + double(rows), 1);
      bits.require(device, got);
    });
}

}  // namespace

TEST_CASE("feed_forward: equals its definition for any size", "[kernels][feed_forward]") {
  for (int64_t rows : {0, 1, 7, 33, 129})
    for (int64_t width : {1, 7, 30, 64})
      for (int64_t hidden : {1, 17, 65, 120}) compare(rows, width, hidden, rows % 2 ? 0.3 : 0);
  compare(5, 0, 4, 0.1);
  compare(5, 4, 0, 0.1);
}

TEST_CASE("feed_forward: layers like the network's, few rows", "[kernels][feed_forward]") {
  compare(90, 64, 256, 0.1);
  compare(40, 30, 120, 0.1);
}

TEST_CASE("feed_forward: the network's layers", "[kernels][feed_forward][large]") {
  compare(3200, 64, 256, 0.1);  // 4800 rows in two groups
  compare(1600, 30, 120, 0.1);
  compare(500, 40, 160, 0.2);
  compare(900, 48, 192, 0);
}

TEST_CASE("feed_forward: equals two dense layers", "[kernels][feed_forward]") {
  for (const auto& [width, rate] : {std::pair{30, 0.1}, {48, 0.0}}) {
    const int64_t hidden = 4 * width, rows = 450;
    Problem p(300, width, hidden, rate);
    MatmulShape first{rows, width, rows, hidden, hidden, true, p.s.dropout};
    MatmulShape second{rows, hidden, rows, width, width, false, {}};
    Values dweight1(p.weight1.size()), dweight2(p.weight2.size()), dbias1(p.bias1.size()),
        dbias2(p.bias2.size()), dx(p.x.size());
    Values want1 = dweight1, want2 = dweight2, sums1 = dbias1, sums2 = dbias2, want_dx = dx;
    std::vector<MatmulGroup> groups1, groups2;
    for (int64_t g = 0; g < 3; ++g) {
      FeedForwardGroup& group = p.groups[size_t(g)];
      group.dweight1 = p.part<InOut>(dweight1, g), group.dweight2 = p.part<InOut>(dweight2, g);
      group.dbias1 = p.part<InOut>(dbias1, g), group.dbias2 = p.part<InOut>(dbias2, g);
      groups1.push_back({group.row, group.row, group.rows, 0, group.weight1, group.bias1,
                         p.part<InOut>(want1, g), p.part<InOut>(sums1, g)});
      groups2.push_back({group.row, group.row, group.rows, 0, group.weight2, group.bias2,
                         p.part<InOut>(want2, g), p.part<InOut>(sums2, g)});
    }
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Workspace scratch(std::max({feed_forward_scratch_bytes(be, p.s, p.groups),
                                    matmul_scratch_bytes(be, first, groups1),
                                    matmul_scratch_bytes(be, second, groups2)}));
        Values h(size_t(rows * hidden)), y(p.x.size()), want_h = h, want_y = y, dh = h;
        matmul_forward(be, first, groups1, p.x, want_h, scratch.span());
        matmul_forward(be, second, groups2, want_h, want_y, scratch.span());
        matmul_backward(be, second, groups2, want_h, {}, p.dy, dh, scratch.span());
        matmul_backward(be, first, groups1, p.x, want_h, dh, want_dx, scratch.span());
        feed_forward_forward(be, p.s, p.groups, p.x, h, y, scratch.span());
        feed_forward_backward(be, p.s, p.groups, p.x, h, p.dy, dx, scratch.span());
        const auto same = [](const Values& got, const Values& want) {
          require_close(got, std::vector<double>(want.begin(), want.end()), 512, 1);
        };
        device.wait();
        REQUIRE(h == want_h);
        same(y, want_y), same(dx, want_dx);
        same(dweight1, want1), same(dweight2, want2), same(dbias1, sums1), same(dbias2, sums2);
      });
  }
}

namespace {

template <class Backend>
void add_and_skip(const Backend& be) {
  Problem p(230, 30, 65, 0.1);
  Workspace scratch(feed_forward_scratch_bytes(be, p.s, p.groups));
  Values h(size_t(p.s.rows * p.s.hidden)), y(p.x.size());
  feed_forward_forward(be, p.s, p.groups, p.x, h, y, scratch.span());
  const auto backward = [&](bool weights1, bool weights2, bool wants_dx) {
    std::vector<Values> g{Values(p.weight1.size()), Values(p.bias1.size()),
                          Values(p.weight2.size()), Values(p.bias2.size()), Values(p.x.size())};
    for (int64_t i = 0; i < 3; ++i) {
      FeedForwardGroup& group = p.groups[size_t(i)];
      group.dweight1 = weights1 ? p.part<InOut>(g[0], i) : InOut();
      group.dbias1 = weights1 ? p.part<InOut>(g[1], i) : InOut();
      group.dweight2 = weights2 ? p.part<InOut>(g[2], i) : InOut();
      group.dbias2 = weights2 ? p.part<InOut>(g[3], i) : InOut();
    }
    for (int repeat = 0; repeat < 2; ++repeat)
      feed_forward_backward(be, p.s, p.groups, p.x, h, p.dy, wants_dx ? InOut(g[4]) : InOut(),
                            scratch.span());
    wait();
    return g;
  };
  const std::vector<Values> all = backward(true, true, true), first = backward(true, false, false),
                            second = backward(false, true, false),
                            dx = backward(false, false, true);
  REQUIRE((first[0] == all[0] && first[1] == all[1]));
  REQUIRE((second[2] == all[2] && second[3] == all[3]));
  REQUIRE(dx[4] == all[4]);
  const Reference want(p.s, p.groups, p.x, p.dy, h);
  const auto twice = [](std::vector<double> v) {
    for (double& e : v) e *= 2;
    return v;
  };
  require_close(all[0], twice(want.dweight1), 200);
  require_close(all[2], twice(want.dweight2), 200);
  require_close(all[4], twice(want.dx), 200);

  // Groups that share their gradients: the sum of all.
  Values shared(p.weight1.size() / 3);
  for (FeedForwardGroup& group : p.groups)
    group.dweight1 = shared, group.dweight2 = group.dbias1 = group.dbias2 = InOut();
  feed_forward_backward(be, p.s, p.groups, p.x, h, p.dy, {}, scratch.span());
  std::vector<double> sum(shared.size());
  for (size_t i = 0; i < want.dweight1.size(); ++i) sum[i % sum.size()] += want.dweight1[i];
  require_close(shared, sum, 200);
}

template <class Backend>
void reject(const Backend& be) {
  FeedForwardShape s;
  s.rows = 4, s.width = 3, s.hidden = 2;
  const Values x(12), weight(6), bias1(2), bias2(3);
  Values h(8), y(12), dx(12), gradient(6);
  const FeedForwardGroup good{0, 4, weight, bias1, weight, bias2, {}, {}, {}, {}};
  const size_t bytes = feed_forward_scratch_bytes(be, s, std::span(&good, 1));
  Workspace space(2 * bytes);
  const auto forward = [&](const FeedForwardShape& shape, const FeedForwardGroup& g, In xs, Out hs,
                           Out ys, size_t size) {
    feed_forward_forward(be, shape, std::span(&g, 1), xs, hs, ys, space.span().first(size));
  };
  const auto backward = [&](const FeedForwardGroup& g, In xs, In hs, In dys, InOut dxs,
                            size_t size) {
    feed_forward_backward(be, s, std::span(&g, 1), xs, hs, dys, dxs, space.span().first(size));
  };
  using Error = std::invalid_argument;
  REQUIRE_NOTHROW(forward(s, good, x, h, y, bytes));
  REQUIRE_THROWS_AS(forward(s, good, In(x).first(11), h, y, bytes), Error);
  REQUIRE_THROWS_AS(forward(s, good, x, Out(h).first(7), y, bytes), Error);
  REQUIRE_THROWS_AS(forward(s, good, x, h, Out(y).first(11), bytes), Error);
  REQUIRE_THROWS_AS(forward(s, good, x, h, y, bytes - 64), Error);
  REQUIRE_NOTHROW(backward(good, x, h, x, dx, bytes));
  REQUIRE_NOTHROW(backward(good, x, h, x, {}, bytes));
  REQUIRE_THROWS_AS(backward(good, In(x).first(11), h, x, dx, bytes), Error);
  REQUIRE_THROWS_AS(backward(good, x, In(h).first(7), x, dx, bytes), Error);
  REQUIRE_THROWS_AS(backward(good, x, h, In(x).first(11), dx, bytes), Error);
  REQUIRE_THROWS_AS(backward(good, x, h, x, InOut(dx).first(11), bytes), Error);
  REQUIRE_THROWS_AS(backward(good, x, h, x, dx, bytes - 64), Error);
  const auto refuse = [&](auto change) {
    FeedForwardGroup bad = good;
    change(bad);
    REQUIRE_THROWS_AS(backward(bad, x, h, x, dx, 2 * bytes), Error);
  };
  refuse([](FeedForwardGroup& g) { g.row = 1; });
  refuse([](FeedForwardGroup& g) { g.rows = 3; });
  refuse([](FeedForwardGroup& g) { g.rows = -1; });
  refuse([](FeedForwardGroup& g) { g.weight1 = g.weight1.first(5); });
  refuse([](FeedForwardGroup& g) { g.weight2 = g.weight2.first(5); });
  refuse([](FeedForwardGroup& g) { g.bias1 = g.bias1.first(1); });
  refuse([](FeedForwardGroup& g) { g.bias2 = g.bias2.first(2); });
  refuse([&](FeedForwardGroup& g) { g.dweight1 = InOut(gradient).first(5); });
  refuse([&](FeedForwardGroup& g) { g.dweight2 = InOut(gradient).first(5); });
  refuse([&](FeedForwardGroup& g) { g.dbias1 = InOut(gradient).first(3); });
  refuse([&](FeedForwardGroup& g) { g.dbias2 = InOut(gradient).first(2); });
  FeedForwardShape dropping = s;
  dropping.dropout = {0.5, nullptr, 0};
  REQUIRE_THROWS_AS(forward(dropping, good, x, h, y, bytes), Error);
  dropping.dropout = {1.0, &kState, 0};
  REQUIRE_THROWS_AS(forward(dropping, good, x, h, y, bytes), Error);
}

}  // namespace

TEST_CASE("feed_forward: adds to what is there, skips empty gradients", "[kernels][feed_forward]") {
  for (const Device& device : devices()) device.run([](const auto& be) { add_and_skip(be); });
}

TEST_CASE("feed_forward: rejects what does not fit", "[kernels][feed_forward][errors]") {
  for (const Device& device : devices()) device.run([](const auto& be) { reject(be); });
}

TEST_CASE("feed_forward: the op rejects weights of other shapes",
          "[autograd][feed_forward][errors]") {
  Tape tape;
  Values x(12), weight(6), one(3);
  const Tensor input = tape.leaf({4, 3}, x), weight1 = tape.leaf({2, 3}, weight),
               weight2 = tape.leaf({3, 2}, weight), bias2 = tape.leaf({3}, one);
  const auto run = [&](const Tensor& w1, const Tensor& w2, const Tensor& from) {
    const std::vector<FeedForwardPart> parts{{0, 4, w1, {}, w2, bias2}};
    return feed_forward(tape, from, parts);
  };
  REQUIRE(run(weight1, weight2, input).shape == Shape{4, 3});
  REQUIRE_THROWS_AS(run(weight2, weight2, input), std::invalid_argument);
  REQUIRE_THROWS_AS(run(weight1, weight1, input), std::invalid_argument);
  REQUIRE_THROWS_AS(run({}, weight2, input), std::invalid_argument);
  REQUIRE_THROWS_AS(run(weight1, weight2, bias2), std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("feed_forward: gradients", "[autograd][feed_forward]") {
  for (const Device& device : devices())
    for (double rate : {0.0, 0.3})
      gradcheck(
          device, {{33, 7}, {10, 7}, {10}, {7, 10}, {7}, {10, 7}, {7, 10}},
          {uniform(231, -1, 1, 3), uniform(70, -1, 1, 4), uniform(10, -1, 1, 5),
           uniform(70, -1, 1, 6), uniform(7, -1, 1, 7), uniform(70, -1, 1, 8),
           uniform(70, -1, 1, 9)},
          [&](Tape& tape, const std::vector<Tensor>& in) {
            // Two parts share their weights; the third has no biases.
            const std::vector<FeedForwardPart> parts{{0, 12, in[1], in[2], in[3], in[4]},
                                                     {12, 13, in[1], in[2], in[3], in[4]},
                                                     {25, 8, in[5], {}, in[6], {}}};
            return feed_forward(tape, in[0], parts,
                                rate > 0 ? Dropout{rate, &kState, 1} : Dropout{});
          },
          1e-8, 1e-5);
}
#endif
