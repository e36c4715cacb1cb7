// Matrix square roots.
#include <array>

#include "autograd/sqrtm.h"
#include "tests/support.h"
#include "tests/symmetric.h"

using namespace decalign;
using namespace decalign::test;

namespace {

constexpr double kEps = std::numeric_limits<real>::epsilon();

Matrix matrix_at(const Values& a, int64_t d, int64_t index, double ridge) {
  Matrix m{int(d)};
  const real* from = a.data() + index * d * d;
  for (int i = 0; i < d; ++i)
    for (int j = 0; j < d; ++j)
      m(i, j) = (Wide(from[i * d + j]) + Wide(from[j * d + i])) / 2 + (i == j ? Wide(ridge) : 0);
  return m;
}

// Covariances with a skew part, which must not matter.
Values random_matrices(int64_t batch, int64_t d, double scale, double condition) {
  Values v;
  for (int64_t b = 0; b < batch; ++b) {
    const Matrix m = random_covariance(int(d), condition, unsigned(b + 1));
    for (int i = 0; i < d; ++i)
      for (int j = 0; j < d; ++j)
        v.push_back(real(scale * (double(m(i, j)) + 0.25 * (i < j ? 1 : i > j ? -1 : 0))));
  }
  return v;
}

std::vector<double> doubles(const Matrix& m) { return {m.a.begin(), m.a.end()}; }

struct Result {
  Values root, inverse, da;
};

// Both roots, and the gradient for gradients of theirs.
template <class Backend>
Result solve(const Backend& be, const SqrtmShape& s, const Values& a, const Values& droot,
             const Values& dinverse) {
  const int64_t n = std::ssize(a);
  Guarded root(n), inverse(n), da(n, 0);
  Shared<double> kept(static_cast<size_t>(s.kept_size()));
  Workspace scratch(sqrtm_scratch_bytes(be, s));
  sqrtm_forward(be, s, a, root.span(), inverse.span(), kept, scratch.span());
  sqrtm_backward(be, s, kept, droot, dinverse, da.span(), scratch.span());
  REQUIRE((root.intact() && inverse.intact() && da.intact()));
  return {root.values(), inverse.values(), da.values()};
}

double error_of(In got, const std::vector<double>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::abs(double(got[i]) - want[i]);
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

}  // namespace

TEST_CASE("sqrtm: matches the roots of the eigenvalues", "[kernels][sqrtm]") {
  for (const auto& [batch, d] : std::vector<std::array<int64_t, 2>>{
           {3, 1}, {2, 2}, {3, 7}, {2, 16}, {2, 33}, {0, 4}, {33, 3}})
    for (const double scale : {1.0, 1e-15, 1e15})
      for (const double ridge : {0.0, 0.1 * scale}) {
        if (d > 10 && (scale == 1) != (ridge == 0)) continue;
        const SqrtmShape s{batch, d, ridge};
        const Values a = random_matrices(batch, d, scale, 10);
        const Result host = solve(Cpu{1}, s, a, {}, {});
        std::vector<double> root_want, inverse_want;
        for (int64_t b = 0; b < batch; ++b) {
          const Matrix m = matrix_at(a, d, b, ridge);
          for (double x : doubles(root(m))) root_want.push_back(x);
          for (double x : doubles(inverse_root(m))) inverse_want.push_back(x);
        }
        Bits bits;
        for (const Device& device : devices())
          device.run([&, batch = batch, d = d](const auto& be) {
            const int64_t n = batch * d * d;
            Guarded r(n), i(n), r_alone(n), i_alone(n);
            Workspace scratch(sqrtm_scratch_bytes(be, s));
            Shared<double> kept(static_cast<size_t>(s.kept_size()));
            sqrtm_forward(be, s, a, r.span(), i.span(), kept, scratch.span());
            REQUIRE((r.intact() && i.intact()));
            if (d < 10) {
              sqrtm_forward(be, s, a, r_alone.span(), {}, {}, scratch.span());
              sqrtm_forward(be, s, a, {}, i_alone.span(), {}, scratch.span());
              REQUIRE((r_alone.intact() && i_alone.intact()));
              REQUIRE((r.values() == r_alone.values() && i.values() == i_alone.values()));
            }
            const double unit = std::sqrt(scale);
            require_close(r.span(), root_want, 64, unit);
            require_close(i.span(), inverse_want, 64, 1 / unit);
            REQUIRE(error_of(r.span(), root_want) <=
                    2 * error_of(host.root, root_want) + 4 * kEps * unit);
            REQUIRE(error_of(i.span(), inverse_want) <=
                    2 * error_of(host.inverse, inverse_want) + 4 * kEps / unit);
            for (int64_t e = 0; e < n; ++e) {  // symmetric to the bit
              const int64_t mirror = e / (d * d) * d * d + e % d * d + e / d % d;
              REQUIRE(r.span()[size_t(e)] == r.span()[size_t(mirror)]);
              REQUIRE(i.span()[size_t(e)] == i.span()[size_t(mirror)]);
            }
            bits.require(device, {r.values(), i.values()});
          });
      }
}

void check_ill_conditioned(int64_t d) {
  const Values a = random_matrices(1, d, 1, 1e4);
  const Matrix m = matrix_at(a, d, 0, 0);
  const std::vector<double> root_want = doubles(root(m)), inverse_want = doubles(inverse_root(m));
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const Result got = solve(be, {1, d, 0}, a, {}, {});
      require_close(got.root, root_want, 64);
      require_close(got.inverse, inverse_want, 64 + 1e-11 / kEps, 100);
    });
}

TEST_CASE("sqrtm: an ill-conditioned matrix", "[kernels][sqrtm]") { check_ill_conditioned(64); }
TEST_CASE("sqrtm: a large one", "[kernels][sqrtm][large]") { check_ill_conditioned(129); }

// Each row meets one other at most: quick, where all else of the solver runs as ever.
TEST_CASE("sqrtm: every device agrees where matrices outgrow shared memory", "[kernels][sqrtm]") {
  const int64_t d = 105;
  const SqrtmShape s{2, d, 0};
  Values a(size_t(2 * d * d), 0), g(size_t(2 * d * d), 0);
  for (int64_t i = 0; i < 2 * d; ++i) {
    real* const row = a.data() + i * d;
    row[i % d] = real(1 + double(i % 11) / 10);
    if (i % d + 64 < d) row[i % d + 64] = real(0.8);  // the mirror image is 0, so 0.4 counts
    g[size_t(i * d + (3 * i) % d)] = 1;
  }
  const Result want = solve(Cpu{1}, s, a, g, g);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const Result got = solve(be, s, a, g, g);
      require_close(got.root, {want.root.begin(), want.root.end()}, 64);
      require_close(got.inverse, {want.inverse.begin(), want.inverse.end()}, 64);
      require_close(got.da, {want.da.begin(), want.da.end()}, 64);
    });
}

TEST_CASE("sqrtm: the gradient solves its Lyapunov equation, is added, and can be in part",
          "[kernels][sqrtm]") {
  for (const int64_t d : {1, 2, 7, 33}) {
    const int64_t batch = 2, n = batch * d * d;
    const SqrtmShape s{batch, d, 0.05};
    const Values a = random_matrices(batch, d, 1, 20), droot = uniform(n, -1, 1, 3),
                 dinverse = uniform(n, -1, 1, 4);
    std::vector<double> by_root, by_inverse;
    for (int64_t b = 0; b < batch; ++b) {
      const Matrix r = root(matrix_at(a, d, b, s.ridge)),
                   i = inverse_root(matrix_at(a, d, b, s.ridge));
      // d(1/r) = -(1/r) dr (1/r): the inverse's gradient is one of the root.
      const Matrix g = matrix_at(droot, d, b, 0), h = i * matrix_at(dinverse, d, b, 0) * i;
      Matrix values = r;
      const Matrix v = eigenvectors(values);
      Matrix turned{int(d)};  // v transposed
      for (int p = 0; p < d; ++p)
        for (int q = 0; q < d; ++q) turned(p, q) = v(q, p);
      const auto solve_equation = [&](const Matrix& right, std::vector<double>& to, double sign) {
        Matrix x = v * right * turned;
        for (int p = 0; p < d; ++p)
          for (int q = 0; q < d; ++q) x(p, q) /= values(p, p) + values(q, q);
        for (double e : doubles(turned * x * v)) to.push_back(sign * e);
      };
      solve_equation(g, by_root, 1);
      solve_equation(h, by_inverse, -1);
    }
    Bits bits;
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Values r(static_cast<size_t>(n)), i(static_cast<size_t>(n));
        Shared<double> kept(static_cast<size_t>(s.kept_size()));
        Workspace scratch(sqrtm_scratch_bytes(be, s));
        sqrtm_forward(be, s, a, r, i, kept, scratch.span());
        Guarded both(n, 0.5), of_root(n), of_inverse(n, 0);
        for (real& e : of_root.span()) e = 0;
        sqrtm_backward(be, s, kept, droot, dinverse, both.span(), scratch.span());
        sqrtm_backward(be, s, kept, droot, {}, of_root.span(), scratch.span());
        sqrtm_backward(be, s, kept, {}, dinverse, of_inverse.span(), scratch.span());
        sqrtm_backward(be, s, kept, {}, {}, of_inverse.span(), scratch.span());
        sqrtm_backward(be, s, kept, droot, dinverse, {}, scratch.span());
        REQUIRE((both.intact() && of_root.intact() && of_inverse.intact()));
        const double size = 100;  // of 1 / r^3
        require_close(of_root.span(), by_root, 64, 4);
        require_close(of_inverse.span(), by_inverse, 64, size);
        const Values got = both.values();
        for (size_t e = 0; e < got.size(); ++e)
          REQUIRE(close(got[e], 0.5 + by_root[e] + by_inverse[e], 64, size));
        bits.require(device, {both.values(), of_root.values(), of_inverse.values()});
      });
  }
}

TEST_CASE("sqrtm: singular, equal and impossible eigenvalues", "[kernels][sqrtm]") {
  const real nan = std::numeric_limits<real>::quiet_NaN();
  const Values g{1, 2, 2, 3}, none;
  // Rank one, large.
  const int64_t d = 40;
  const Values x = uniform(d, -1, 1, 9);
  Values outer;
  std::vector<double> want;
  double norm = 0;
  for (real e : x) norm += double(e) * double(e);
  for (real e : x)
    for (real f : x)
      outer.push_back(e * f), want.push_back(double(e) * double(f) / std::sqrt(norm));
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const auto two = [&](const Values& a, const Values& droot, const Values& dinverse) {
        return solve(be, {1, 2, 0}, a, droot, dinverse);
      };
      Result got = two({0, 0, 0, 0}, g, g);
      for (const Values& v : {got.root, got.inverse, got.da}) REQUIRE(v == Values(4));
      got = two({4, 0, 0, 4}, g, none);  // K = 1 / 4
      require_close(got.root, {2, 0, 0, 2}, 4);
      require_close(got.inverse, {0.5, 0, 0, 0.5}, 4);
      require_close(got.da, {0.25, 0.5, 0.5, 0.75}, 4);
      got = two({4, 0, 0, 0}, g, none);
      require_close(got.root, {2, 0, 0, 0}, 4);
      require_close(got.inverse, {0.5, 0, 0, 0}, 4);
      require_close(got.da, {0.25, 1, 1, 0}, 4);
      require_close(two({4, 0, 0, 0}, none, g).da, {-1 / 16.0, 2 / 8.0, 2 / 8.0, 0}, 4);
      for (const Values& bad :
           {Values{1, 2, 2, 1}, Values{-1, 0, 0, 1}, Values{1, nan, 0, 1}, Values{-1, 0, 0, -1}}) {
        got = two(bad, g, g);
        for (const Values& v : {got.root, got.inverse, got.da})
          for (const real e : v) REQUIRE(std::isnan(e));
      }
      got = solve(be, {1, d, 0}, outer, outer, outer);
      // The float matrix is not quite of rank one: the root of what rounding left.
      require_close(got.root, want, 4 * std::sqrt(1 / kEps));
      for (const real e : got.da) REQUIRE(std::isfinite(e));
    });
}

TEST_CASE("sqrtm: sizes and spans are checked", "[kernels][sqrtm][errors]") {
  Values a(18, 1), wrong(5);
  const SqrtmShape s{2, 3, 1};
  Shared<double> kept(static_cast<size_t>(s.kept_size())), short_kept(3);
  for (const SqrtmShape& bad : {SqrtmShape{-1, 3, 0}, SqrtmShape{1, 0, 0}, SqrtmShape{1, 257, 0},
                                SqrtmShape{1, 3, -1}, SqrtmShape{1, 3, std::nan("")}})
    REQUIRE_THROWS_AS(sqrtm_scratch_bytes(Cpu{}, bad), std::invalid_argument);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values r(18), i(18);
      Workspace scratch(sqrtm_scratch_bytes(be, s));
      const auto forward = [&](In x, Out y, Out z, std::span<double> k, Scratch w) {
        sqrtm_forward(be, s, x, y, z, k, w);
      };
      REQUIRE_NOTHROW(forward(a, r, i, kept, scratch.span()));
      REQUIRE_THROWS_AS(forward(wrong, r, i, kept, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(a, wrong, i, kept, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(a, r, wrong, kept, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(a, r, i, short_kept, scratch.span()), std::invalid_argument);
      Values large(110 * 110);  // on no device without work space
      REQUIRE_THROWS_AS(sqrtm_forward(be, {1, 110, 0}, large, large, {}, {}, {}),
                        std::invalid_argument);
      const auto backward = [&](std::span<const double> k, In g, In h, InOut da) {
        sqrtm_backward(be, s, k, g, h, da, scratch.span());
      };
      REQUIRE_THROWS_AS(backward({}, r, i, a), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(kept, wrong, i, a), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(kept, r, wrong, a), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(kept, r, i, wrong), std::invalid_argument);
      device.wait();
    });
}

#ifdef DECALIGN_F64
TEST_CASE("sqrtm: gradient", "[autograd][sqrtm]") {
  for (const Roots wanted : {Roots::root, Roots::inverse})
    for (const int64_t d : {1, 5})
      for (const Device& device : devices())
        gradcheck(device, {{2, d, d}}, {random_matrices(2, d, 1, 3)},
                  [&](Tape& tape, const std::vector<Tensor>& x) {
                    const MatrixRoots y = sqrtm(tape, x[0], wanted, 0.2);
                    return wanted == Roots::root ? y.root : y.inverse;
                  });
}

TEST_CASE("sqrtm: both roots from one call", "[autograd][sqrtm]") {
  const Values a = random_matrices(1, 3, 1, 3), g = uniform(9, -1, 1, 2);
  for (const Device& device : devices()) {
    Values da(9), da_root(9);
    for (Values* to : {&da, &da_root}) {
      Tape tape(device);
      Values copy = a;
      const MatrixRoots y =
          sqrtm(tape, tape.leaf({1, 3, 3}, copy, *to), to == &da ? Roots::both : Roots::root);
      REQUIRE(y.inverse.value.empty() == (to == &da_root));
      tape.backward(y.root, g);
      device.wait();
    }
    REQUIRE(da == da_root);
  }
}
#endif
