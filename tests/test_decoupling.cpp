// Cosine decoupling loss.
#include "autograd/decoupling.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

const std::vector<int64_t> kFirst{0, 3, 3, 8, 9, 12, 19};  // M = 3, B = 2, one empty sequence

double reference(const Rows& rows, int64_t d, In s, In c, std::span<const uint8_t> active,
                 DecouplingLoss loss) {
  double total = 0, count = 0;
  for (int64_t m = 0; m < rows.modalities; ++m) {
    if (!active.empty() && !active[size_t(m)]) continue;
    count += 1;
    for (int64_t b = 0; b < rows.batch; ++b) {
      double ss = 0, cc = 0, sc = 0;
      const int64_t q = m * rows.batch + b;
      for (int64_t i = rows.begin(q) * d; i < rows.begin(q + 1) * d; ++i) {
        ss += double(s[size_t(i)]) * double(s[size_t(i)]);
        cc += double(c[size_t(i)]) * double(c[size_t(i)]);
        sc += double(s[size_t(i)]) * double(c[size_t(i)]);
      }
      const double cosine = sc / (std::max(std::sqrt(ss), 1e-8) * std::max(std::sqrt(cc), 1e-8));
      total += (loss == DecouplingLoss::cos_sum ? cosine : cosine * cosine) / double(rows.batch);
    }
  }
  return loss == DecouplingLoss::cos_sum || count == 0 ? total : total / count;
}

}  // namespace

TEST_CASE("decoupling: matches the definition", "[autograd][decoupling]") {
  const Rows rows{3, 2, kFirst};
  const std::vector<uint8_t> some{1, 0, 1}, none{0, 0, 0};
  for (const Device& device : devices())
    for (int64_t d : {0, 1, 7, 33})
      for (double scale : {1.0, 1e-15, 1e12})
        for (auto loss : {DecouplingLoss::cos2_mean, DecouplingLoss::cos_sum})
          for (std::span<const uint8_t> active :
               {std::span<const uint8_t>(), std::span(some), std::span(none)}) {
            Values s = uniform(19 * d, -scale, scale, 1), c = uniform(19 * d, -1, 2, 2);
            Tape tape(device);
            const Tensor y =
                decoupling(tape, rows, tape.leaf({19, d}, s), tape.leaf({19, d}, c), active, loss);
            require_close(Values{device.read(y.value, 0)}, {reference(rows, d, s, c, active, loss)},
                          4);
          }
}

TEST_CASE("decoupling: outputs stay in bounds, every thread count gives the same bits",
          "[kernels][decoupling]") {
  std::vector<int64_t> first{0};
  for (int i = 0; i < 3 * 33; ++i) first.push_back(first.back() + i % 60);
  const Rows rows{3, 33, first};
  const int64_t d = 40, n = rows.total() * d;
  const Values s = uniform(n, -1, 1, 1), c = uniform(n, -1, 1, 2), g{real(0.7)};
  for (auto loss : {DecouplingLoss::cos2_mean, DecouplingLoss::cos_sum}) {
    const DecouplingShape shape{rows, d, {}, loss};
    Values want_s(size_t(n), 0), want_c(want_s), want_stats(4 * 99), want_value(1);
    decoupling_forward(Cpu{1}, shape, s, c, want_stats, want_value);
    decoupling_backward(Cpu{1}, shape, s, c, want_stats, g, want_s, want_c);
    Bits bits;
    for (const Device& device : devices())
      device.run([&](const auto& be) {
        Guarded stats(4 * 99), value(1), ds(n, 0), dc(n, 0);
        decoupling_forward(be, shape, s, c, stats.span(), value.span());
        decoupling_backward(be, shape, s, c, stats.span(), g, ds.span(), dc.span());
        REQUIRE((stats.intact() && value.intact() && ds.intact() && dc.intact()));
        require_close(value.span(), {double(want_value[0])}, 4);
        require_close(stats.span(), {want_stats.begin(), want_stats.end()}, 16, 0.1);
        require_close(ds.span(), {want_s.begin(), want_s.end()}, 16, 1e-2);
        require_close(dc.span(), {want_c.begin(), want_c.end()}, 16, 1e-2);
        bits.require(device, {value.values(), stats.values(), ds.values(), dc.values()});
        // Accumulates, and either output may be skipped.
        decoupling_backward(be, shape, s, c, stats.span(), g, ds.span(), {});
        decoupling_backward(be, shape, s, c, stats.span(), g, {}, dc.span());
        for (real& e : want_s) e *= 2;
        for (real& e : want_c) e *= 2;
        require_close(ds.span(), {want_s.begin(), want_s.end()}, 16, 1e-2);
        require_close(dc.span(), {want_c.begin(), want_c.end()}, 16, 1e-2);
        for (real& e : want_s) e /= 2;
        for (real& e : want_c) e /= 2;
      });
  }
}

TEST_CASE("decoupling: spans that do not fit throw", "[kernels][decoupling][errors]") {
  const DecouplingShape shape{{3, 2, kFirst}, 2, {}, DecouplingLoss::cos2_mean};
  Values s(38), c(38), stats(24), value(1), wrong(3);
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      REQUIRE_THROWS_AS(decoupling_forward(be, shape, wrong, c, stats, value),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(decoupling_forward(be, shape, s, c, wrong, value), std::invalid_argument);
      REQUIRE_THROWS_AS(decoupling_backward(be, shape, s, c, stats, value, wrong, c),
                        std::invalid_argument);
    });
}

#ifdef DECALIGN_F64
TEST_CASE("decoupling: gradient", "[autograd][decoupling]") {
  const Rows rows{3, 2, kFirst};
  const std::vector<uint8_t> some{1, 0, 1};
  for (const Device& device : devices())
    for (auto loss : {DecouplingLoss::cos2_mean, DecouplingLoss::cos_sum})
      for (std::span<const uint8_t> active : {std::span<const uint8_t>(), std::span(some)})
        gradcheck(device, {{19, 3}, {19, 3}}, {uniform(57, -1, 1, 1), uniform(57, -1, 1, 2)},
                  [&](Tape& tape, const std::vector<Tensor>& x) {
                    return decoupling(tape, rows, x[0], x[1], active, loss);
                  });
}
#endif
