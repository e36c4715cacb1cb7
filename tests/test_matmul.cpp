// Grouped dense layer: definition, epilogue, sharing, errors, gradients.
#include "autograd/matmul.h"
#include "kernels/matmul.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

const RandomState& kState = on_devices(RandomState{11, 5});

// y and, from dy, the gradients, in double, from the header's formulas.
struct Reference {
  std::vector<double> y, dx;
  std::vector<std::vector<double>> dweight, dbias;
  Reference(const MatmulShape& s, const std::vector<MatmulGroup>& groups, In x, In dy)
      : y(size_t(s.y_rows * s.y_cols)), dx(x.size()) {
    const auto kept = [&](int64_t e) {
      return !s.dropout.on() || (dropout_keep_bits(kState.seed, kState.step, s.dropout.op,
                                                   s.dropout.threshold(), uint64_t(e / 8)) >>
                                     (e % 8) &
                                 1);
    };
    for (const MatmulGroup& g : groups) {
      dweight.emplace_back(g.weight.size());
      dbias.emplace_back(size_t(s.n));
      for (int64_t i = 0; i < g.rows; ++i)
        for (int64_t j = 0; j < s.n; ++j) {
          const int64_t e = (g.y_row + i) * s.y_cols + g.y_col + j;
          double z = g.bias.empty() ? 0 : double(g.bias[size_t(j)]);
          for (int64_t l = 0; l < s.k; ++l)
            z += double(x[size_t((g.x_row + i) * s.k + l)]) * double(g.weight[size_t(j * s.k + l)]);
          const bool open = (!s.relu || z > 0) && kept(e);
          const double factor = open ? double(s.dropout.scale()) : 0;
          y[size_t(e)] = z * factor;
          const double dz = double(dy[size_t(e)]) * factor;
          dbias.back()[size_t(j)] += dz;
          for (int64_t l = 0; l < s.k; ++l) {
            dweight.back()[size_t(j * s.k + l)] += dz * double(x[size_t((g.x_row + i) * s.k + l)]);
            dx[size_t((g.x_row + i) * s.k + l)] += dz * double(g.weight[size_t(j * s.k + l)]);
          }
        }
    }
  }
};

// `parts` groups, each of its own rows, or all of the same rows with their results side by side.
void compare(int64_t rows, int64_t k, int64_t n, int parts, bool side_by_side, bool relu,
             double rate) {
  MatmulShape s;
  s.x_rows = side_by_side ? rows : rows * parts;
  s.k = k, s.n = n, s.relu = relu;
  s.y_rows = s.x_rows, s.y_cols = side_by_side ? n * parts : n;
  s.dropout = {rate, &kState, 3};
  const Values x = uniform(s.x_rows * k, -1, 1, 1), dy = uniform(s.y_rows * s.y_cols, -1, 1, 2);
  const Values weight = uniform(parts * n * k, -1, 1, 3), bias = uniform(parts * n, -1, 1, 4);
  std::vector<MatmulGroup> groups;
  for (int p = 0; p < parts; ++p) {
    MatmulGroup g;
    g.rows = rows;
    (side_by_side ? g.y_col : g.x_row) = side_by_side ? p * n : p * rows;
    g.y_row = g.x_row;
    g.weight = In(weight).subspan(size_t(p * n * k), size_t(n * k));
    if (p != 1) g.bias = In(bias).subspan(size_t(p * n), size_t(n));
    groups.push_back(g);
  }
  const Reference want(s, groups, x, dy);
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(matmul_scratch_bytes(be, s, groups));
      Guarded y(s.y_rows * s.y_cols), dx(s.x_rows * k, 1), dweight(parts * n * k, 1),
          dbias(parts * n, 1);
      for (int p = 0; p < parts; ++p) {
        groups[size_t(p)].dweight = dweight.span().subspan(size_t(p * n * k), size_t(n * k));
        groups[size_t(p)].dbias = dbias.span().subspan(size_t(p * n), size_t(n));
      }
      matmul_forward(be, s, groups, x, y.span(), scratch.span());
      require_close(y.span(), want.y, 8 + double(k), 1);
      matmul_backward(be, s, groups, x, y.span(), dy, dx.span(), scratch.span());
      const auto plus_one = [](std::vector<double> v) {
        for (double& e : v) e += 1;
        return v;
      };
      require_close(dx.span(), plus_one(want.dx), 16 + double(n * parts), 1);
      for (int p = 0; p < parts; ++p) {
        require_close(groups[size_t(p)].dweight, plus_one(want.dweight[size_t(p)]),
                      16 + double(rows) / 4, 1);
        require_close(groups[size_t(p)].dbias, plus_one(want.dbias[size_t(p)]),
                      16 + double(rows) / 4, 1);
      }
      REQUIRE((y.intact() && dx.intact() && dweight.intact() && dbias.intact()));
      const std::vector<Values> got{y.values(), dx.values(), dweight.values(), dbias.values()};
      bits.require(device, got);
      matmul_backward(be, s, groups, x, y.span(), dy, {}, scratch.span());
      REQUIRE(dx.values() == got[1]);
    });
}

}  // namespace

TEST_CASE("matmul: equals its definition for any size", "[kernels][matmul]") {
  for (int64_t rows : {0, 1, 7, 33, 129})
    for (int64_t k : {1, 7, 33, 64})
      for (int64_t n : {1, 6, 17, 48}) compare(rows, k, n, 2, false, false, 0);
  compare(5, 0, 4, 2, false, false, 0);
  compare(5, 4, 0, 2, false, false, 0);
  compare(129, 129, 129, 1, false, true, 0.1);
}

TEST_CASE("matmul: the network's layers", "[kernels][matmul][large]") {
  compare(1600, 64, 64, 3, false, false, 0);
  compare(800, 64, 256, 3, false, true, 0.1);
  compare(800, 256, 64, 3, false, false, 0);
  compare(1000, 64, 64, 5, true, false, 0);
  compare(32, 48, 40, 3, true, true, 0.5);
}

TEST_CASE("matmul: layers like the network's, few rows", "[kernels][matmul]") {
  compare(70, 64, 64, 3, false, false, 0);
  compare(40, 64, 256, 2, false, true, 0.1);
  compare(9, 40, 12, 35, true, false, 0);  // more groups than a launch takes
  compare(32, 48, 40, 3, true, true, 0.5);
  compare(3, 384, 344, 2, false, false, 0);  // wide
}

TEST_CASE("matmul: wide weights", "[kernels][matmul][large]") {
  compare(0, 384, 384, 1, false, false, 0);
  compare(1, 384, 384, 2, false, false, 0);
  compare(33, 512, 257, 2, false, false, 0);
  compare(300, 400, 350, 2, true, false, 0);
  compare(530, 129, 1030, 1, false, false, 0);
  compare(100, 131072, 1, 1, false, false, 0);
  compare(100, 1, 131072, 1, false, false, 0);
  compare(100, 384, 384, 1, false, true, 0.1);
}

namespace {

// Four groups with the same weight and gradients, two by two with the same rows of x or with rows
// that overlap partly.
void share(int64_t rows, int64_t k, int64_t n, int repeats) {
  MatmulShape s;
  s.x_rows = rows + 10, s.k = k, s.n = n, s.y_rows = 4 * rows, s.y_cols = n;
  const Values x = uniform(s.x_rows * k, -1, 1), dy = uniform(4 * rows * n, -1, 1, 2),
               weight = uniform(k * n, -1, 1, 3);
  for (int repeat = 0; repeat < repeats; ++repeat)
    for (const Device& device : devices()) {
      if (repeat > 0 && !device.on_host()) continue;  // the simulated device finds races at once
      device.run([&](const auto& be) {
        Guarded dx(s.x_rows * k, 0), dweight(k * n, 0), dbias(n, 0), y(4 * rows * n);
        std::vector<MatmulGroup> groups;
        for (int64_t g = 0; g < 4; ++g)
          groups.push_back(
              {g % 2 * 10, g * rows, rows, 0, weight, {}, dweight.span(), dbias.span()});
        const Reference want(s, groups, x, dy);
        Workspace scratch(matmul_scratch_bytes(be, s, groups));
        matmul_forward(be, s, groups, x, y.span(), scratch.span());
        matmul_backward(be, s, groups, x, {}, dy, dx.span(), scratch.span());
        require_close(y.span(), want.y, 32 + double(k));
        require_close(dx.span(), want.dx, 64 + double(n));
        std::vector<double> sum(size_t(k * n)), bias(static_cast<size_t>(n));
        for (size_t g = 0; g < 4; ++g) {
          for (size_t i = 0; i < sum.size(); ++i) sum[i] += want.dweight[g][i];
          for (size_t i = 0; i < bias.size(); ++i) bias[i] += want.dbias[g][i];
        }
        require_close(dweight.span(), sum, double(rows));
        require_close(dbias.span(), bias, double(rows));
        REQUIRE((y.intact() && dx.intact() && dweight.intact() && dbias.intact()));
      });
    }
}

}  // namespace

TEST_CASE("matmul: groups share weights and rows that overlap partly", "[kernels][matmul]") {
  share(2000, 9, 5, 10);  // enough for a race to have a chance to show
  share(200, 256, 512, 3);
}

namespace {

template <class Backend>
void reject(const Backend& be) {
  MatmulShape s;
  s.x_rows = s.y_rows = 4, s.k = 3, s.n = s.y_cols = 2;
  const Values x(12), weight(6), bias(2), dy(8);
  Values y(8);
  const MatmulGroup good{0, 0, 4, 0, weight, bias, {}, {}};
  Workspace space(4096);
  const auto forward = [&](const MatmulShape& shape, MatmulGroup g, In xs, Out ys) {
    const std::vector<MatmulGroup> groups{g};
    matmul_forward(be, shape, groups, xs, ys, space.span());
  };
  REQUIRE_NOTHROW(forward(s, good, x, y));
  REQUIRE_THROWS_AS(forward(s, good, In(x).first(11), y), std::invalid_argument);
  REQUIRE_THROWS_AS(forward(s, good, x, Out(y).first(7)), std::invalid_argument);
  MatmulGroup bad = good;
  bad.weight = In(weight).first(5);
  REQUIRE_THROWS_AS(forward(s, bad, x, y), std::invalid_argument);
  bad = good, bad.bias = In(bias).first(1);
  REQUIRE_THROWS_AS(forward(s, bad, x, y), std::invalid_argument);
  bad = good, bad.x_row = 1;
  REQUIRE_THROWS_AS(forward(s, bad, x, y), std::invalid_argument);
  bad = good, bad.rows = 3;
  REQUIRE_THROWS_AS(forward(s, bad, x, y), std::invalid_argument);
  bad = good, bad.y_col = 1;
  REQUIRE_THROWS_AS(forward(s, bad, x, y), std::invalid_argument);
  MatmulShape no_relu = s;
  no_relu.dropout = {0.5, &kState, 0};
  REQUIRE_THROWS_AS(forward(no_relu, good, x, y), std::invalid_argument);
  const std::vector<MatmulGroup> groups{good};
  REQUIRE_THROWS_AS(matmul_forward(be, s, groups, x, y, space.span().first(8)),
                    std::invalid_argument);
  s.relu = true;
  REQUIRE_THROWS_AS(matmul_backward(be, s, groups, x, {}, dy, {}, space.span()),
                    std::invalid_argument);
}

}  // namespace

TEST_CASE("matmul: rejects what does not fit", "[kernels][matmul][errors]") {
  for (const Device& device : devices()) device.run([](const auto& be) { reject(be); });
}

#ifdef DECALIGN_F64
TEST_CASE("matmul: gradients", "[autograd][matmul]") {
  for (const Device& device : devices())
    for (bool relu : {false, true})
      gradcheck(
          device, {{33, 7}, {10, 7}, {10}, {5, 7}},
          {uniform(231, -1, 1, 3), uniform(70, -1, 1, 4), uniform(10, -1, 1, 5),
           uniform(35, -1, 1, 6)},
          [&](Tape& tape, const std::vector<Tensor>& in) {
            const std::vector<MatmulPart> parts{{0, 0, 20, 0, in[1], in[2], 0, 5},
                                                {0, 0, 20, 5, in[1], in[2], 5, 5},
                                                {13, 20, 20, 0, in[3], {}, 0, 5},
                                                {13, 20, 20, 5, in[1], in[2], 5, 5}};
            return matmul(tape, in[0], parts, 40, 10,
                          {relu, relu ? Dropout{.3, &kState, 1} : Dropout{}});
          },
          1e-8, relu ? 1e-5 : 1e-3);
}
#endif
