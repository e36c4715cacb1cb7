// Attention: definition, masks, shared keys, errors, gradients.
#include "autograd/attention.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

const RandomState& kState = on_devices(RandomState{17, 2});

struct Problem {
  std::vector<int64_t> first;
  std::vector<KeyRange> ranges;
  std::vector<Dropout> dropout;
  AttentionShape shape;
  // One modality per entry of `lengths`; sequence i has the keys key_lengths[i], split in two
  // ranges; `shared` lets every sequence start at key row 0. Rows begin anywhere unless `aligned`.
  Problem(std::vector<int64_t> lengths, std::vector<int64_t> key_lengths, int64_t depth,
          int64_t heads, bool causal, double rate, bool shared, bool aligned = false) {
    first.push_back(0);
    for (int64_t n : lengths) first.push_back(first.back() + n);
    int64_t row = 0, last = 0;
    for (int64_t n : key_lengths) {
      if (shared) row = 0;
      ranges.push_back({row, n / 3});
      ranges.push_back({row + n / 3, n - n / 3});
      row += n;
      last = std::max(last, row);
    }
    for (size_t m = 0; m < lengths.size(); ++m) dropout.push_back({rate, &kState, 8});
    shape.queries = {std::ssize(lengths), 1, first};
    shape.width = depth * heads, shape.heads = heads;
    shape.key_rows = last, shape.key_stride = depth * heads + (aligned ? 8 : 3);
    shape.query_stride = depth * heads + (aligned ? 4 : 2);
    shape.ranges = ranges, shape.ranges_per_sequence = 2, shape.causal = causal;
    shape.dropout = dropout;
  }
};

struct Result {
  std::vector<double> out, lse, dq, dk, dv;
};

Result reference(const AttentionShape& s, In q, In k, In v, In dout) {
  const int64_t depth = s.width / s.heads, rows = s.queries.total();
  Result r{std::vector<double>(size_t(rows * s.width)), std::vector<double>(size_t(rows * s.heads)),
           std::vector<double>(q.size()), std::vector<double>(k.size()),
           std::vector<double>(v.size())};
  for (int64_t i = 0; i < s.queries.sequences(); ++i) {
    std::vector<int64_t> keys;
    for (int64_t g = 0; g < s.ranges_per_sequence; ++g) {
      const KeyRange range = s.ranges[size_t(i * s.ranges_per_sequence + g)];
      for (int64_t j = 0; j < range.length; ++j) keys.push_back(range.row + j);
    }
    const Dropout& drop = s.dropout[size_t(i / s.queries.batch)];
    const int64_t padded = (std::ssize(keys) + 7) / 8 * 8;
    for (int64_t t = 0; t < s.queries.length(i); ++t)
      for (int64_t h = 0; h < s.heads; ++h) {
        const int64_t row = s.queries.begin(i) + t,
                      seen = s.causal ? std::min(t + 1, std::ssize(keys)) : std::ssize(keys);
        const real* qt = q.data() + row * s.query_stride + h * depth;
        const auto at = [&](int64_t j) { return keys[size_t(j)] * s.key_stride + h * depth; };
        std::vector<double> p(static_cast<size_t>(seen)), mask(p.size(), 1), dp(p.size());
        double highest = -INFINITY, sum = 0, d = 0;
        for (int64_t j = 0; j < seen; ++j) {
          double score = 0;
          for (int64_t c = 0; c < depth; ++c)
            score += double(qt[c]) * double(k[size_t(at(j) + c)]) / std::sqrt(double(depth));
          p[size_t(j)] = score;
          highest = std::max(highest, score);
          const int64_t e = (row * s.heads + h) * padded + j;
          if (drop.on())
            mask[size_t(j)] = (dropout_keep_bits(kState.seed, kState.step, drop.op,
                                                 drop.threshold(), uint64_t(e / 8)) >>
                                   (e % 8) &
                               1) *
                              double(drop.scale());
        }
        for (double& e : p) sum += e = std::exp(e - highest);
        r.lse[size_t(row * s.heads + h)] = seen ? highest + std::log(sum) : -INFINITY;
        const int64_t o = row * s.width + h * depth;
        for (int64_t j = 0; j < seen; ++j) {
          p[size_t(j)] /= sum;
          const double w = p[size_t(j)] * mask[size_t(j)];
          for (int64_t c = 0; c < depth; ++c) {
            r.out[size_t(o + c)] += w * double(v[size_t(at(j) + c)]);
            dp[size_t(j)] += double(dout[size_t(o + c)]) * double(v[size_t(at(j) + c)]);
            r.dv[size_t(at(j) + c)] += w * double(dout[size_t(o + c)]);
          }
          dp[size_t(j)] *= mask[size_t(j)];
          d += p[size_t(j)] * dp[size_t(j)];
        }
        for (int64_t j = 0; j < seen; ++j) {
          const double ds = p[size_t(j)] * (dp[size_t(j)] - d) / std::sqrt(double(depth));
          for (int64_t c = 0; c < depth; ++c) {
            r.dq[size_t(row * s.query_stride + h * depth + c)] += ds * double(k[size_t(at(j) + c)]);
            r.dk[size_t(at(j) + c)] += ds * double(qt[c]);
          }
        }
      }
  }
  return r;
}

void compare(const Problem& problem) {
  const AttentionShape& s = problem.shape;
  const int64_t rows = s.queries.total();
  const Values q = uniform(rows * s.query_stride, -2, 2, 1),
               k = uniform(s.key_rows * s.key_stride, -2, 2, 2),
               v = uniform(s.key_rows * s.key_stride, -2, 2, 3),
               dout = uniform(rows * s.width, -1, 1, 4);
  const Result want = reference(s, q, k, v, dout);
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded out(rows * s.width), lse(rows * s.heads), dq(std::ssize(q), 0), dk(std::ssize(k), 0),
          dv(std::ssize(v), 0);
      attention_forward(be, s, q, k, v, out.span(), lse.span());
      require_close(out.span(), want.out, 64);
      device.wait();
      for (size_t i = 0; i < want.lse.size(); ++i)
        if (std::isinf(want.lse[i]))
          REQUIRE(double(lse.span()[i]) == want.lse[i]);
        else
          REQUIRE(close(double(lse.span()[i]), want.lse[i], 64));
      const auto backward = [&](InOut a, InOut b, InOut c) {
        attention_backward(be, s, q, k, v, out.span(), lse.span(), dout, a, b, c);
      };
      backward(dq.span(), dk.span(), dv.span());
      require_close(dq.span(), want.dq, 256, 4);
      require_close(dk.span(), want.dk, 256, 4);
      require_close(dv.span(), want.dv, 256, 4);
      REQUIRE((out.intact() && lse.intact() && dq.intact() && dk.intact() && dv.intact()));
      const std::vector<Values> got{out.values(), lse.values(), dq.values(), dk.values(),
                                    dv.values()};
      bits.require(device, got);
      backward({}, {}, {});
      REQUIRE(dq.values() == got[2]);
    });
}

}  // namespace

TEST_CASE("attention: equals its definition for any size", "[kernels][attention]") {
  for (int64_t depth : {1, 4, 5, 8, 10, 12, 16, 32, 64})
    compare({{3, 0, 20, 1}, {7, 5, 33, 0}, depth, 2, false, 0, false});
  for (int64_t keys : {0, 1, 7, 33, 127, 128, 129, 300})
    for (bool causal : {false, true})
      for (double rate : {0.0, 0.3}) compare({{33, 1}, {keys, 9}, 8, 3, causal, rate, false});
  compare({{500}, {1000}, 8, 1, false, 0.1, false});
  compare({{70}, {70}, 16, 2, true, 0.1, false});
  compare({{9, 9}, {33, 140}, 100, 2, false, 0.2, false});
  compare({{50, 16, 7}, {31, 16, 50}, 32, 3, false, 0.1, false});  // language models
  compare({{50, 16, 7}, {31, 16, 50}, 64, 2, false, 0.1, false});
  compare({{20, 50}, {33, 60}, 40, 2, true, 0.1, true});
}

TEST_CASE("attention: rows of whole vectors", "[kernels][attention]") {
  for (int64_t depth : {2, 4, 8, 12, 16, 20, 32, 64, 132})
    compare({{70, 1}, {33, 9}, depth, 2, false, 0.2, false, true});
}

TEST_CASE("attention: wide heads, in chunks of columns", "[kernels][attention]") {
  for (int64_t depth : {17, 30, 33, 128, 130})
    for (bool causal : {false, true})
      compare({{70, 0, 9}, {33, 5, 70}, depth, 1, causal, 0.2, true});
}

TEST_CASE("attention: many modalities", "[kernels][attention]") {
  Problem problem(std::vector<int64_t>(35, 3), std::vector<int64_t>(35, 4), 4, 1, false, 0, false);
  for (size_t m = 0; m < 35; m += 2) problem.dropout[m] = {0.5, &kState, uint32_t(m)};
  compare(problem);
}

TEST_CASE("attention: ranges of one sequence share rows", "[kernels][attention]") {
  for (int64_t depth : {5, 40}) {
    Problem problem({20, 70}, {90, 60}, depth, 2, false, 0.2, false);
    problem.ranges = {{0, 80}, {75, 10}, {60, 50}, {60, 50}};
    problem.shape.ranges = problem.ranges;
    compare(problem);
  }
}

TEST_CASE("attention: the network's sizes", "[kernels][attention]") {
  compare({std::vector<int64_t>(6, 50), std::vector<int64_t>(6, 100), 8, 8, false, 0.2, false});
  compare({std::vector<int64_t>(40, 1), std::vector<int64_t>(40, 2), 6, 8, false, 0.2, false});
  compare({std::vector<int64_t>(40, 5), std::vector<int64_t>(40, 9), 4, 10, true, 0, false});
}

TEST_CASE("attention: several sequences read the same keys", "[kernels][attention]") {
  compare({{20, 3, 50}, {33, 60, 129}, 8, 2, false, 0.3, true});
  const int repeats = devices()[0].on_host() ? 10 : 1;  // a race can show
  for (int repeat = 0; repeat < repeats; ++repeat)
    compare({std::vector<int64_t>(40, 8), std::vector<int64_t>(40, 60), 4, 2, false, 0, true});
}

TEST_CASE("attention: huge and equal scores", "[kernels][attention]") {
  const Problem problem({2}, {3}, 4, 1, false, 0, false);
  const AttentionShape& s = problem.shape;
  const real huge = std::sqrt(std::numeric_limits<real>::max()) / 16;
  Values q(size_t(2 * s.query_stride), huge), k(size_t(3 * s.key_stride), huge),
      v(size_t(3 * s.key_stride), 1);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values out(8), lse(2);
      attention_forward(be, s, q, k, v, out, lse);
      device.wait();
      for (real o : out) REQUIRE(close(double(o), 1, 4));
    });
}

TEST_CASE("attention: rejects what does not fit", "[kernels][attention][errors]") {
  const Problem good({2, 3}, {4, 5}, 4, 2, false, 0, false);
  const Values q(5 * 10), k(9 * 11);
  Values out(40), lse(10);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const auto forward = [&](const AttentionShape& s, In a, In b, In c, Out o, Out l) {
        attention_forward(be, s, a, b, c, o, l);
      };
      REQUIRE_NOTHROW(forward(good.shape, q, k, k, out, lse));
      REQUIRE_THROWS_AS(forward(good.shape, In(q).first(47), k, k, out, lse),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(forward(good.shape, q, In(k).first(95), k, out, lse),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(forward(good.shape, q, k, In(k).first(95), out, lse),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(forward(good.shape, q, k, k, Out(out).first(39), lse),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(forward(good.shape, q, k, k, out, Out(lse).first(9)),
                        std::invalid_argument);
      AttentionShape bad = good.shape;
      bad.heads = 3;
      REQUIRE_THROWS_AS(forward(bad, q, k, k, out, lse), std::invalid_argument);
      bad = good.shape, bad.key_rows = 8;
      REQUIRE_THROWS_AS(forward(bad, q, k, k, out, lse), std::invalid_argument);
      bad = good.shape, bad.ranges_per_sequence = 1;
      REQUIRE_THROWS_AS(forward(bad, q, k, k, out, lse), std::invalid_argument);
      bad = good.shape, bad.key_stride = 7;
      REQUIRE_THROWS_AS(forward(bad, q, k, k, out, lse), std::invalid_argument);
      bad = good.shape, bad.dropout = bad.dropout.first(1);
      REQUIRE_THROWS_AS(forward(bad, q, k, k, out, lse), std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("attention: gradients", "[autograd][attention]") {
  for (const Device& device : devices())
    for (bool causal : {false, true})
      for (bool share : {false, true}) {
        const std::vector<int64_t> first{0, 5, 5, 9, 12};
        const std::vector<KeyRange> ranges{{0, 3},  {3, 4}, {7, 2}, {9, 1}, {share ? 2 : 10, 5},
                                           {16, 7}, {0, 0}, {23, 0}};
        const std::vector<Dropout> drop{{.25, &kState, 4}, {}};
        AttentionShape s;
        s.queries = {2, 2, first}, s.width = 8, s.heads = 2, s.ranges = ranges;
        s.ranges_per_sequence = 2, s.causal = causal, s.dropout = drop;
        gradcheck(device, {{12, 10}, {30, 20}, {30, 20}},
                  {uniform(120, -1, 1), uniform(600, -1, 1, 2), uniform(600, -1, 1, 3)},
                  [&](Tape& tape, const std::vector<Tensor>& in) {
                    return attention(tape, s, in[0], in[1], 3, in[2], 11, 1);
                  });
      }
}

TEST_CASE("attention: queries, keys and values of one array", "[autograd][attention]") {
  const std::vector<int64_t> first{0, 4, 9};
  const std::vector<KeyRange> ranges{{0, 4}, {4, 5}};
  AttentionShape s;
  s.queries = {1, 2, first}, s.width = 6, s.heads = 2, s.ranges = ranges, s.causal = true;
  for (const Device& device : devices())
    gradcheck(device, {{9, 18}}, {uniform(162, -1, 1)},
              [&](Tape& tape, const std::vector<Tensor>& in) {
                return attention(tape, s, in[0], in[0], 6, in[0], 12);
              });
}
#endif
