// GELU at a language model's hidden layers: forward and backward, GB/s.
#include <cmath>

#include "bench/support.h"
#include "kernels/gelu.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t rows, width;
};
constexpr Case kCases[] = {{"512 x 1536", 512, 1536},
                           {"1600 x 1536", 1600, 1536},
                           {"512 x 3072", 512, 3072},
                           {"1600 x 3072", 1600, 3072}};

void gelu(benchmark::State& state, const Case& c, bool backward) {
  const Cpu be{int(state.range(0))};
  const int64_t n = c.rows * c.width;
  Values x = uniform(n, 1), y(x.size()), dx(x.size());
  for (real& e : x) e *= 4;
  gelu_forward(be, x, y);
  for (size_t i = 0; i < x.size(); i += 97) {
    const double at = double(x[i]), want = at / 2 * std::erfc(-at / std::sqrt(2.0));
    if (!(std::abs(double(y[i]) - want) <= 1e-6 * std::abs(want)))
      return state.SkipWithError("wrong result");
  }
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        gelu_backward(be, x, y, dx);
      else
        gelu_forward(be, x, y);
    });
  best.report_bytes(state, double(n) * sizeof(real) * (backward ? 4 : 2), be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, gelu); }
