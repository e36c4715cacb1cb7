// Moments of a sample.
#include <array>

#include "autograd/sample_moments.h"
#include "kernels/moments.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;
using State = Shared<double>;

// Sums are of doubles about a value of the rows' own: only in the double build their rounding
// shows.
constexpr double kSums = sizeof(real) == 8 ? 512 : 1;

struct Want {
  Doubles mean, variance, skewness, covariance;
};

// The definition, in long double.
Want reference(const SampleMomentsShape& s, const Values& x) {
  const int64_t n = s.rows, d = s.width;
  Want want{Doubles(size_t(d)), Doubles(size_t(d)), Doubles(size_t(d)), Doubles(size_t(d * d))};
  const long double divisor = std::max<int64_t>(n - s.correction, 1);
  std::vector<long double> mean(size_t(d), 0);
  for (int64_t j = 0; j < d; ++j) {
    for (int64_t i = 0; i < n; ++i) mean[size_t(j)] += x[size_t(i * d + j)];
    mean[size_t(j)] /= (long double)std::max<int64_t>(n, 1);
    long double m2 = 0, m3 = 0;
    for (int64_t i = 0; i < n; ++i) {
      const long double y = x[size_t(i * d + j)] - mean[size_t(j)];
      m2 += y * y, m3 += y * y * y;
    }
    want.mean[size_t(j)] = double(mean[size_t(j)]);
    want.variance[size_t(j)] = double(m2 / divisor);
    const long double v = n == 0 ? 0 : std::max<long double>(m2 / n, s.variance_floor);
    want.skewness[size_t(j)] = v > 0 ? double(m3 / n / (v * std::sqrt(v))) : 0;
  }
  if (!s.covariance) return want;
  for (int64_t j = 0; j < d; ++j)
    for (int64_t l = 0; l < d; ++l)
      for (int64_t i = 0; i < n; ++i)
        want.covariance[size_t(j * d + l)] +=
            double((x[size_t(i * d + j)] - mean[size_t(j)]) *
                   (x[size_t(i * d + l)] - mean[size_t(l)]) / divisor);
  return want;
}

template <class Backend>
State collected(const Backend& be, const SampleMomentsShape& s, In x) {
  State state(size_t(sample_moments_state_size(s)), -1);
  Workspace scratch(sample_moments_scratch_bytes(be, s));
  sample_moments_collect(be, s, x, state, scratch.span());
  wait();
  return state;
}

}  // namespace

TEST_CASE("sample_moments: matches the definition", "[kernels][sample_moments]") {
  for (const auto& [n, d] : std::vector<std::array<int64_t, 2>>{{0, 3},
                                                                {1, 1},
                                                                {1, 33},
                                                                {2, 7},
                                                                {7, 129},
                                                                {33, 16},
                                                                {129, 5},
                                                                {700, 140},
                                                                {5000, 2},
                                                                {20, 600},
                                                                {4, 0}})
    for (const double scale : {1.0, 1e-15, 1e15})
      for (const int64_t correction : {0, 1}) {
        if (n * d >= 10000 && scale + double(correction) != 2) continue;  // takes long enough once
        const SampleMomentsShape s{n, d, true, correction, 0};
        Values x = uniform(n * d, -scale, 2 * scale);
        for (size_t i = 0; i < x.size(); i += 3) x[i] *= x[i] / real(scale);  // some skewness
        const Want want = reference(s, x);
        Bits bits;
        for (const Device& device : devices())
          device.run([&, d = d](const auto& be) {
            Guarded mean(d), variance(d), skewness(d), covariance(d * d);
            const State state = collected(be, s, x);
            sample_moments_forward(be, s, state, mean.span(), variance.span(), skewness.span(),
                                   covariance.span());
            REQUIRE(
                (mean.intact() && variance.intact() && skewness.intact() && covariance.intact()));
            require_close(mean.span(), want.mean, kSums, 2 * scale);
            require_close(variance.span(), want.variance, kSums, 0);
            require_close(skewness.span(), want.skewness, 2 * kSums, 1);
            require_close(covariance.span(), want.covariance, 32, scale * scale);
            bits.require(
                device, {mean.values(), variance.values(), skewness.values(), covariance.values()});
            SampleMomentsShape without = s;  // the products change nothing else
            without.covariance = false;
            const State less = collected(be, without, x);
            REQUIRE(std::equal(less.begin(), less.end(), state.begin()));
          });
      }
}

TEST_CASE("sample_moments: a mean of 1e6, a variance of 1", "[kernels][sample_moments]") {
  const int64_t n = 5000, d = 3;
  Values x = uniform(n * d, -1.7, 1.7);
  for (real& e : x) e += real(1e6);
  x[0] = real(2e6);  // the rows that a chunk starts with may lie far off
  for (int64_t j = 1; j < d; ++j) x[size_t(j)] = x[size_t(d + j)];
  const SampleMomentsShape s{n, d, true, 1, 0};
  const Want want = reference(s, x);
  const double ulps = sizeof(real) == 8 ? 1e5 : 1;  // a mean of 1e6 is known to 1e-10 in double
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values mean(d), variance(d), skewness(d), covariance(d * d);
      const State state = collected(be, s, x);
      sample_moments_forward(be, s, state, mean, variance, skewness, covariance);
      require_close(mean, want.mean, 1, 0);
      require_close(variance, want.variance, ulps, 0);
      require_close(skewness, want.skewness, ulps, ulps > 1 ? 1 : 1e-4);
      for (int64_t j = 0; j < d; ++j)
        for (int64_t l = 0; l < d; ++l)
          REQUIRE(std::abs(double(covariance[size_t(j * d + l)]) -
                           want.covariance[size_t(j * d + l)]) <=
                  64 * ulps * double(std::numeric_limits<real>::epsilon()) *
                      std::sqrt(want.variance[size_t(j)] * want.variance[size_t(l)]));
    });
}

TEST_CASE("sample_moments: states merge", "[kernels][sample_moments]") {
  const int64_t n = 3000, d = 19;
  Values x = uniform(n * d, -1, 3);
  for (int64_t i = 0; i < n * d; ++i) x[size_t(i)] += real(i < n * d / 3 ? 5 : 0);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const auto shape = [](int64_t rows) { return SampleMomentsShape{rows, d, true}; };
      const State whole = collected(be, shape(n), x);
      for (const std::vector<int64_t>& cuts : std::vector<std::vector<int64_t>>{
               {0, n}, {0, 1, n}, {0, 0, 1000, 1000, 1001, 2999, n}, {0, 1500, n}}) {
        State state(whole.size(), 0);  // of no rows
        for (size_t i = 0; i + 1 < cuts.size(); ++i) {
          const int64_t rows = cuts[i + 1] - cuts[i];
          const State part =
              collected(be, shape(rows), In(x).subspan(size_t(cuts[i] * d), size_t(rows * d)));
          sample_moments_merge(be, shape(rows), part, state);
          device.wait();
        }
        REQUIRE(state[0] == double(n));
        for (size_t i = 1; i < size_t(1 + 3 * d); ++i)
          REQUIRE(std::abs(state[i] - whole[i]) <= 1e-13 * (double(n) + std::abs(whole[i])));
        for (size_t i = size_t(1 + 3 * d); i < state.size(); ++i)
          REQUIRE(std::abs(state[i] - whole[i]) <=
                  128 * double(std::numeric_limits<real>::epsilon()) * double(n));
      }
    });
}

TEST_CASE("sample_moments: columns that do not vary", "[autograd][sample_moments]") {
  for (const Device& device : devices())
    for (const double floor : {0.0, 1e-6})
      for (const int64_t n : {1, 7, 3000}) {
        Values x(size_t(n * 2), real(0.1)), dx(x.size(), 0);
        Tape tape(device);
        const auto m = sample_moments(tape, tape.leaf({n, 2}, x, dx), {true, 1, floor});
        tape.backward(m.skewness, Values{1, 1});
        device.wait();
        for (const Tensor& t : {m.variance, m.skewness, m.covariance})
          for (real e : device.read(t.value)) REQUIRE(e == 0);
        REQUIRE(device.read(m.mean.value, 0) == real(0.1));
        for (real e : dx) REQUIRE(e == 0);
      }
}

TEST_CASE("sample_moments: the way back leaves mean and scale alone",
          "[autograd][sample_moments]") {
  const int64_t n = 4100, d = 37;
  Values x = uniform(n * d, 0, 1), dx(x.size(), 0);
  for (real& e : x) e *= e;
  for (const Device& device : devices()) {
    std::fill(dx.begin(), dx.end(), real(0));
    Tape tape(device);
    const auto m = sample_moments(tape, tape.leaf({n, d}, x, dx));
    tape.backward(m.skewness, Values(size_t(d), real(n)));
    device.wait();
    const std::vector<real> mean = device.read(m.mean.value);
    for (int64_t j = 0; j < d; ++j) {
      double sum = 0, turn = 0, size = 0;
      for (int64_t i = 0; i < n; ++i) {
        const size_t at = size_t(i * d + j);
        sum += double(dx[at]), size += std::abs(double(dx[at]));
        turn += double(dx[at]) * (double(x[at]) - double(mean[size_t(j)]));
      }
      REQUIRE(size > 1);
      REQUIRE(std::abs(sum) <= 1e-6 * size);
      REQUIRE(std::abs(turn) <= 1e-6 * size);
    }
  }
}

TEST_CASE("sample_moments: of one modality they are the network's", "[kernels][sample_moments]") {
  const int64_t n = 33, d = 7;
  const Values x = uniform(n * d, -1, 2);
  const SampleMomentsShape s{n, d, true, 1, 1e-6};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const MomentsShape network{1, n, d};
      Values mean(d), covariance(d * d), skewness(d), value(1), mean2(d), covariance2(d * d),
          skewness2(d);
      Workspace scratch(moments_scratch_bytes(be, network));
      moments_forward(be, network, x, {}, mean, covariance, skewness, value, scratch.span());
      const State state = collected(be, s, x);
      sample_moments_forward(be, s, state, mean2, {}, skewness2, covariance2);
      device.wait();
      require_close(mean2, {mean.begin(), mean.end()}, 4);
      require_close(skewness2, {skewness.begin(), skewness.end()}, 16 * kSums);
      require_close(covariance2, {covariance.begin(), covariance.end()}, 16);
    });
}

TEST_CASE("sample_moments: spans are checked", "[kernels][sample_moments][errors]") {
  const Values x(12, 1);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const SampleMomentsShape s{4, 3};
      State state(10), wrong(9);
      Values three(3), two(2), nine(9), twelve(12);
      Workspace scratch(1 << 20);
      const auto collect = [&](const SampleMomentsShape& shape, State& to, size_t bytes) {
        sample_moments_collect(be, shape, x, to, scratch.span().first(bytes));
      };
      REQUIRE_NOTHROW(collect(s, state, 1 << 20));
      REQUIRE_THROWS_AS(collect(s, wrong, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(collect(s, state, 0), std::invalid_argument);
      REQUIRE_THROWS_AS(collect({3, 3}, state, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(collect({4, 3, true}, state, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(collect({4, 3, false, -1}, state, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(collect({4, 3, false, 1, -1.0}, state, 1 << 20), std::invalid_argument);
      REQUIRE_THROWS_AS(sample_moments_merge(be, s, wrong, state), std::invalid_argument);
      REQUIRE_THROWS_AS(sample_moments_merge(be, s, state, wrong), std::invalid_argument);
      REQUIRE_THROWS_AS(sample_moments_forward(be, s, state, two, {}, {}, {}),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(sample_moments_forward(be, s, state, three, {}, {}, nine),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(
          sample_moments_backward(be, s, x, state, {}, two, {}, {}, twelve, scratch.span()),
          std::invalid_argument);
      REQUIRE_THROWS_AS(
          sample_moments_backward(be, s, x, state, {}, three, {}, {}, two, scratch.span()),
          std::invalid_argument);
      device.wait();
    });
}

#ifdef DECALIGN_F64
TEST_CASE("sample_moments: gradients, clamped variances included", "[autograd][sample_moments]") {
  for (const Device& device : devices())
    for (const double scale : {1.0, 2e-4})
      for (const double floor : {0.0, 1e-6})
        for (const int64_t correction : {0, 1})
          for (int which = 0; which < 4; ++which)
            gradcheck(
                device, {{6, 3}}, {uniform(18, -scale, 2 * scale)},
                [&](Tape& tape, const std::vector<Tensor>& in) {
                  const auto m = sample_moments(tape, in[0], {true, correction, floor});
                  return std::array{m.mean, m.variance, m.skewness, m.covariance}[size_t(which)];
                },
                1e-8, scale < 1 ? (floor > 0 ? 1e-4 : 1e-6) : 1e-3);
}
#endif
