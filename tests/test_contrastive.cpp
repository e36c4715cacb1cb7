// Supervised contrastive loss.
#include <array>

#include "autograd/contrastive.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

double reference(const Values& x, int64_t B, int64_t F, std::span<const int32_t> c, double tau) {
  const auto X = [&](int64_t i, int64_t t) { return double(x[size_t(i * F + t)]); };
  std::vector<double> norm;
  for (int64_t i = 0; i < B; ++i) {
    double s = 0;
    for (int64_t t = 0; t < F; ++t) s += X(i, t) * X(i, t);
    norm.push_back(std::max(std::sqrt(s), 1e-12));
  }
  double total = 0, valid = 0;
  for (int64_t i = 0; i < B; ++i) {
    std::vector<double> l;
    for (int64_t j = 0; j < B; ++j) {
      double s = 0;
      for (int64_t t = 0; t < F; ++t) s += X(i, t) / norm[size_t(i)] * X(j, t) / norm[size_t(j)];
      l.push_back(s / tau);
    }
    const double top = *std::max_element(l.begin(), l.end());
    double mass = 0, sum = 0, positives = 0;
    for (int64_t j = 0; j < B; ++j)
      if (j != i) {
        mass += std::exp(l[size_t(j)] - top);
        if (c[size_t(j)] == c[size_t(i)]) positives += 1, sum += l[size_t(j)] - top;
      }
    if (positives == 0) continue;
    valid += 1;
    total -= sum / positives - std::log(std::max(mass, 1e-8));
  }
  return valid > 0 ? total / valid : 0;
}

Shared<int32_t> classes(int64_t B, int32_t count) {
  Shared<int32_t> c;
  for (int64_t i = 0; i < B; ++i) c.push_back(int32_t(i * i % count) - 1);
  return c;
}

}  // namespace

TEST_CASE("contrastive: matches the definition, every thread count gives the same bits",
          "[kernels][contrastive]") {
  for (const auto& [B, F] : std::vector<std::array<int64_t, 2>>{
           {32, 240}, {1, 3}, {2, 1}, {7, 33}, {129, 65}, {3, 0}, {0, 4}})
    for (double tau : {0.1, 1.0, 0.02})
      for (double scale : {1.0, 1e-5, 1e5}) {
        if (B > 100 && (tau != 0.1 || scale != 1)) continue;  // for its many blocks alone
        const ContrastiveShape s{B, F, tau};
        const Values x = uniform(B * F, -scale, scale);
        const auto c = classes(B, 7);
        Values want_value(1), want(x.size());
        Workspace host(contrastive_scratch_bytes(Cpu{}, s));
        contrastive_forward(Cpu{1}, s, x, c, want_value, want, host.span());
        // The gradient of a unit row is of size 1 / tau; so is its error, before |x| divides it.
        double smallest = 1e300;
        for (int64_t i = 0; i < B; ++i) {
          double square = 0;
          for (int64_t t = 0; t < F; ++t)
            square += double(x[size_t(i * F + t)]) * double(x[size_t(i * F + t)]);
          smallest = std::min(smallest, std::max(std::sqrt(square), 1e-12));
        }
        Bits bits;
        for (const Device& device : devices())
          device.run([&, B = B, F = F](const auto& be) {
            Guarded value(1), gradient(B * F), without(1);
            Workspace scratch(contrastive_scratch_bytes(be, s));
            contrastive_forward(be, s, x, c, value.span(), gradient.span(), scratch.span());
            contrastive_forward(be, s, x, c, without.span(), {}, scratch.span());
            REQUIRE((value.intact() && gradient.intact() && without.values() == value.values()));
            require_close(value.span(), {reference(x, B, F, c, tau)}, 64, 1 / tau);
            require_close(gradient.span(), {want.begin(), want.end()}, 32,
                          1 / (tau * smallest) * std::max(1.0, 0.1 / tau));
            bits.require(device, {value.values(), gradient.values()});
          });
      }
}

TEST_CASE("contrastive: no positives give 0, zero rows are finite", "[kernels][contrastive]") {
  const Shared<int32_t> distinct{1, 2, 3, 4, 5}, pairs{1, 1, 1, 2, 2};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values x = uniform(20, -1, 1), value(1), gradient(20, 5);
      Workspace scratch(contrastive_scratch_bytes(be, {5, 4, 0.1}));
      contrastive_forward(be, {5, 4, 0.1}, x, distinct, value, gradient, scratch.span());
      device.wait();
      REQUIRE((value[0] == 0 && gradient == Values(20, 0)));
      std::fill(x.begin(), x.begin() + 8, real(0));
      contrastive_forward(be, {5, 4, 0.1}, x, pairs, value, gradient, scratch.span());
      device.wait();
      for (real g : gradient) REQUIRE(std::isfinite(g));
    });
}

TEST_CASE("contrastive: sentiment classes round halves to even", "[kernels][contrastive]") {
  const std::vector<std::pair<double, int32_t>> cases{{-2.5, -2}, {-1.5, -2},  {-0.5, 0}, {0.5, 0},
                                                      {1.5, 2},   {2.5, 2},    {2.6, 3},  {9, 3},
                                                      {-9, -3},   {-0.51, -1}, {0, 0},    {1.4, 1}};
  for (const auto& [label, want] : cases) REQUIRE(sentiment_class(label) == want);
}

TEST_CASE("contrastive: arguments are checked", "[autograd][contrastive][errors]") {
  Values x(6);
  const Shared<int32_t> c{1, 2, 3}, wrong{1};
  for (const Device& device : devices()) {
    Tape tape(device);
    REQUIRE_THROWS_AS(contrastive(tape, tape.leaf({3, 2}, x), wrong, 0.1), std::invalid_argument);
    REQUIRE_THROWS_AS(contrastive(tape, tape.leaf({3, 2}, x), c, 0), std::invalid_argument);
    REQUIRE_THROWS_AS(contrastive(tape, tape.leaf({6}, x), c, 0.1), std::invalid_argument);
  }
}

#ifdef DECALIGN_F64
TEST_CASE("contrastive: gradient", "[autograd][contrastive]") {
  const auto c = classes(7, 4);
  for (const Device& device : devices())
    for (double tau : {0.1, 1.0})
      gradcheck(device, {{7, 5}}, {uniform(35, -1, 1)},
                [&](Tape& tape, const std::vector<Tensor>& x) {
                  return contrastive(tape, x[0], c, tau);
                });
}
#endif
