// Attention of the network's sizes: forward and backward.
#include <cmath>

#include "bench/support.h"
#include "kernels/attention.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

const RandomState kState{1, 1};

struct Case {
  const char* name;
  int64_t sequences, queries, keys, depth, heads;
  double rate;
};
constexpr Case kCases[] = {
    {"mosi", 96, 50, 100, 8, 8, 0.2},
    {"mosi without dropout", 96, 50, 100, 8, 8, 0},
    {"mosei", 384, 46, 92, 6, 5, 0.1},
    {"depth 4", 96, 50, 100, 4, 8, 0.1},
    {"depth 16", 96, 50, 100, 16, 4, 0.1},
    {"depth 32", 96, 50, 100, 32, 2, 0.1},
    {"bert 50 depth 32", 32, 50, 50, 32, 12, 0.1},
    {"bert 50 depth 64", 32, 50, 50, 64, 12, 0.1},
    {"bert 16 depth 32", 32, 16, 16, 32, 12, 0.1},
    {"bert 16 depth 64", 32, 16, 16, 64, 12, 0.1},
    {"long", 8, 500, 1000, 8, 8, 0.1},
    {"iemocap", 96, 1, 2, 6, 8, 0.1},
};

void attention(benchmark::State& state, const Case& c, bool backward) {
  const Cpu be{int(state.range(0))};
  std::vector<int64_t> first{0};
  std::vector<KeyRange> ranges;
  for (int64_t i = 0; i < c.sequences; ++i) {
    first.push_back(first.back() + c.queries);
    ranges.push_back({i * c.keys, c.keys / 2});
    ranges.push_back({i * c.keys + c.keys / 2, c.keys - c.keys / 2});
  }
  const std::vector<Dropout> dropout{{c.rate, &kState, 1}};
  AttentionShape s;
  s.queries = {1, c.sequences, first}, s.width = c.depth * c.heads, s.heads = c.heads;
  s.key_rows = c.keys * c.sequences, s.key_stride = 5 * s.width;
  s.ranges = ranges, s.ranges_per_sequence = 2, s.dropout = dropout;
  const Values q = uniform(first.back() * s.width, 1), k = uniform(s.key_rows * s.key_stride, 2),
               dout = uniform(first.back() * s.width, 3);
  Values v(k.size(), 1), out(q.size()), lse(size_t(first.back() * s.heads)), dq(q.size()),
      dk(k.size()), dv(k.size());
  const auto forward = [&] { attention_forward(be, s, q, k, v, out, lse); };
  forward();  // weights of all-one values sum to one, on average with dropout
  double mean = 0;
  for (real o : out) mean += double(o) / double(out.size());
  if (!(std::abs(mean - 1) < (c.rate > 0 ? 0.2 : 1e-5))) return state.SkipWithError("wrong result");
  v = uniform(std::ssize(v), 4);
  forward();
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        attention_backward(be, s, q, k, v, out, lse, dout, dq, dk, dv);
      else
        forward();
    });
  const double pairs = double(c.sequences * c.queries * c.keys * s.width);
  best.report(state, (backward ? 10 : 4) * pairs, be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, attention); }
