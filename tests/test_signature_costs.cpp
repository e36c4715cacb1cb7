// What the signature kernels cost on the simulated device, for tools/kernel_report --bars, with
// SIM_COST=FILE. Sizes are those of kernel_model's list of bars, or smaller ones that it scales.
#ifdef DECALIGN_SIM
#include "kernels/bures.h"
#include "kernels/gmm.h"
#include "kernels/mmd_two_sample.h"
#include "kernels/sample_moments.h"
#include "kernels/sinkhorn.h"
#include "kernels/sqrtm.h"
#include "tests/mot_problems.h"
#include "tests/sim/cost_model.h"
#include "tests/support.h"
#include "tests/symmetric.h"

using namespace decalign;
using namespace decalign::test;

namespace {

// Counts what `f` launches and nothing else.
template <class F>
void count(F f) {
  devices().front().run([&](const auto& be) {
    wait();  // the device's own copies are queued
    sim::start_costs();
    f(be);
    wait();
    sim::stop_costs();
  });
  CHECK_FALSE(sim::costs().empty());
}

Values covariances(int64_t count, int64_t d) {
  Values v;
  for (int64_t i = 0; i < count; ++i) {
    const Matrix m = random_covariance(int(d), 100, unsigned(i + 1));
    for (const Wide x : m.a) v.push_back(real(x));
  }
  return v;
}

void count_mixture(GmmCovariance covariance) {
  GmmShape s{3, 32, 64, {}};
  s.options.components = 7;
  s.options.covariance = covariance;
  const Values x = uniform(3 * 32 * 64, -1, 1);
  const int64_t spread = covariance == GmmCovariance::full ? 64 * 64 : 64;
  Values weights(21), means(21 * 64), spreads(static_cast<size_t>(21 * spread)), dx(x.size());
  Shared<int32_t> choice(21);
  count([&](const auto& be) {
    Workspace state(gmm_state_bytes(be, s));
    gmm_forward(be, s, x, weights, means, spreads, {}, {}, {}, choice, state.span());
    gmm_backward(be, s, x, choice, {}, means, spreads, {}, {}, {}, dx, state.span());
  });
}

void count_mmd(MmdArithmetic arithmetic) {
  const MmdTwoSampleShape s{256, 256, 64, 1, false, arithmetic};
  const Values x = uniform(256 * 64, -1, 1, 1), y = uniform(256 * 64, -1, 1, 2), bandwidth(1, 64),
               weight(1, 1);
  Values value(1), dx(x.size()), dy(y.size());
  count([&](const auto& be) {
    Workspace scratch(mmd_two_sample_scratch_bytes(be, s));
    mmd_two_sample_forward(be, s, x, y, bandwidth, weight, value, dx, dy, {}, scratch.span());
  });
}

}  // namespace

TEST_CASE("costs: sinkhorn", "[.bar][.bar-sinkhorn]") {
  SinkhornOptions options;
  options.log_domain = true;
  const SinkhornShape s{3, 7, options};
  const Values cost = uniform(3 * 49, 0, 1), marginals(21, real(1) / 7), one(1, 1);
  Shared<double> scalings(50 * 21);
  Values value(1), report(3), dcost(3 * 49), dmarginals(21);
  count([&](const auto& be) {
    Workspace scratch(sinkhorn_scratch_bytes(be, s));
    sinkhorn_forward(be, s, cost, marginals, scalings, value, report, scratch.span());
    sinkhorn_backward(be, s, cost, marginals, scalings, report, one, dcost, dmarginals,
                      scratch.span());
  });
}

TEST_CASE("costs: mot", "[.bar][.bar-mot]") {
  MotProblem p(CostGraph::complete, 1, 3, 7, 1);
  p.s.options.value = MotValue::primal;
  p.s.options.gradient = MotGradient::unrolled;
  Shared<double> state(static_cast<size_t>(mot_state_size(p.s)));
  Values value(1), report(4), one(1, 1), dcost(p.cost.size()), dmarginals(p.marginals.size());
  count([&](const auto& be) {
    Workspace scratch(mot_scratch_bytes(be, p.s));
    mot_forward(be, p.s, p.cost, p.marginals, state, value, {}, report, scratch.span());
    mot_backward(be, p.s, p.cost, p.marginals, state, report, one, {}, dcost, dmarginals, {},
                 scratch.span());
  });
}

TEST_CASE("costs: bures", "[.bar][.bar-bures]") {
  const BuresShape s{2, 2, 64, 64, {Spread::covariance, Pairing::matched, Reduction::mean, 0}};
  const Values means = uniform(4 * 64, -1, 1), given = covariances(4, 64), dcost(2, 1);
  Values cost(2), kept(static_cast<size_t>(s.kept_size())), dmeans(means.size()),
      dspread(given.size());
  count([&](const auto& be) {
    Workspace scratch(bures_scratch_bytes(be, s));
    bures_forward(be, s, means, given, cost, kept, scratch.span());
    bures_backward(be, s, means, given, kept, dcost, dmeans, dspread, scratch.span());
  });
}

TEST_CASE("costs: sqrtm", "[.bar][.bar-sqrtm]") {
  const SqrtmShape s{1, 64, 0};
  const Values a = covariances(1, 64);
  Values root(a.size()), da(a.size());
  Shared<double> kept(static_cast<size_t>(s.kept_size()));
  count([&](const auto& be) {
    Workspace scratch(sqrtm_scratch_bytes(be, s));
    sqrtm_forward(be, s, a, root, {}, kept, scratch.span());
    sqrtm_backward(be, s, kept, root, {}, da, scratch.span());
  });
}

TEST_CASE("costs: mmd", "[.bar][.bar-mmd]") { count_mmd(MmdArithmetic::differences); }

TEST_CASE("costs: mmd by products", "[.bar][.bar-mmd-products]") {
  count_mmd(MmdArithmetic::products);
}

TEST_CASE("costs: moments", "[.bar][.bar-moments]") {
  const SampleMomentsShape s{10000, 128, false, 1, 0};
  const Values x = uniform(s.rows * s.width, -1, 1);
  Shared<double> state(static_cast<size_t>(sample_moments_state_size(s)));
  Values mean(128), variance(128), skewness(128);
  count([&](const auto& be) {
    Workspace scratch(sample_moments_scratch_bytes(be, s));
    sample_moments_collect(be, s, x, state, scratch.span());
    sample_moments_forward(be, s, state, mean, variance, skewness, {});
  });
}

TEST_CASE("costs: diagonal mixtures of a step", "[.bar][.bar-gmm]") {
  count_mixture(GmmCovariance::diagonal);
}

TEST_CASE("costs: full mixtures of a step", "[.bar][.bar-gmm-full]") {
  count_mixture(GmmCovariance::full);
}

TEST_CASE("costs: a large mixture's E-step", "[.bar][.bar-gmm-large]") {
  const size_t K = 1024, d = 128;
  GmmShape s{1, 250, 128, {}};
  s.options.components = 1024;
  s.options.iterations = 0;
  s.options.arithmetic = GmmArithmetic::products;
  const Values x = uniform(s.batch * s.width, -1, 1);
  Values weights(K), means(K * d), variances(K * d), posteriors(K * 250);
  Shared<int32_t> choice(K);
  count([&](const auto& be) {
    Workspace state(gmm_state_bytes(be, s));
    gmm_forward(be, s, x, weights, means, variances, posteriors, {}, {}, choice, state.span());
  });
}
#endif
