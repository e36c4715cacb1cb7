// Gaussian mixtures by EM: the network's size forward and backward, large samples forward.
#include <cmath>

#include "bench/support.h"
#include "kernels/gmm.h"

using namespace decalign;
using namespace decalign::bench;

namespace {

struct Case {
  const char* name;
  int64_t modalities, rows, components, width, iterations;
  bool full;
};
constexpr Case kCases[] = {{"diagonal 3 x 32 x 7 x 64, 5 steps", 3, 32, 7, 64, 5, false},
                           {"full 3 x 32 x 7 x 64, 5 steps", 3, 32, 7, 64, 5, true},
                           {"diagonal 1e5 x 64 x 64, 1 step", 1, 100000, 64, 64, 1, false},
                           {"diagonal 1e5 x 64 x 64, 6 steps", 1, 100000, 64, 64, 6, false},
                           {"full 20000 x 16 x 64, 1 step", 1, 20000, 16, 64, 1, true},
                           {"full 20000 x 16 x 64, 6 steps", 1, 20000, 16, 64, 6, true}};

struct alignas(64) Line {
  std::byte bytes[64];
};

// Rows around K centres; rows of a cluster follow each other with stride K.
Values clusters(const Case& c) {
  const Values centres = uniform(c.components * c.width, 3);
  Values x = uniform(c.modalities * c.rows * c.width, 4);
  for (int64_t i = 0; i < std::ssize(x); ++i) {
    const int64_t row = i / c.width, k = row % c.components;
    x[size_t(i)] += real(1.5) * centres[size_t(k * c.width + i % c.width)];
  }
  return x;
}

struct Fit {
  Values weights, means, covariances, posteriors, marginals, likelihood;
  std::vector<int32_t> choice;
  std::vector<Line> state;

  Fit(const Cpu& be, const GmmShape& s)
      : weights(size_t(s.modalities * s.options.components)),
        means(weights.size() * size_t(s.width)),
        covariances(means.size() *
                    size_t(s.options.covariance == GmmCovariance::full ? s.width : 1)),
        posteriors(weights.size() * size_t(s.batch)),
        marginals(weights.size()),
        likelihood(size_t(s.modalities)),
        choice(weights.size()),
        state(gmm_state_bytes(be, s) / 64 + 1) {}
  Scratch scratch() { return std::as_writable_bytes(std::span(state)); }
  // Large samples are fitted for their parameters alone.
  void forward(const Cpu& be, const GmmShape& s, const Values& x, bool all) {
    gmm_forward(be, s, x, weights, means, covariances, all ? Out(posteriors) : Out(),
                all ? Out(marginals) : Out(), all ? Out(likelihood) : Out(), choice, scratch());
  }
};

// Weights sum to 1, and weights times means to the mean of the rows.
bool right(const Fit& f, const GmmShape& s, const Values& x) {
  const size_t K = size_t(s.options.components), d = size_t(s.width), n = size_t(s.batch);
  for (size_t j = 0; j < d; ++j) {
    double want = 0, got = 0, sum = 0;
    for (size_t i = 0; i < n; ++i) want += double(x[i * d + j]) / double(n);
    for (size_t k = 0; k < K; ++k) {
      got += double(f.weights[k]) * double(f.means[k * d + j]);
      sum += double(f.weights[k]);
    }
    if (!(std::abs(got - want) <= 1e-4 && std::abs(sum - 1) <= 1e-4)) return false;
  }
  return true;
}

void gmm(benchmark::State& state, const Case& c, bool backward) {
  const Cpu be{int(state.range(0))};
  GmmShape s{c.modalities, c.rows, c.width, {}};
  s.options.components = c.components;
  s.options.iterations = c.iterations;
  s.options.covariance = c.full ? GmmCovariance::full : GmmCovariance::diagonal;
  const bool large = c.rows * c.components > 1 << 15;
  s.options.arithmetic = large ? GmmArithmetic::products : GmmArithmetic::direct;
  const bool small = c.rows <= 1000;
  const Values x = clusters(c);
  Values dx(x.size());
  Fit f(be, s);
  f.forward(be, s, x, true);
  if (!right(f, s, x)) return state.SkipWithError("wrong result");
  const double likelihood = double(f.likelihood[0]);
  const Values dmeans = uniform(std::ssize(f.means), 5);
  Best best;
  for (auto _ : state)
    best.time(state, [&] {
      if (backward)
        gmm_backward(be, s, x, f.choice, {}, dmeans, {}, {}, {}, {}, dx, f.scratch());
      else
        f.forward(be, s, x, small);
    });
  // Products of an E-step and an M-step; symmetric and triangular ones count half.
  const double pairs = double(c.modalities * c.rows * c.components) * double(c.width);
  const double steps = double(c.iterations) + (small ? 1 : 0);
  const double flop = pairs * steps * (c.full ? 2 * double(c.width) : 8);
  state.counters["log_likelihood"] = likelihood;
  best.report(state, flop * (backward ? 2.5 : 1), be.threads);
}

// Products in `real` against the direct arithmetic in double, for clusters of unit width at growing
// distances: the largest errors of means (in widths), variances (relative) and posteriors.
void accuracy(benchmark::State& state) {
  const Case c{"", 1, 20000, 8, 16, 2, false};
  GmmShape s{1, c.rows, c.width, {}};
  s.options.components = c.components;
  s.options.iterations = c.iterations;
  const Values centres = uniform(c.components * c.width, 3);
  Values x = uniform(c.rows * c.width, 4);
  for (int64_t i = 0; i < std::ssize(x); ++i)
    x[size_t(i)] +=
        real(double(state.range(0)) *
             double(centres[size_t(i / c.width % c.components * c.width + i % c.width)]));
  const Cpu be{2};
  s.options.arithmetic = GmmArithmetic::direct;
  Fit want(be, s);
  want.forward(be, s, x, true);
  s.options.arithmetic = GmmArithmetic::products;
  Fit got(be, s);
  for (auto _ : state) got.forward(be, s, x, true);
  double mean = 0, variance = 0, posterior = 0;
  for (size_t i = 0; i < want.means.size(); ++i) {
    const double v = double(want.covariances[i]);
    mean = std::max(mean, std::abs(double(got.means[i]) - double(want.means[i])) / std::sqrt(v));
    variance = std::max(variance, std::abs(double(got.covariances[i]) / v - 1));
  }
  for (size_t i = 0; i < want.posteriors.size(); ++i)
    posterior =
        std::max(posterior, std::abs(double(got.posteriors[i]) - double(want.posteriors[i])));
  state.counters["mean"] = mean;
  state.counters["variance"] = variance;
  state.counters["posterior"] = posterior;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::RegisterBenchmark("accuracy of products, distance", accuracy)
      ->Arg(1)
      ->Arg(10)
      ->Arg(100)
      ->Arg(1000)
      ->Iterations(1);
  run_both_ways(argc, argv, kCases, gmm);
}
