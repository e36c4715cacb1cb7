// Matching of mean, covariance and skewness.
#include <array>

#include "autograd/moments.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

using Doubles = std::vector<double>;

template <class Sample>
double reference(const Sample& z, int64_t M, int64_t B, int64_t p, Reduction reduction) {
  std::vector<std::array<Doubles, 3>> s;
  for (int64_t m = 0; m < M; ++m) {
    const auto Z = [&](int64_t n, int64_t j) { return double(z[size_t((m * B + n) * p + j)]); };
    Doubles mean(size_t(p), 0.0), cov(size_t(p * p), 0.0), skew(size_t(p), 0.0);
    for (int64_t j = 0; j < p; ++j)
      for (int64_t n = 0; n < B; ++n) mean[size_t(j)] += Z(n, j) / double(B);
    for (int64_t j = 0; j < p; ++j) {
      double m2 = 0, m3 = 0;
      for (int64_t n = 0; n < B; ++n) {
        const double e = Z(n, j) - mean[size_t(j)];
        m2 += e * e / double(B);
        m3 += e * e * e / double(B);
        for (int64_t l = 0; l < p; ++l)
          cov[size_t(j * p + l)] +=
              e * (Z(n, l) - mean[size_t(l)]) / double(std::max<int64_t>(B - 1, 1));
      }
      skew[size_t(j)] = m3 / std::pow(std::max(m2, 1e-6), 1.5);
    }
    s.push_back({mean, cov, skew});
  }
  double total = 0, pairs = 0;
  for (int64_t i = 0; i < M; ++i)
    for (int64_t j = i + 1; j < M; ++j, pairs += 1)
      for (size_t part = 0; part < 3; ++part) {
        double sum = 0;
        for (size_t t = 0; t < s[size_t(i)][part].size(); ++t)
          sum += std::pow(s[size_t(i)][part][t] - s[size_t(j)][part][t], 2);
        total += reduction == Reduction::sum ? sum / 2 : sum / double(s[size_t(i)][part].size());
      }
  return pairs > 0 ? total / pairs : 0;
}

}  // namespace

TEST_CASE("moments: matches the definition", "[kernels][moments]") {
  for (Reduction reduction : {Reduction::sum, Reduction::mean})
    for (const auto& [M, B, p] : std::vector<std::array<int64_t, 3>>{
             {3, 32, 40}, {2, 1, 1}, {1, 7, 3}, {5, 7, 33}, {3, 2, 7}, {2, 129, 5}})
      for (double scale : {1.0, 1e-4, 1e2}) {
        const Values z = uniform(M * B * p, -scale, 2 * scale);
        const MomentsShape s{M, B, p, reduction};
        const Values rest = uniform(M * B * p, -1e-8 * scale, 1e-8 * scale, 2);
        // What the host's backend makes of it, in double's precision where the gradient is a pair.
        Values mean0(size_t(M * p)), cov0(size_t(M * p * p)), skew0(mean0), value0(1),
            dz0(z.size()), drest0(z.size());
        Workspace host(moments_scratch_bytes(Cpu{}, s));
        moments_forward(Cpu{1}, s, z, rest, mean0, cov0, skew0, value0, host.span());
        moments_backward(Cpu{1}, s, z, rest, mean0, cov0, skew0, Values{real(0.7)}, dz0, drest0,
                         host.span());
        double largest = 0;
        for (real e : dz0) largest = std::max(largest, double(std::abs(e)));
        Bits bits;
        for (const Device& device : devices())
          device.run([&, M = M, B = B, p = p](const auto& be) {
            Guarded mean(M * p), cov(M * p * p), skew(M * p), value(1), dz(M * B * p, 0),
                drest(M * B * p, 0);
            Workspace scratch(moments_scratch_bytes(be, s));
            moments_forward(be, s, z, {}, mean.span(), cov.span(), skew.span(), value.span(),
                            scratch.span());
            require_close(value.span(), {reference(z, M, B, p, reduction)}, 256, scale);
            moments_forward(be, s, z, rest, mean.span(), cov.span(), skew.span(), value.span(),
                            scratch.span());
            moments_backward(be, s, z, rest, mean.span(), cov.span(), skew.span(),
                             Values{real(0.7)}, dz.span(), drest.span(), scratch.span());
            REQUIRE((mean.intact() && cov.intact() && skew.intact() && value.intact() &&
                     dz.intact() && drest.intact()));
            require_close(mean.span(), {mean0.begin(), mean0.end()}, 2, scale);
            require_close(cov.span(), {cov0.begin(), cov0.end()}, 4, scale * scale);
            require_close(skew.span(), {skew0.begin(), skew0.end()}, 16);
            require_close(value.span(), {double(value0[0])}, 16, scale);
            const Values high = dz.values(), low = drest.values();
            // The covariance's pull is summed in the host's reals, here in double.
            const double limit = 64 * double(std::numeric_limits<real>::epsilon()) * largest;
            for (size_t i = 0; i < high.size(); ++i)
              REQUIRE(std::abs(double(high[i]) + double(low[i]) - double(dz0[i]) -
                               double(drest0[i])) <= limit);
            bits.require(device,
                         {mean.values(), cov.values(), skew.values(), value.values(), high, low});
            // Accumulates; without the rest too.
            moments_backward(be, s, z, rest, mean.span(), cov.span(), skew.span(),
                             Values{real(-0.7)}, dz.span(), drest.span(), scratch.span());
            require_close(dz.span(), std::vector<double>(dz0.size(), 0.0), 4, largest);
            moments_backward(be, s, z, rest, mean.span(), cov.span(), skew.span(),
                             Values{real(0.7)}, dz.span(), {}, scratch.span());
            require_close(dz.span(), {dz0.begin(), dz0.end()}, 64, largest);
          });
      }
}

TEST_CASE("moments: a common offset of 1e3 leaves covariance and skewness", "[kernels][moments]") {
  const int64_t B = 33, p = 5;
  Values z = uniform(2 * B * p, 0, 1), far = z;
  for (real& e : z) e = std::round(e * 128) / 128;
  for (size_t i = 0; i < z.size(); ++i) far[i] = z[i] + 1024;  // exact
  const MomentsShape s{2, B, p, Reduction::mean};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values mean(2 * p), cov(2 * p * p), skew(2 * p), cov2(cov), skew2(skew), value(1);
      Workspace scratch(moments_scratch_bytes(be, s));
      moments_forward(be, s, z, {}, mean, cov, skew, value, scratch.span());
      moments_forward(be, s, far, {}, mean, cov2, skew2, value, scratch.span());
      device.wait();
      require_close(cov2, Doubles(cov.begin(), cov.end()), 2e3);
      require_close(skew2, Doubles(skew.begin(), skew.end()), 1e4);
    });
}

TEST_CASE("moments: what rounding took from z counts", "[autograd][moments]") {
  const int64_t M = 2, B = 16, p = 4;
  Doubles exact;
  Values z, rest, dz(size_t(M * B * p), 0);
  for (real e : uniform(M * B * p, -1e-3, 2e-3)) {
    exact.push_back(7 + 0.5 * double(e) + 1e-9);
    z.push_back(real(exact.back()));
    rest.push_back(real(exact.back() - double(z.back())));
  }
  const double want = reference(exact, M, B, p, Reduction::mean);
  for (const Device& device : devices()) {
    Tape tape(device);
    const Tensor y = moment_matching(tape, tape.leaf({M, B, p}, z, dz), Reduction::mean,
                                     tape.leaf({M, B, p}, rest));
    REQUIRE(double(device.read(y.value, 0)) == Approx(want).epsilon(1e-6));
    tape.backward(y);
    device.wait();
    for (real g : dz) REQUIRE(std::isfinite(g));
  }
}

TEST_CASE("moments: no batch and zeros are 0, wrong spans throw", "[autograd][moments][errors]") {
  for (const Device& device : devices()) {
    for (int64_t B : {0, 1, 5}) {
      Values z(size_t(3 * B * 2), 0), dz(z);
      Tape tape(device);
      const Tensor y = moment_matching(tape, tape.leaf({3, B, 2}, z, dz), Reduction::mean);
      REQUIRE(device.read(y.value, 0) == 0);
      if (B == 0) continue;
      tape.backward(y);
      device.wait();
      for (real g : dz) REQUIRE(g == 0);
    }
    Values z(6), cov(7), m(2), value(1);
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(moments_forward(be, {2, 3, 1, Reduction::sum}, z, {}, m, cov, m, value, {}),
                        std::invalid_argument);
    });
  }
}

#ifdef DECALIGN_F64
TEST_CASE("moments: gradient, clamped variances included", "[autograd][moments]") {
  for (const Device& device : devices())
    for (Reduction reduction : {Reduction::sum, Reduction::mean})
      for (double scale : {1.0, 2e-4})
        for (int64_t B : {1, 2, 6}) {
          Values z = uniform(3 * B * 3, -scale, scale);
          for (int64_t m = 0; m < 3; ++m)
            for (int64_t i = 0; i < B * 3; ++i) z[size_t(m * B * 3 + i)] += real(m);
          gradcheck(
              device, {{3, B, 3}}, {z},
              [&](Tape& tape, const std::vector<Tensor>& x) {
                return moment_matching(tape, x[0], reduction);
              },
              1e-8, scale < 1 ? 1e-4 : 1e-3);
        }
}
#endif
