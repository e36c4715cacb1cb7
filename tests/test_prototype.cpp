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

TEST_CASE("prototype: matches the definition, every thread count gives the same bits",
          "[kernels][prototype]") {
  for (const Inputs& in : {Inputs(3, 32, 7, 40), Inputs(2, 1, 1, 1), Inputs(1, 3, 2, 2),
                           Inputs(5, 7, 3, 33), Inputs(3, 129, 7, 65)})
    for (const PrototypeOptions& o : all_options()) {
      const PrototypeShape s{in.M, in.B, in.K, in.d, o};
      Values bits;
      for (int threads : {1, 2, 5}) {
        const Cpu be{threads};
        Guarded value(1), dx(std::ssize(in.x), 0), dw(std::ssize(in.w), 0),
            dmu(std::ssize(in.mu), 0), dv(std::ssize(in.v), 0);
        Workspace scratch(prototype_scratch_bytes(be, s));
        prototype_forward(be, s, in.x, in.w, in.mu, in.v, value.span(), scratch.span());
        prototype_backward(be, s, in.x, in.w, in.mu, in.v, Values{1}, dx.span(), dw.span(),
                           dmu.span(), dv.span(), scratch.span());
        REQUIRE((value.intact() && dx.intact() && dw.intact() && dmu.intact() && dv.intact()));
        require_close(value.span(), {reference(in, o)}, 64);
        Values all = value.values();
        for (const Guarded* g : {&dx, &dw, &dmu, &dv})
          for (real e : g->values()) all.push_back(e);
        if (threads == 1) bits = all;
        REQUIRE((all == bits));
      }
    }
}

TEST_CASE("prototype: spans that do not fit throw", "[kernels][prototype][errors]") {
  const Inputs in(2, 3, 2, 4);
  Values value(1), wrong(3);
  Workspace scratch(1 << 12);
  const PrototypeShape s{2, 3, 2, 4, {}};
  REQUIRE_NOTHROW(prototype_forward(Cpu{}, s, in.x, in.w, in.mu, in.v, value, scratch.span()));
  REQUIRE_THROWS_AS(prototype_forward(Cpu{}, s, wrong, in.w, in.mu, in.v, value, scratch.span()),
                    std::invalid_argument);
  REQUIRE_THROWS_AS(prototype_forward(Cpu{}, s, in.x, in.w, in.mu, in.v, value, {}),
                    std::invalid_argument);
}

#ifdef DECALIGN_F64
TEST_CASE("prototype: gradient", "[autograd][prototype]") {
  const Inputs in(3, 4, 2, 3);
  for (const PrototypeOptions& o : all_options()) {
    std::vector<Values> start{in.x, in.w, in.mu, in.v};
    if (!o.mahalanobis) start[3].assign(start[3].size(), 1);
    gradcheck(devices()[1], {{3, 4, 3}, {3, 4, 2}, {3, 2, 3}, {3, 2, 3}}, start,
              [&](Tape& tape, const std::vector<Tensor>& t) {
                Mixture mix;
                mix.posteriors = t[1];
                mix.means = t[2];
                mix.variances = t[3];
                return prototype_calibration(tape, t[0], mix, o);
              });
  }
}
#endif
