// Prototype calibration.
#include "autograd/prototype.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

struct Inputs {
  int64_t M, B, K, d;
  Values x, w, mu, v;
  Inputs(int64_t m, int64_t b, int64_t k, int64_t width)
      : M(m),
        B(b),
        K(k),
        d(width),
        x(uniform(m * b * d, -1, 1, 1)),
        w(uniform(m * b * k, 0, 1, 2)),
        mu(uniform(m * k * d, -1, 1, 3)),
        v(uniform(m * k * d, 0.01, 1, 4)) {}
};

double reference(const Inputs& in, const PrototypeOptions& o) {
  double total = 0;
  for (int64_t i = 0; i < in.M; ++i)
    for (int64_t j = 0; j < in.M; ++j)
      for (int64_t n = 0; n < in.B && i != j; ++n)
        for (int64_t k = 0; k < in.K; ++k) {
          double cost = 0;
          for (int64_t t = 0; t < in.d; ++t) {
            const size_t p = size_t((j * in.K + k) * in.d + t);
            const double e = double(in.x[size_t((i * in.B + n) * in.d + t)]) - double(in.mu[p]);
            cost += e * e / (o.mahalanobis ? std::max(double(in.v[p]), o.variance_floor) : 1.0);
          }
          if (o.feature == Reduction::mean) cost /= double(in.d);
          total += double(in.w[size_t((i * in.B + n) * in.K + k)]) * cost / double(in.B);
        }
  return o.pairs == Reduction::mean && in.M > 1 ? total / double(in.M * (in.M - 1)) : total;
}

std::vector<PrototypeOptions> all_options() {
  std::vector<PrototypeOptions> all;
  for (Reduction feature : {Reduction::sum, Reduction::mean})
    for (Reduction pairs : {Reduction::sum, Reduction::mean})
      for (bool mahalanobis : {false, true}) all.push_back({feature, pairs, mahalanobis, 0.05});
  return all;
}

}  // namespace

TEST_CASE("prototype: matches the definition, every run and thread count gives the same bits",
          "[kernels][prototype]") {
  for (const Inputs& in : {Inputs(3, 32, 7, 40), Inputs(2, 1, 1, 1), Inputs(1, 3, 2, 2),
                           Inputs(5, 7, 3, 33), Inputs(3, 129, 7, 65)})
    for (const PrototypeOptions& o : all_options()) {
      const PrototypeShape s{in.M, in.B, in.K, in.d, o};
      const double want = reference(in, o);
      Bits bits;
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Guarded value(1), dx(std::ssize(in.x), 0), dw(std::ssize(in.w), 0),
              dmu(std::ssize(in.mu), 0), dv(std::ssize(in.v), 0);
          Workspace scratch(prototype_scratch_bytes(be, s));
          prototype_forward(be, s, in.x, in.w, in.mu, in.v, value.span(), scratch.span());
          prototype_backward(be, s, in.x, in.w, in.mu, in.v, Values{1}, dx.span(), dw.span(),
                             dmu.span(), dv.span(), scratch.span());
          device.wait();
          REQUIRE((value.intact() && dx.intact() && dw.intact() && dmu.intact() && dv.intact()));
          require_close(value.span(), {want}, 64);
          bits.require(device,
                       {value.values(), dx.values(), dw.values(), dmu.values(), dv.values()});
        });
    }
}

TEST_CASE("prototype: gradients follow their formulas and are added, empty ones are skipped",
          "[kernels][prototype]") {
  for (const Inputs& in : {Inputs(3, 32, 7, 40), Inputs(2, 9, 1, 1), Inputs(4, 7, 3, 65),
                           Inputs(1, 3, 2, 2), Inputs(2, 0, 2, 2), Inputs(2, 3, 2, 0)})
    for (bool mahalanobis : {false, true}) {
      const PrototypeShape s{
          in.M, in.B, in.K, in.d, {Reduction::sum, Reduction::mean, mahalanobis, 0.05}};
      const double g = in.M > 1 ? 3 / double(in.M * (in.M - 1) * in.B) : 0;
      std::vector<double> dx(in.x.size(), 0.5), dw(in.w.size(), 0.5), dmu(in.mu.size(), 0.5),
          dv(in.v.size(), 0.5);
      for (int64_t n = 0; n < in.M * in.B; ++n)
        for (int64_t k = 0; k < in.M * in.K; ++k) {
          if (n / in.B == k / in.K) continue;
          const size_t at = size_t(n * in.K + k % in.K);
          for (int64_t t = 0; t < in.d; ++t) {
            const size_t q = size_t(n * in.d + t), p = size_t(k * in.d + t);
            const double e = double(in.x[q]) - double(in.mu[p]), w = g * double(in.w[at]);
            const double v = mahalanobis ? std::max(double(in.v[p]), 0.05) : 1;
            dx[q] += 2 * w * e / v;
            dmu[p] -= 2 * w * e / v;
            dw[at] += g * e * e / v;
            if (mahalanobis && double(in.v[p]) >= 0.05) dv[p] -= w * e * e / v / v;
          }
        }
      for (const Device& device : devices())
        device.run([&](const auto& be) {
          Guarded gx(std::ssize(in.x), 0.5), gw(std::ssize(in.w), 0.5), gmu(std::ssize(in.mu), 0.5),
              gv(std::ssize(in.v), 0.5), value(1);
          Workspace scratch(prototype_scratch_bytes(be, s));
          const Values three{3};
          const auto backward = [&](InOut a, InOut b, InOut c, InOut d) {
            prototype_backward(be, s, in.x, in.w, in.mu, in.v, three, a, b, c, d, scratch.span());
            device.wait();
          };
          backward(gx.span(), {}, {}, gv.span());
          backward({}, gw.span(), {}, {});
          backward({}, {}, gmu.span(), {});
          REQUIRE((gx.intact() && gw.intact() && gmu.intact() && gv.intact()));
          require_close(gx.span(), dx, 64);
          require_close(gw.span(), dw, 64);
          require_close(gmu.span(), dmu, 64);
          require_close(gv.span(), dv, 64);
          prototype_forward(be, s, in.x, in.w, in.mu, in.v, value.span(), scratch.span());
          if (g == 0 || in.B == 0 || in.d == 0) REQUIRE(value.values()[0] == 0);
        });
    }
}

TEST_CASE("prototype: spans that do not fit throw", "[kernels][prototype][errors]") {
  const Inputs in(2, 3, 2, 4);
  Values value(1), wrong(3);
  Workspace scratch(1 << 12);
  const PrototypeShape s{2, 3, 2, 4, {}};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const auto forward = [&](In x, Scratch room) {
        prototype_forward(be, s, x, in.w, in.mu, in.v, value, room);
      };
      REQUIRE_NOTHROW(forward(in.x, scratch.span()));
      REQUIRE_THROWS_AS(forward(wrong, scratch.span()), std::invalid_argument);
      REQUIRE_THROWS_AS(forward(in.x, {}), std::invalid_argument);
      REQUIRE_THROWS_AS(prototype_backward(be, s, in.x, in.w, in.mu, in.v, value, wrong, {}, {}, {},
                                           scratch.span()),
                        std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("prototype: gradient", "[autograd][prototype]") {
  const Inputs in(3, 4, 2, 3);
  for (const PrototypeOptions& o : all_options()) {
    std::vector<Values> start{in.x, in.w, in.mu, in.v};
    if (!o.mahalanobis) start[3].assign(start[3].size(), 1);
    for (const Device& device : devices())
      gradcheck(device, {{3, 4, 3}, {3, 4, 2}, {3, 2, 3}, {3, 2, 3}}, start,
                [&](Tape& tape, const std::vector<Tensor>& t) {
                  Mixture mix;
                  mix.posteriors = t[1];
                  mix.means = t[2];
                  mix.covariances = t[3];
                  return prototype_calibration(tape, t[0], mix, o);
                });
  }
}
#endif
