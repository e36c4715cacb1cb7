// Batched matrix square roots: forward and backward of both roots, GFLOP/s.
#include <cmath>

#include "bench/support.h"
#include "kernels/sqrtm.h"
#include "tests/symmetric.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t batch, width;
};
constexpr Case kCases[] = {{"1000 x 4", 1000, 4},   {"1000 x 16", 1000, 16},
                           {"1000 x 32", 1000, 32}, {"1000 x 64", 1000, 64},
                           {"100 x 128", 100, 128}, {"20 x 256", 20, 256}};

struct alignas(64) Line {
  std::byte bytes[64];
};

struct Problem {
  SqrtmShape shape;
  Cpu be;
  Values a, root, inverse, droot, dinverse, da;
  std::vector<double> kept;
  std::vector<Line> work;

  Problem(const SqrtmShape& s, int threads, Values given)
      : shape(s),
        be{threads},
        a(std::move(given)),
        root(a.size()),
        inverse(a.size()),
        droot(uniform(std::ssize(a), 3)),
        dinverse(uniform(std::ssize(a), 4)),
        da(a.size()),
        kept(size_t(s.kept_size())),
        work(sqrtm_scratch_bytes(be, s) / sizeof(Line) + 1) {}

  Scratch scratch() { return std::as_writable_bytes(std::span(work)); }
  void forward() { sqrtm_forward(be, shape, a, root, inverse, kept, scratch()); }
  void backward() { sqrtm_backward(be, shape, kept, droot, dinverse, da, scratch()); }
};

Values covariances(int64_t count, int64_t d, double condition) {
  Values v;
  const test::Matrix m = test::random_covariance(int(d), condition, 1);
  for (int64_t c = 0; c < count; ++c)
    for (auto x : m.a) v.push_back(real(x * (1 + c)));
  return v;
}

double error_of(const Values& got, const test::Matrix& want) {
  long double off = 0, size = 0;
  for (size_t i = 0; i < want.a.size(); ++i) {
    off += (got[i] - want.a[i]) * (got[i] - want.a[i]);
    size += want.a[i] * want.a[i];
  }
  return double(std::sqrt(off / size));
}

test::Matrix first_of(const Values& v, int64_t d) {
  test::Matrix m{int(d)};
  for (size_t i = 0; i < m.a.size(); ++i) m.a[i] = v[i];
  return m;
}

void sqrtm(benchmark::State& state, const Case& c, bool backward) {
  Problem p({c.batch, c.width, 0}, int(state.range(0)), covariances(c.batch, c.width, 100));
  p.forward();
  if (c.width <= 64 && !(error_of(p.root, test::root(first_of(p.a, c.width))) <= 1e-6))
    return state.SkipWithError("wrong result");
  Best best;
  for (auto _ : state) best.time(state, [&] { backward ? p.backward() : p.forward(); });
  // Tridiagonal form 2, reflections 4/3, rotations about 5, two products; six products back.
  const double cube = double(c.width * c.width) * double(c.width);
  best.report(state, double(c.batch) * cube * (backward ? 12 : 11), p.be.threads);
}

}  // namespace

int main(int argc, char** argv) { run_both_ways(argc, argv, kCases, sqrtm); }
