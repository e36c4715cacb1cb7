// Batched matrix square roots: forward and backward of both roots, GFLOP/s. `--accuracy`: errors
// against references in long double, for docs/kernels/sqrtm.md.
#include <cmath>
#include <cstdio>
#include <cstring>

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

// A symmetric gradient's way back through the root: r x + x r = g.
test::Matrix lyapunov(const test::Matrix& a, const test::Matrix& g) {
  test::Matrix values = a, turned(a.n);
  const test::Matrix v = test::eigenvectors(values);
  for (int i = 0; i < a.n; ++i)
    for (int j = 0; j < a.n; ++j) turned(i, j) = v(j, i);
  test::Matrix x = v * g * turned;
  for (int i = 0; i < a.n; ++i)
    for (int j = 0; j < a.n; ++j) x(i, j) /= std::sqrt(values(i, i)) + std::sqrt(values(j, j));
  return turned * x * v;
}

void accuracy(const char* path) {
  constexpr int64_t d = 40;
  std::FILE* file = path ? std::fopen(path, "wb") : nullptr;
  std::printf("%-16s %12s %12s %12s\n", "", "root", "inverse", "gradient");
  for (const double condition : {1e2, 1e4, 1e6}) {
    Problem p({1, d, 0}, 1, covariances(1, d, condition));
    for (int64_t i = 0; i < d; ++i)
      for (int64_t j = 0; j < i; ++j) {
        p.a[size_t(i * d + j)] = p.a[size_t(j * d + i)];
        p.droot[size_t(i * d + j)] = p.droot[size_t(j * d + i)];
      }
    p.forward();
    sqrtm_backward(p.be, p.shape, p.kept, p.droot, {}, p.da, p.scratch());
    const test::Matrix a = first_of(p.a, d), root = test::root(a), inverse = test::inverse_root(a),
                       slope = lyapunov(a, first_of(p.droot, d));
    std::printf("condition %.0e %12.1e %12.1e %12.1e\n", condition, error_of(p.root, root),
                error_of(p.inverse, inverse), error_of(p.da, slope));
    if (!file) continue;
    for (const auto& m : {a, first_of(p.droot, d), root, inverse, slope})
      for (auto x : m.a) {
        const double value = double(x);
        std::fwrite(&value, sizeof value, 1, file);
      }
  }
  if (file) std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--accuracy") == 0) {
    accuracy(argc > 2 ? argv[2] : nullptr);
    return 0;
  }
  run_both_ways(argc, argv, kCases, sqrtm);
}
