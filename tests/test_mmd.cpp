// Maximum mean discrepancy.
#include <array>

#include "autograd/mmd.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

template <class Sample>
double reference(const Sample& z, int64_t M, int64_t B, int64_t p, double bandwidth) {
  const auto kernel_mean = [&](int64_t i, int64_t j) {
    double sum = 0;
    for (int64_t a = 0; a < B; ++a)
      for (int64_t b = 0; b < B; ++b) {
        double d2 = 0;
        for (int64_t t = 0; t < p; ++t)
          d2 += std::pow(
              double(z[size_t((i * B + a) * p + t)]) - double(z[size_t((j * B + b) * p + t)]), 2);
        sum += std::exp(-d2 / (2 * bandwidth)) / double(B * B);
      }
    return sum;
  };
  double total = 0, pairs = 0;
  for (int64_t i = 0; i < M; ++i)
    for (int64_t j = i + 1; j < M; ++j, pairs += 1)
      total += kernel_mean(i, i) + kernel_mean(j, j) - 2 * kernel_mean(i, j);
  return pairs > 0 && B > 0 ? total / pairs : 0;
}

}  // namespace

TEST_CASE("mmd: matches the definition, every thread count gives the same bits", "[kernels][mmd]") {
  for (const auto& [M, B, p] : std::vector<std::array<int64_t, 3>>{{3, 32, 40},
                                                                   {2, 1, 1},
                                                                   {1, 7, 3},
                                                                   {5, 7, 33},
                                                                   {3, 33, 2},
                                                                   {2, 5, 300},
                                                                   {3, 0, 4},
                                                                   {2, 3, 0}})
    for (double scale : {1.0, 1e-3, 1e3})
      for (double bandwidth : {1.0, 10.0}) {
        const MmdShape s{M, B, p, bandwidth};
        const Values z = uniform(M * B * p, -scale, scale),
                     rest = uniform(M * B * p, -1e-6, 1e-6, 3);
        Values want_value(1), want(z.size()), want_rest(z.size());
        Workspace host(mmd_scratch_bytes(Cpu{}, s));
        mmd_forward(Cpu{1}, s, z, rest, want_value, want, want_rest, host.span());
        std::vector<double> exact(z.size());
        for (size_t i = 0; i < z.size(); ++i) exact[i] = double(want[i]) + double(want_rest[i]);
        Bits bits;
        for (const Device& device : devices())
          device.run([&, M = M, B = B, p = p](const auto& be) {
            Guarded value(1), gradient(M * B * p), without(1), high(M * B * p), low(M * B * p);
            Workspace scratch(mmd_scratch_bytes(be, s));
            mmd_forward(be, s, z, {}, value.span(), gradient.span(), {}, scratch.span());
            mmd_forward(be, s, z, {}, without.span(), {}, {}, scratch.span());
            REQUIRE((value.intact() && gradient.intact() && value.values() == without.values()));
            require_close(value.span(), {reference(z, M, B, p, bandwidth)}, 32);
            mmd_forward(be, s, z, rest, without.span(), high.span(), low.span(), scratch.span());
            REQUIRE((without.intact() && high.intact() && low.intact()));
            // Both backends sum in double: only the order differs, and the pair keeps most of it.
            std::vector<double> both;
            const Values h = high.values(), l = low.values();
            for (size_t i = 0; i < h.size(); ++i) {
              both.push_back(double(h[i]) + double(l[i]));
              REQUIRE(std::abs(both[i] - exact[i]) <= 1e-13 * (1 + std::abs(exact[i])));
            }
            bits.require(device, {value.values(), gradient.values(), h, l});
          });
      }
}

TEST_CASE("mmd: the way back adds, and keeps what rounding takes", "[kernels][mmd]") {
  const Values gradient = uniform(301, -1, 1, 1), rest = uniform(301, -1e-8, 1e-8, 2);
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded dz(301, 1), drest(301, 0), alone(301, 1);
      mmd_backward(be, gradient, rest, Values{real(0.7)}, dz.span(), drest.span());
      mmd_backward(be, gradient, rest, Values{real(0.7)}, dz.span(), drest.span());
      mmd_backward(be, gradient, {}, Values{real(0.7)}, alone.span(), {});
      mmd_backward(be, gradient, rest, Values{real(0.7)}, {}, {});
      REQUIRE((dz.intact() && drest.intact() && alone.intact()));
      const Values high = dz.values(), low = drest.values(), one = alone.values();
      for (size_t i = 0; i < 301; ++i) {
        const double g = double(real(0.7)) * double(gradient[i]);
        const double twice = 1 + 2 * (g + double(real(0.7)) * double(rest[i]));
        REQUIRE(std::abs(double(high[i]) + double(low[i]) - twice) < 1e-14);
        REQUIRE(close(one[i], 1 + g, 1));
      }
      bits.require(device, {high, low, one});
    });
}

TEST_CASE("mmd: what rounding took from z counts", "[autograd][mmd]") {
  const int64_t M = 2, B = 16, p = 4;
  std::vector<double> exact;
  Values z, rest;
  for (real e : uniform(M * B * p, -1e-3, 2e-3)) {
    exact.push_back(7 + 0.5 * double(e) + 1e-9);
    z.push_back(real(exact.back()));
    rest.push_back(real(exact.back() - double(z.back())));
  }
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor y = mmd(tape, tape.leaf({M, B, p}, z), 1e-6, tape.leaf({M, B, p}, rest));
    REQUIRE(double(device.read(y.value, 0)) ==
            Approx(reference(exact, M, B, p, 1e-6)).epsilon(1e-6));
  }
}

TEST_CASE("mmd: equal batches have distance 0 and gradient 0", "[kernels][mmd]") {
  const int64_t B = 7, p = 3;
  Values z = uniform(B * p, -1, 1), all;
  for (int m = 0; m < 3; ++m) all.insert(all.end(), z.begin(), z.end());
  const MmdShape s{3, B, p, 1};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values value(1), gradient(all.size());
      Workspace scratch(mmd_scratch_bytes(be, s));
      mmd_forward(be, s, all, {}, value, gradient, {}, scratch.span());
      require_close(value, {0}, 8);
      require_close(gradient, std::vector<double>(all.size(), 0.0), 8);
    });
}

TEST_CASE("mmd: bandwidth and spans are checked", "[autograd][mmd][errors]") {
  Values z(12);
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor x = tape.leaf({2, 3, 2}, z);
    for (double bandwidth : {0.0, -1.0, double(NAN)})
      REQUIRE_THROWS_AS(mmd(tape, x, bandwidth), std::invalid_argument);
    REQUIRE_THROWS_AS(mmd(tape, tape.leaf({12}, z), 1), std::invalid_argument);
    Values value(2);
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(mmd_forward(be, {2, 3, 2, 1}, z, {}, value, {}, {}, {}),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(mmd_backward(be, z, {}, value, z, {}), std::invalid_argument);
    });
  }
}

#ifdef DECALIGN_F64
TEST_CASE("mmd: gradient", "[autograd][mmd]") {
  for (const Device& device : devices())
    for (double bandwidth : {1.0, 0.3})
      gradcheck(
          device, {{3, 5, 4}}, {uniform(60, -1, 1)},
          [&](Tape& tape, const std::vector<Tensor>& x) { return mmd(tape, x[0], bandwidth); });
}
#endif
