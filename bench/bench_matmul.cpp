// Grouped dense layers of the network: forward and backward, GFLOP/s and share of the peak.
#include <cmath>

#include "bench/support.h"
#include "kernels/conv1d.h"
#include "kernels/matmul.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

const RandomState kState{1, 1};

struct Case {
  const char* name;
  int64_t rows, k, n, groups, side_by_side;  // rows per group; groups with the same rows of x
  bool relu;
};
constexpr Case kCases[] = {
    {"64->64", 1600, 64, 64, 3, 1, false},
    {"64->256 relu", 1600, 64, 256, 3, 1, true},
    {"256->64", 1600, 256, 64, 3, 1, false},
    {"keys 64->5x64", 3200, 64, 64, 3, 5, false},
    {"mosei 30->30", 6000, 30, 30, 3, 1, false},
    {"iemocap 48->192", 32, 48, 192, 3, 1, true},
    {"head 384->1", 32, 384, 1, 1, 1, false},
    // language models of width 384 and 768, sentences of 16 tokens, then padded to 50
    {"bert 512 384->384", 512, 384, 384, 1, 1, false},
    {"bert 512 384->1152", 512, 384, 1152, 1, 1, false},
    {"bert 512 384->1536", 512, 384, 1536, 1, 1, false},
    {"bert 512 1536->384", 512, 1536, 384, 1, 1, false},
    {"bert 512 768->768", 512, 768, 768, 1, 1, false},
    {"bert 512 768->3072", 512, 768, 3072, 1, 1, false},
    {"bert 512 3072->768", 512, 3072, 768, 1, 1, false},
    {"bert 1600 384->384", 1600, 384, 384, 1, 1, false},
    {"bert 1600 384->1152", 1600, 384, 1152, 1, 1, false},
    {"bert 1600 384->1536", 1600, 384, 1536, 1, 1, false},
    {"bert 1600 1536->384", 1600, 1536, 384, 1, 1, false},
    {"bert 1600 768->768", 1600, 768, 768, 1, 1, false},
    {"bert 1600 768->3072", 1600, 768, 3072, 1, 1, false},
    {"bert 1600 3072->768", 1600, 3072, 768, 1, 1, false},
};

struct Problem {
  explicit Problem(const Case& c) {
    s.x_rows = c.rows * c.groups, s.k = c.k, s.n = c.n, s.y_rows = s.x_rows;
    s.y_cols = c.n * c.side_by_side, s.relu = c.relu;
    if (c.relu) s.dropout = {0.1, &kState, 1};
    const int64_t parts = c.groups * c.side_by_side;
    x = uniform(s.x_rows * s.k, 1), weight = uniform(parts * s.n * s.k, 2),
    bias = uniform(parts * s.n, 3), dy = uniform(s.y_rows * s.y_cols, 4);
    y = dy, dx = x, dweight = weight, dbias = bias;
    for (int64_t p = 0; p < parts; ++p) {
      const size_t size = size_t(s.n * s.k), n = size_t(s.n);
      const int64_t row = p / c.side_by_side * c.rows;
      groups.push_back(
          {row, row, c.rows, p % c.side_by_side * s.n, In(weight).subspan(size_t(p) * size, size),
           In(bias).subspan(size_t(p) * n, n), InOut(dweight).subspan(size_t(p) * size, size),
           InOut(dbias).subspan(size_t(p) * n, n)});
    }
    flop = 2.0 * double(c.rows * s.k * s.n * parts);
  }
  bool right() const {  // the last element of y, and whether it may be dropped
    const MatmulGroup& g = groups.back();
    double z = double(g.bias.back());
    for (int64_t l = 0; l < s.k; ++l)
      z += double(x[size_t((s.x_rows - 1) * s.k + l)]) *
           double(g.weight[size_t((s.n - 1) * s.k + l)]);
    const double got = double(y.back()) / (s.relu ? double(s.dropout.scale()) : 1);
    return std::abs(got - z) < 1e-3 || (s.relu && got == 0);
  }
  MatmulShape s;
  Values x, weight, bias, dy, y, dx, dweight, dbias;
  std::vector<MatmulGroup> groups;
  double flop;
};

std::span<std::byte> workspace(size_t bytes) {
  static std::vector<std::byte> memory;
  if (memory.size() < bytes + 64) memory.resize(bytes + 64);
  const size_t offset = (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  return std::span(memory).subspan(offset, bytes);
}

void matmul(benchmark::State& state, const Case& c, bool backward) {
  const Cpu be{int(state.range(0))};
  Problem p(c);
  const auto scratch = workspace(matmul_scratch_bytes(be, p.s, p.groups));
  const auto forward = [&] { matmul_forward(be, p.s, p.groups, p.x, p.y, scratch); };
  forward();
  if (!p.right()) return state.SkipWithError("wrong result");
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        matmul_backward(be, p.s, p.groups, p.x, p.y, p.dy, p.dx, scratch);
      else
        forward();
    });
  best.report(state, backward ? 2 * p.flop : p.flop, be.threads);
}

void conv1d(benchmark::State& state, Conv1dShape s, bool backward) {
  const Cpu be{int(state.range(0))};
  std::vector<int64_t> first{0};
  for (int64_t b = 0; b < s.batch; ++b) first.push_back(first.back() + s.steps - s.kernel + 1);
  const Rows rows{1, s.batch, first};
  const Values x = uniform(s.batch * s.steps * s.width, 1),
               w = uniform(s.channels * s.width * s.kernel, 2);
  Values y(size_t(rows.total() * s.channels)), dw(w.size());
  const auto scratch = workspace(conv1d_scratch_bytes(be, s));
  const auto forward = [&] { conv1d_forward(be, s, rows, x, w, y, scratch); };
  forward();
  double z = 0;
  for (int64_t u = 0; u < s.kernel; ++u)
    for (int64_t i = 0; i < s.width; ++i)
      z += double(x[x.size() - size_t((s.kernel - u) * s.width - i)]) *
           double(w[size_t(((s.channels - 1) * s.width + i) * s.kernel + u)]);
  if (!(std::abs(double(y.back()) - z) < 1e-3)) return state.SkipWithError("wrong result");
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        conv1d_backward(be, s, rows, x, w, y, {}, dw, scratch);
      else
        forward();
    });
  best.report(state, 2.0 * double(rows.total() * s.channels * s.width * s.kernel), be.threads);
}

}  // namespace

int main(int argc, char** argv) {
  const auto add = [](const std::string& name, auto f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->Arg(1)->Arg(2)->UseManualTime();
  };
  for (bool backward : {false, true}) {
    const std::string direction = backward ? "backward " : "forward ";
    for (const Case& c : kCases)
      add(direction + c.name, [&c, backward](benchmark::State& s) { matmul(s, c, backward); });
    for (Conv1dShape s : {Conv1dShape{32, 50, 768, 64, 1, 0}, Conv1dShape{32, 50, 5, 64, 1, 0},
                          Conv1dShape{32, 50, 20, 64, 1, 0}, Conv1dShape{128, 50, 74, 30, 5, 0},
                          Conv1dShape{32, 1, 1024, 48, 1, 0}})
      add(direction + "conv " + std::to_string(s.width) + "x" + std::to_string(s.kernel),
          [s, backward](benchmark::State& state) { conv1d(state, s, backward); });
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
