// The sum of word, position and type embeddings of a language model: forward and backward, GB/s.
#include <cmath>

#include "bench/support.h"
#include "kernels/embedding.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t rows, width;
};
constexpr Case kCases[] = {{"512 x 384", 512, 384},
                           {"1600 x 384", 1600, 384},
                           {"512 x 768", 512, 768},
                           {"1600 x 768", 1600, 768}};

void embedding(benchmark::State& state, const Case& c, bool backward) {
  const Cpu be{int(state.range(0))};
  const int64_t entries[] = {30522, 512, 2};
  std::mt19937 rng(1);
  std::vector<std::vector<int32_t>> ids(3, std::vector<int32_t>(size_t(c.rows)));
  for (size_t r = 0; r < ids[0].size(); ++r)
    ids[0][r] = int32_t(rng() % 30522), ids[1][r] = int32_t(r % 50), ids[2][r] = 0;
  std::vector<Values> table, dtable;
  std::vector<EmbeddingTable> tables;
  for (unsigned t = 0; t < 3; ++t) table.push_back(uniform(entries[t] * c.width, 10 + t));
  dtable = table;
  for (size_t t = 0; t < 3; ++t)
    tables.push_back({ids[t], table[t], dtable[t], entries[t], t == 0 ? 0 : -1});
  Values y(size_t(c.rows * c.width));
  const EmbeddingShape s{c.rows, c.width};
  embedding_forward(be, s, tables, y);
  for (size_t i = 0; i < y.size(); i += 97) {
    double want = 0;
    for (size_t t = 0; t < 3; ++t)
      want += double(
          table[t][size_t(ids[t][i / size_t(c.width)]) * size_t(c.width) + i % size_t(c.width)]);
    if (!(std::abs(double(y[i]) - want) <= 1e-5)) return state.SkipWithError("wrong result");
  }
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        embedding_backward(be, s, tables, y, {});
      else
        embedding_forward(be, s, tables, y);
    });
  // Every row's y or dy and a row of every table, backward read and written.
  best.report_bytes(state, double(c.rows * c.width) * sizeof(real) * (backward ? 7 : 4),
                    be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, embedding); }
