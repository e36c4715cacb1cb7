// Bures-Wasserstein costs.
#include <array>

#include "autograd/bures.h"
#include "tests/support.h"
#include "tests/symmetric.h"

using namespace decalign;
using namespace decalign::test;

namespace {

// S = L L^T of a factor [d, rank], S of a covariance, diag(v); with the ridge.
Matrix covariance_of(const BuresShape& s, const Values& spread, int64_t prototype) {
  const int d = int(s.width), r = int(s.rank);
  const real* from = spread.data() + prototype * d * r;
  Matrix m(d);
  for (int i = 0; i < d; ++i) {
    if (s.options.spread == Spread::variances) m(i, i) = Wide(from[i]);
    for (int j = 0; j < d; ++j) {
      if (s.options.spread == Spread::covariance)
        m(i, j) = (Wide(from[i * d + j]) + Wide(from[j * d + i])) / 2;
      if (s.options.spread == Spread::factor)
        for (int l = 0; l < r; ++l) m(i, j) += Wide(from[i * r + l]) * Wide(from[j * r + l]);
    }
    m(i, i) += Wide(s.options.ridge);
  }
  return m;
}

struct Entry {
  int64_t one, other;  // prototypes
};

// The pairs in the order of `cost`.
std::vector<Entry> entries(const BuresShape& s) {
  std::vector<Entry> list;
  const int64_t K = s.components;
  for (int64_t i = 0; i < s.modalities; ++i)
    for (int64_t j = i + 1; j < s.modalities; ++j)
      for (int64_t a = 0; a < K; ++a)
        for (int64_t b = 0; b < K; ++b)
          if (s.options.pairing == Pairing::all || a == b) list.push_back({i * K + a, j * K + b});
  return list;
}

double mean_part(const BuresShape& s, const Values& means, const Entry& e) {
  double sum = 0;
  for (int64_t t = 0; t < s.width; ++t)
    sum += std::pow(
        double(means[size_t(e.one * s.width + t)]) - double(means[size_t(e.other * s.width + t)]),
        2);
  return sum;
}

// Random covariances of a condition, factors or variances, of size `scale`.
Values random_spread(const BuresShape& s, double scale, double condition = 50) {
  if (s.diagonal()) return uniform(s.spread_size(), 0.01 * scale, scale, 3);
  if (s.options.spread == Spread::factor)
    return uniform(s.spread_size(), -std::sqrt(scale), std::sqrt(scale), 3);
  Values v;
  for (int64_t p = 0; p < s.prototypes(); ++p)
    for (Wide x : random_covariance(int(s.width), condition, unsigned(p + 1)).a)
      v.push_back(real(double(x) * scale));
  return v;
}

struct Result {
  Values cost, dmeans, dspread;
};

// Cost and gradients for dcost = 1, on the host.
Result solve(const BuresShape& s, const Values& means, const Values& spread) {
  Result r{Values(size_t(s.pairs())), Values(means.size()), Values(spread.size())};
  Values kept(static_cast<size_t>(s.kept_size())), ones(r.cost.size(), 1);
  Workspace scratch(bures_scratch_bytes(Cpu{1}, s));
  bures_forward(Cpu{1}, s, means, spread, r.cost, kept, scratch.span());
  bures_backward(Cpu{1}, s, means, spread, kept, ones, r.dmeans, r.dspread, scratch.span());
  return r;
}

double norm(const Values& v) {
  double sum = 0;
  for (real x : v) sum += double(x) * double(x);
  return std::sqrt(sum);
}

struct Sizes {
  int64_t M, K, d, r;
};

}  // namespace

TEST_CASE("bures: matches the definition by matrix roots", "[kernels][bures]") {
  for (const auto& [spread, z] :
       std::vector<std::pair<Spread, Sizes>>{{Spread::covariance, {3, 2, 7, 7}},
                                             {Spread::covariance, {2, 3, 1, 1}},
                                             {Spread::covariance, {4, 1, 2, 2}},
                                             {Spread::covariance, {2, 1, 33, 33}},
                                             {Spread::covariance, {1, 3, 4, 4}},
                                             {Spread::covariance, {2, 0, 4, 4}},
                                             {Spread::factor, {3, 2, 7, 3}},
                                             {Spread::factor, {2, 2, 5, 5}},
                                             {Spread::factor, {2, 2, 3, 17}},
                                             {Spread::factor, {2, 2, 1, 4}},
                                             {Spread::variances, {3, 2, 33, 1}},
                                             {Spread::variances, {2, 2, 0, 1}}})
    for (const Pairing pairing : {Pairing::all, Pairing::matched})
      for (const double scale : {1.0, 1e-15, 1e15}) {
        if (z.d > 20 && scale != 1) continue;
        const BuresShape s{
            z.M,
            z.K,
            z.d,
            z.r,
            {spread, pairing, pairing == Pairing::all ? Reduction::sum : Reduction::mean,
             spread == Spread::factor ? 0 : 0.01 * scale}};
        const Values means = uniform(s.prototypes() * z.d, -std::sqrt(scale), std::sqrt(scale), 1),
                     given = random_spread(s, scale);
        std::vector<double> want;
        for (const Entry& e : entries(s)) {
          const double sum =
              mean_part(s, means, e) + double(bures_by_roots(covariance_of(s, given, e.one),
                                                             covariance_of(s, given, e.other)));
          want.push_back(pairing == Pairing::all ? sum : sum / std::max<double>(1, double(z.d)));
        }
        REQUIRE(int64_t(want.size()) == s.pairs());
        Bits bits;
        for (const Device& device : devices())
          device.run([&](const auto& be) {
            Guarded cost(s.pairs()), alone(s.pairs()), kept(s.kept_size());
            Workspace scratch(bures_scratch_bytes(be, s));
            bures_forward(be, s, means, given, cost.span(), kept.span(), scratch.span());
            bures_forward(be, s, means, given, alone.span(), {}, scratch.span());
            REQUIRE((cost.intact() && kept.intact() && alone.intact()));
            require_close(cost.span(), want, 64, scale);
            REQUIRE(cost.values() == alone.values());
            bits.require(device, {cost.values(), kept.values()});
          });
      }
}

TEST_CASE("bures: larger sizes against the definition", "[kernels][bures]") {
  for (const int64_t d : {64, 129}) {
    const BuresShape s{2, 1, d, d, {}};
    const Values means(size_t(2 * d)), given = random_spread(s, 1, 1e4);
    const double want =
        double(bures_by_roots(covariance_of(s, given, 0), covariance_of(s, given, 1)));
    require_close(solve(s, means, given).cost, {want}, 64, double(d));
  }
}

TEST_CASE("bures: every device agrees where matrices outgrow shared memory", "[kernels][bures]") {
  const int64_t d = 75;
  const BuresShape s{2, 1, d, d, {}};
  const Values means = uniform(2 * d, -1, 1, 1), given = random_spread(s, 1, 100), one(1, 1);
  const Result want = solve(s, means, given);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded cost(1), kept(s.kept_size()), dspread(std::ssize(given), 0);
      Workspace scratch(bures_scratch_bytes(be, s));
      bures_forward(be, s, means, given, cost.span(), kept.span(), scratch.span());
      bures_backward(be, s, means, given, kept.span(), one, {}, dspread.span(), scratch.span());
      REQUIRE((cost.intact() && kept.intact() && dspread.intact()));
      require_close(cost.span(), {double(want.cost[0])}, 8);
      require_close(dspread.span(), {want.dspread.begin(), want.dspread.end()}, 64);
    });
}

TEST_CASE("bures: the gradient follows its formula and is added, empty ones are skipped",
          "[kernels][bures]") {
  for (const auto& [spread, z] :
       std::vector<std::pair<Spread, Sizes>>{{Spread::covariance, {3, 2, 7, 7}},
                                             {Spread::covariance, {2, 2, 1, 1}},
                                             {Spread::covariance, {2, 1, 33, 33}},
                                             {Spread::factor, {3, 2, 5, 9}},
                                             {Spread::factor, {2, 2, 6, 6}},
                                             {Spread::variances, {3, 2, 9, 1}}})
    for (const Pairing pairing : {Pairing::all, Pairing::matched}) {
      const BuresShape s{z.M, z.K, z.d, z.r, {spread, pairing, Reduction::mean, 0}};
      const int64_t d = z.d, r = z.r;
      const Values means = uniform(s.prototypes() * d, -1, 1, 1), given = random_spread(s, 1),
                   dcost = uniform(s.pairs(), -1, 1, 4);
      std::vector<double> dmeans(means.size(), 0.5), dspread(given.size(), 0.5);
      size_t at = 0;
      for (const Entry& e : entries(s)) {
        const double g = double(dcost[at++]) / double(d);
        for (int64_t t = 0; t < d; ++t) {
          const size_t p = size_t(e.one * d + t), q = size_t(e.other * d + t);
          dmeans[p] += 2 * g * (double(means[p]) - double(means[q]));
          dmeans[q] -= 2 * g * (double(means[p]) - double(means[q]));
        }
        for (const auto& [from, to] : {std::pair(e.one, e.other), std::pair(e.other, e.one)}) {
          const Matrix slope =
              bures_gradient_by_roots(covariance_of(s, given, from), covariance_of(s, given, to));
          for (int64_t i = 0; i < d; ++i)
            for (int64_t j = 0; j < r; ++j) {
              const size_t p = size_t((from * d + i) * r + j);
              if (spread == Spread::covariance) dspread[p] += g * double(slope(int(i), int(j)));
              if (spread == Spread::variances) dspread[p] += g * double(slope(int(i), int(i)));
              for (int64_t l = 0; l < d && spread == Spread::factor; ++l)
                dspread[p] += 2 * g * double(slope(int(i), int(l))) *
                              double(given[size_t((from * d + l) * r + j)]);
            }
        }
      }
      Bits bits;
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Values cost(dcost.size());
          Guarded kept(s.kept_size()), gm(std::ssize(means), 0.5), gs(std::ssize(given), 0.5),
              alone(std::ssize(given), 0.5);
          Workspace scratch(bures_scratch_bytes(be, s));
          bures_forward(be, s, means, given, cost, kept.span(), scratch.span());
          bures_backward(be, s, means, given, kept.span(), dcost, gm.span(), gs.span(),
                         scratch.span());
          bures_backward(be, s, means, given, kept.span(), dcost, {}, alone.span(), scratch.span());
          REQUIRE((gm.intact() && gs.intact() && alone.intact() && kept.intact()));
          require_close(gm.span(), dmeans, 64);
          require_close(gs.span(), dspread, 256, 2);
          bits.require(device, {gm.values(), gs.values()});
          REQUIRE(alone.values() == gs.values());
          bures_backward(be, s, means, given, {}, dcost, gm.span(), {}, scratch.span());
          for (size_t i = 0; i < dmeans.size(); ++i)
            REQUIRE(close(gm.values()[i], 2 * dmeans[i] - 0.5, 99));
        });
    }
}

TEST_CASE("bures: digits at conditions from 1e2 to 1e6, near and at coincidence",
          "[kernels][bures]") {
  const int d = 40;
  const BuresShape s{2, 1, d, d, {}};
  const Values means(size_t(2 * d));
  const double eps = std::numeric_limits<real>::epsilon();
  for (const double condition : {1e2, 1e4, 1e6})
    for (const double distance : {1.0, 1e-4}) {  // 1: independent
      Values given = random_spread(s, 1, condition);
      const Matrix step = random_covariance(d, 10, 7);
      if (distance < 1)
        for (size_t i = 0; i < step.a.size(); ++i)
          given[step.a.size() + i] = given[i] + real(distance * double(step.a[i]));
      const Matrix a = covariance_of(s, given, 0), b = covariance_of(s, given, 1);
      const Matrix slope = bures_gradient_by_roots(a, b);
      const double want = double(bures_by_roots(a, b));
      const Result got = solve(s, means, given);
      double error = 0, size = 0;
      for (size_t i = 0; i < slope.a.size(); ++i) {
        error += std::pow(double(got.dspread[i]) - double(slope.a[i]), 2);
        size += std::pow(double(slope.a[i]), 2);
      }
      INFO("condition " << condition << ", distance " << distance);
      // The definition itself loses digits where the cost is small beside the traces.
      CHECK(std::abs(double(got.cost[0]) - want) <= 4 * eps * want + 1e-15);
      CHECK(std::sqrt(error / size) <= 4 * eps + 1e-14 * condition / distance);
    }
  for (const double condition : {1e4, 1e6}) {
    Values given = random_spread(s, 1, condition);
    std::copy_n(given.begin(), d * d, given.begin() + d * d);
    const Result got = solve(s, means, given);
    CHECK(double(got.cost[0]) >= 0);
    CHECK(double(got.cost[0]) <= 1e-26);
    CHECK(norm(got.dspread) <= 1e-12);
    CHECK(norm(got.dmeans) == 0);
  }
}

TEST_CASE("bures: deficient ranks have the right cost and bounded gradients", "[kernels][bures]") {
  // Mass in directions of their own: nothing is transported within the span.
  const BuresShape plane{2, 1, 2, 2, {}};
  const Values means(4);
  require_close(solve(plane, means, {1, 0, 0, 0, 0, 0, 0, 4}).cost, {5}, 4);
  require_close(solve(plane, means, {0, 0, 0, 0, 0, 0, 0, 0}).cost, {0}, 4);
  require_close(solve(plane, means, {0, 0, 0, 0, 1, 0, 0, 4}).cost, {5}, 4);
  // A common zero direction: like the rest alone, and equal ones cost nothing.
  require_close(solve(plane, means, {4, 0, 0, 0, 1, 0, 0, 0}).cost, {1}, 4);
  require_close(solve(plane, means, {1, 1, 1, 1, 1, 1, 1, 1}).cost, {0}, 4);
  // Of rank one but for rounding, which leaves pivots of either sign.
  const Values x = uniform(20, -1, 1, 8);
  Values outer;
  for (int copy = 0; copy < 2; ++copy)
    for (const real a : x)
      for (const real b : x) outer.push_back(a * b);
  const Result same = solve({2, 1, 20, 20, {}}, Values(40), outer);
  require_close(same.cost, {0}, 4);
  for (const real e : same.dspread) REQUIRE(std::isfinite(e));
  for (const int64_t r : {1, 2, 5, 9}) {
    const BuresShape s{2, 2, 5, r, {Spread::factor, Pairing::all, Reduction::sum, 0}};
    const Values zero(size_t(4 * 5));
    Values factors = uniform(s.spread_size(), -1, 1, 5);
    for (int64_t i = 0; i < 5; ++i) factors[size_t(i * r)] = 0;        // a column of the first
    std::copy_n(factors.begin(), 5 * r, factors.begin() + 2 * 5 * r);  // equal to the third
    const Result got = solve(s, zero, factors);
    std::vector<double> want;
    for (const Entry& e : entries(s))
      want.push_back(double(
          bures_by_roots(covariance_of(s, factors, e.one), covariance_of(s, factors, e.other))));
    require_close(got.cost, want, 64, 4);
    CHECK(double(got.cost[0]) <= 1e-26);
    CHECK(norm(got.dspread) <= 2 * 4 * 2 * norm(factors));
  }
  const BuresShape diagonal{2, 1, 3, 1, {Spread::variances, Pairing::all, Reduction::sum, 0}};
  const Result got = solve(diagonal, Values(6), {0, 0, 4, 0, 1, 1});
  require_close(got.cost, {2}, 4);
  require_close(got.dspread, {0, 0, 0.5, 0, 1, -1}, 4);
}

TEST_CASE("bures: what is no covariance gives NaN", "[kernels][bures]") {
  const BuresShape s{2, 1, 2, 2, {}};
  const Values means(4);
  const real nan = std::numeric_limits<real>::quiet_NaN(),
             inf = std::numeric_limits<real>::infinity();
  for (const Values& bad : {Values{1, 2, 2, 1, 1, 0, 0, 1}, Values{-1, 0, 0, 1, 1, 0, 0, 1},
                            Values{1, 0, 0, 1, 1, nan, 0, 1}, Values{1, 0, 0, inf, 1, 0, 0, 1}})
    CHECK(std::isnan(solve(s, means, bad).cost[0]));
}

TEST_CASE("bures: sizes and spans are checked", "[kernels][bures][errors]") {
  const BuresShape s{2, 2, 3, 3, {}};
  Values means(12), spread(36, 1), cost(4), kept(size_t(s.kept_size())), wrong(5);
  const auto with = [&](auto change) {
    BuresShape c = s;
    change(c);
    return c;
  };
  for (const BuresShape& bad :
       {with([](BuresShape& c) { c.modalities = 0; }), with([](BuresShape& c) { c.width = 257; }),
        with([](BuresShape& c) { c.rank = 2; }), with([](BuresShape& c) { c.options.ridge = -1; }),
        with([](BuresShape& c) { c.options.ridge = std::nan(""); }),
        with([](BuresShape& c) { c.options.spread = Spread::variances; }),
        with([](BuresShape& c) { c.options.spread = Spread::factor, c.rank = 257; }),
        with([](BuresShape& c) { c.options.spread = Spread::factor, c.options.ridge = 1; })})
    REQUIRE_THROWS_AS(bures_scratch_bytes(Cpu{}, bad), std::invalid_argument);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Workspace scratch(bures_scratch_bytes(be, s));
      const auto forward = [&](In m, In v, Out c, Out k, Scratch w) {
        bures_forward(be, s, m, v, c, k, w);
      };
      REQUIRE_NOTHROW(forward(means, spread, cost, kept, scratch.span()));
      REQUIRE_THROWS_AS(forward(wrong, spread, cost, kept, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(means, wrong, cost, kept, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(means, spread, wrong, kept, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(means, spread, cost, wrong, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(means, spread, cost, kept, scratch.span().first(64)),
                        std::invalid_argument);
      const auto backward = [&](In k, InOut dm, InOut ds) {
        bures_backward(be, s, means, spread, k, cost, dm, ds, scratch.span());
      };
      REQUIRE_THROWS_AS(backward({}, means, spread), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(kept, wrong, spread), std::invalid_argument);
      REQUIRE_THROWS_AS(backward(kept, means, wrong), std::invalid_argument);
      device.wait();
    });
}

#ifdef DECALIGN_F64
TEST_CASE("bures: gradient", "[autograd][bures]") {
  for (const Pairing pairing : {Pairing::all, Pairing::matched})
    for (const auto& [spread, d, r] :
         std::vector<std::tuple<Spread, int64_t, int64_t>>{{Spread::covariance, 5, 5},
                                                           {Spread::covariance, 1, 1},
                                                           {Spread::factor, 4, 4},
                                                           {Spread::factor, 4, 2},
                                                           {Spread::factor, 3, 7},
                                                           {Spread::variances, 6, 1}}) {
      const double ridge = spread == Spread::factor ? 0 : 0.3;
      const BuresOptions options{spread, pairing, Reduction::mean, ridge};
      const BuresShape s{3, 2, d, r, options};
      for (const Device& device : devices())
        gradcheck(device, {{3, 2, d}, r == 1 ? Shape{3, 2, d} : Shape{3, 2, d, r}},
                  {uniform(6 * d, -1, 1, 1), random_spread(s, 1, 10)},
                  [&](Tape& tape, const std::vector<Tensor>& x) {
                    Tensor given = x[1];
                    if (spread == Spread::covariance) given.shape = {3, 2, d, r};
                    return bures(tape, x[0], given, options);
                  });
    }
}
#endif
