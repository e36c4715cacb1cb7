// Maximum mean discrepancy of two samples.
#include <algorithm>
#include <array>

#include "autograd/mmd_two_sample.h"
#include "kernels/mmd.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Sum = long double;  // thousands of terms

struct Want {
  Sum value = 0;
  std::vector<double> dx, dy;
  std::vector<Sum> db;
  double pull = 0, slope = 0;  // sizes of what is summed in an entry of dx or dy, and of db
};

// The definition in double, one ordered pair after another.
Want reference(const MmdTwoSampleShape& s, const Values& x, const Values& y, const Values& b,
               const Values& w) {
  const int64_t n = s.x_rows, m = s.y_rows, d = s.width;
  Want want{0, std::vector<double>(x.size()), std::vector<double>(y.size()),
            std::vector<Sum>(b.size())};
  if (n == 0 || m == 0) return want;
  const auto at = [&](int64_t i, int64_t t) {
    return double(i < n ? x[size_t(i * d + t)] : y[size_t((i - n) * d + t)]);
  };
  std::vector<double> pull(size_t(n + m), 0.0);
  for (int64_t i = 0; i < n + m; ++i)
    for (int64_t j = 0; j < n + m; ++j) {
      if (s.unbiased && i == j) continue;
      const int64_t less = s.unbiased ? 1 : 0;
      const double c = (i < n) != (j < n) ? -1.0 / double(n * m)
                       : i < n            ? 1.0 / double(n * (n - less))
                                          : 1.0 / double(m * (m - less));
      double distance = 0, slope = 0;
      for (int64_t t = 0; t < d; ++t) distance += (at(i, t) - at(j, t)) * (at(i, t) - at(j, t));
      for (size_t l = 0; l < b.size(); ++l) {
        const double width = double(b[l]), k = double(w[l]) * std::exp(-distance / (2 * width));
        want.value += c * k;
        slope += 2 * c * k / width;
        want.db[l] += c * k * distance / (2 * width * width);
        want.slope = std::max(want.slope, std::abs(k) * distance / (2 * width * width));
      }
      for (int64_t t = 0; t < d; ++t)
        (i < n ? want.dx[size_t(i * d + t)] : want.dy[size_t((i - n) * d + t)]) -=
            slope * (at(i, t) - at(j, t));
      pull[size_t(i)] += std::abs(slope) * std::sqrt(distance);
    }
  want.pull = *std::max_element(pull.begin(), pull.end());
  return want;
}

double sum_of_sizes(const Values& w) {
  double sum = 0;
  for (real e : w) sum += std::abs(double(e));
  return sum;
}

void require_matches(const MmdTwoSampleShape& s, const Values& x, const Values& y, const Values& b,
                     const Values& w) {
  const Want want = reference(s, x, y, b, w);
  const double ulps = 16 + double(b.size() * b.size()) * 4;  // a square doubles an error
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded value(1), dx(std::ssize(x)), dy(std::ssize(y)), db(std::ssize(b)), alone(1),
          only(std::ssize(y));
      Workspace scratch(mmd_two_sample_scratch_bytes(be, s));
      mmd_two_sample_forward(be, s, x, y, b, w, value.span(), dx.span(), dy.span(), db.span(),
                             scratch.span());
      mmd_two_sample_forward(be, s, x, y, b, w, alone.span(), {}, only.span(), {}, scratch.span());
      REQUIRE((value.intact() && dx.intact() && dy.intact() && db.intact() && alone.intact() &&
               only.intact()));
      require_close(value.span(), {double(want.value)}, ulps, sum_of_sizes(w));
      require_close(dx.span(), want.dx, ulps, want.pull);
      require_close(dy.span(), want.dy, ulps, want.pull);
      require_close(db.span(), {want.db.begin(), want.db.end()}, ulps, want.slope);
      REQUIRE((alone.values() == value.values() && only.values() == dy.values()));
      bits.require(device, {value.values(), dx.values(), dy.values(), db.values()});
    });
}

double median_bandwidth(const Device& device, const Values& x, const Values& y, int64_t d) {
  Guarded bandwidth(1);
  device.run([&](const auto& be) {
    const MmdTwoSampleShape s{std::ssize(x) / d, std::ssize(y) / d, d};
    Workspace scratch(mmd_median_scratch_bytes(be, s));
    mmd_median_bandwidth(be, s, x, y, bandwidth.span(), scratch.span());
    REQUIRE(bandwidth.intact());
  });
  return double(bandwidth.values()[0]);
}

// Of samples [n, d] and [m, d]; from 1024 rows on of 1024 evenly spaced ones.
void require_median(const std::vector<std::array<int64_t, 3>>& sizes) {
  for (const auto& [n, m, d] : sizes) {
    const Values x = uniform(n * d, -1, 1, 1), y = uniform(m * d, 0, 3, 2);
    Values z = x, distances;
    z.insert(z.end(), y.begin(), y.end());
    const int64_t all = n + m, rows = std::min<int64_t>(all, 1024);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < i; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < d; ++t)
          sum += std::pow(
              double(z[size_t(i * all / rows * d + t)]) - double(z[size_t(j * all / rows * d + t)]),
              2);
        distances.push_back(real(sum));
      }
    std::sort(distances.begin(), distances.end());
    const double want = double(distances[(distances.size() - 1) / 2]);
    for (const Device& device : devices())
      REQUIRE(median_bandwidth(device, x, y, d) == Approx(want).epsilon(1e-6));
  }
}

}  // namespace

TEST_CASE("mmd_two_sample: matches the definition", "[kernels][mmd_two_sample]") {
  for (const auto& [n, m, d] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                   {7, 1, 33},
                                                                   {33, 7, 7},
                                                                   {129, 33, 16},
                                                                   {2, 70, 129},
                                                                   {150, 70, 3},
                                                                   {5, 6, 0},
                                                                   {0, 4, 3},
                                                                   {4, 0, 3}})
    for (const bool unbiased : {false, true}) {
      if (unbiased && (n < 2 || m < 2)) continue;
      const Values x = uniform(n * d, -1, 1, 1), y = uniform(m * d, -1, 2, 2);
      const real b = real(1 + d);
      if (unbiased) {
        require_matches({n, m, d, 3, true}, x, y, {b / 3, b, b / 2}, {real(0.5), 1, 2});
        continue;
      }
      require_matches({n, m, d, 1, false}, x, y, {b}, {1});
      require_matches({n, m, d, 5, false}, x, y, {4 * b, 2 * b, b, b / 2, b / 4},
                      {real(0.2), real(-0.1), real(0.4), real(0.5), 0});
    }
}

TEST_CASE("mmd_two_sample: blocks of several tiles", "[kernels][mmd_two_sample][large]") {
  const int64_t n = 5000, m = 3300, d = 3;  // 65 of two tiles
  require_matches({n, m, d, 2, true}, uniform(n * d, -1, 1, 1), uniform(m * d, -1, 1.5, 2),
                  {1, real(0.5)}, {1, 1});
}

TEST_CASE("mmd_two_sample: products match the definition", "[kernels][mmd_two_sample]") {
  for (const auto& [n, m, d] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {33, 2, 65}, {5, 130, 7}, {5, 6, 0}, {0, 4, 3}, {4, 0, 3}}) {
    const double far = d == 65 ? 1e3 : 0;
    const Values x = uniform(n * d, far - 1, far + 1, 1), y = uniform(m * d, far - 1, far + 2, 2);
    const real b = real(1 + d);
    if (n < 2 || m < 2)
      require_matches({n, m, d, 1, false, MmdArithmetic::products}, x, y, {b}, {1});
    else
      require_matches({n, m, d, 3, true, MmdArithmetic::products}, x, y, {b, b / 2, b / 3},
                      {real(0.5), 1, 2});
  }
}

TEST_CASE("mmd_two_sample: scales and coincident points", "[kernels][mmd_two_sample]") {
  const int64_t n = 40, m = 33, d = 5;
  for (const double scale : {1e-15, 1e-4, 1e15}) {
    const Values x = uniform(n * d, -scale, scale, 1), y = uniform(m * d, -scale, 2 * scale, 2);
    const real b = real(scale) * real(scale);
    const MmdTwoSampleShape s{n, m, d, 2, true};
    const Want want = reference(s, x, y, {2 * b, b}, {1, 1});
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Values value(1), dx(x.size()), dy(y.size()), db(2);
        Workspace scratch(mmd_two_sample_scratch_bytes(be, s));
        mmd_two_sample_forward(be, s, x, y, Values{2 * b, b}, Values{1, 1}, value, dx, dy, db,
                               scratch.span());
        require_close(value, {double(want.value)}, 32, 2);
        device.wait();
        // As sums of differences the gradient keeps its digits at every scale.
        for (size_t i = 0; i < dx.size(); ++i)
          REQUIRE(std::abs(double(dx[i]) - want.dx[i]) <=
                  32 * double(std::numeric_limits<real>::epsilon()) * want.pull);
      });
  }
  // A sample far from the origin is the same sample: every difference is exact.
  Values x = uniform(n * d, 0, 1, 1), y = uniform(m * d, 0, 1, 2), far_x, far_y;
  for (Values* v : {&x, &y})
    for (real& e : *v) e = std::round(e * 256) / 256;
  for (real e : x) far_x.push_back(e + 4096);
  for (real e : y) far_y.push_back(e + 4096);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const MmdTwoSampleShape s{n, m, d, 1, false};
      Values value(1), dx(x.size()), value2(1), dx2(x.size());
      Workspace scratch(mmd_two_sample_scratch_bytes(be, s));
      mmd_two_sample_forward(be, s, x, y, Values{1}, Values{1}, value, dx, {}, {}, scratch.span());
      mmd_two_sample_forward(be, s, far_x, far_y, Values{1}, Values{1}, value2, dx2, {}, {},
                             scratch.span());
      device.wait();
      REQUIRE((value == value2 && dx == dx2));
      // Equal points: nothing is pulled, exactly.
      const Values same(x.size(), real(0.1));
      mmd_two_sample_forward(be, {n, 1, d, 1, false}, same, In(same).first(size_t(d)),
                             Values{real(1e-6)}, Values{1}, value, dx, {}, {}, scratch.span());
      require_close(value, {0}, 8);
      REQUIRE(dx == Values(dx.size(), 0));
    });
}

TEST_CASE("mmd_two_sample: equal samples have no distance", "[kernels][mmd_two_sample]") {
  const int64_t n = 200, d = 9;
  const Values x = uniform(n * d, -1, 1);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const MmdTwoSampleShape s{n, n, d, 2, false};
      Values value(1), dx(x.size()), dy(x.size()), db(2);
      Workspace scratch(mmd_two_sample_scratch_bytes(be, s));
      mmd_two_sample_forward(be, s, x, x, Values{4, 2}, Values{1, 1}, value, dx, dy, db,
                             scratch.span());
      require_close(value, {0}, 8);
      require_close(dx, std::vector<double>(x.size(), 0.0), 8, 1.0 / double(n));
      require_close(dy, std::vector<double>(x.size(), 0.0), 8, 1.0 / double(n));
    });
}

TEST_CASE("mmd_two_sample: of two modalities it is the network's mmd",
          "[kernels][mmd_two_sample]") {
  const int64_t n = 33, d = 7;
  const Values z = uniform(2 * n * d, -1, 1);
  const auto x = In(z).first(size_t(n * d)), y = In(z).last(size_t(n * d));
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values value(1), gradient(z.size()), value2(1), dx(x.size()), dy(y.size());
      const MmdShape network{2, n, d, 3};
      const MmdTwoSampleShape s{n, n, d, 1, false};
      Workspace scratch(mmd_scratch_bytes(be, network)),
          scratch2(mmd_two_sample_scratch_bytes(be, s));
      mmd_forward(be, network, z, {}, value, gradient, {}, scratch.span());
      mmd_two_sample_forward(be, s, x, y, Values{3}, Values{1}, value2, dx, dy, {},
                             scratch2.span());
      device.wait();
      require_close(value2, {double(value[0])}, 8);
      const double size = 1.0 / double(n);
      require_close(dx, {gradient.begin(), gradient.begin() + n * d}, 8, size);
      require_close(dy, {gradient.begin() + n * d, gradient.end()}, 8, size);
    });
}

TEST_CASE("mmd_two_sample: the median heuristic", "[kernels][mmd_two_sample]") {
  require_median({{2, 1, 3}, {7, 33, 5}, {0, 4, 1}});
  for (const Device& device : devices()) {
    // Most pairs coincide: the mean.
    REQUIRE(median_bandwidth(device, {1, 1, 1, 4}, {1}, 1) == Approx(4 * 9.0 / 10));
    REQUIRE(median_bandwidth(device, {2, 2}, {2}, 1) == 1);
    REQUIRE(median_bandwidth(device, {2}, {}, 1) == 1);
  }
}

TEST_CASE("mmd_two_sample: the median of some of the rows", "[kernels][mmd_two_sample][large]") {
  require_median({{900, 700, 2}});
}

TEST_CASE("mmd_two_sample: bandwidths and spans are checked", "[kernels][mmd_two_sample][errors]") {
  const Values x(12, 1), y(8, 2);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values value(1), wrong(2);
      const auto run = [&](MmdTwoSampleShape s, In b, In w, Out v, Out dx = {}) {
        Workspace scratch(1 << 20);
        mmd_two_sample_forward(be, s, x, y, b, w, v, dx, {}, {}, scratch.span());
        device.wait();
      };
      const Values one{1}, two{1, 1};
      for (const real b : {real(0), real(-1), real(NAN)}) {
        run({3, 2, 4, 2, false}, Values{1, b}, two, value);
        REQUIRE(std::isnan(value[0]));
      }
      run({3, 2, 4, 1, true}, one, one, value);
      REQUIRE(std::isfinite(value[0]));
      REQUIRE_THROWS_AS(run({3, 2, 3}, one, one, value), std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 1, 4}, one, one, value), std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 2, 4, 0}, {}, {}, value), std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 2, 4, 17}, Values(17, 1), Values(17, 1), value),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 2, 4}, two, one, value), std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 2, 4}, one, two, value), std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 2, 4}, one, one, wrong), std::invalid_argument);
      REQUIRE_THROWS_AS(run({3, 2, 4}, one, one, value, wrong), std::invalid_argument);
      REQUIRE_THROWS_AS(run({12, 8, 1, 1, true}, one, one, {}), std::invalid_argument);
      REQUIRE_THROWS_AS(mmd_two_sample_forward(be, {1, 8, 12, 1, true}, x, Values(96), one, one,
                                               value, {}, {}, {}, {}),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(
          mmd_two_sample_forward(be, {3, 2, 4}, x, y, one, one, value, {}, {}, {}, {}),
          std::invalid_argument);
      REQUIRE_THROWS_AS(mmd_median_bandwidth(be, {3, 2, 4}, x, y, wrong, {}),
                        std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("mmd_two_sample: gradients", "[autograd][mmd_two_sample]") {
  for (const Device& device : devices())
    for (const bool unbiased : {false, true})
      for (const Values& b : {Values{1}, Values{2, 1, 0.5}, Values{0.3, 3}}) {
        const int64_t L = std::ssize(b);
        gradcheck(device, {{6, 3}, {4, 3}, {L}}, {uniform(18, -1, 1), uniform(12, 0, 1, 2), b},
                  [&](Tape& tape, const std::vector<Tensor>& in) {
                    const Tensor weights = tape.constant({L}, uniform(L, 0.5, 1, 3));
                    return mmd_two_sample(tape, in[0], in[1], in[2], weights, unbiased);
                  });
      }
}
#endif
