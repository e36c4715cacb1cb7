// Task losses.
#include "autograd/task_loss.h"
#include "tests/support.h"

using namespace decalign;
using namespace decalign::test;

namespace {

double reference(const Values& x, const Values& y, const Values& w, int64_t C,
                 const TaskLossOptions& o) {
  double sum = 0, weight = 0, bce = 0, signs = 0;
  const size_t B = y.size();
  for (size_t n = 0; n < B; ++n) {
    if (o.kind == TaskLoss::cross_entropy) {
      double top = -1e300, mass = 0;
      for (int64_t c = 0; c < C; ++c) top = std::max(top, double(x[n * size_t(C) + size_t(c)]));
      for (int64_t c = 0; c < C; ++c) mass += std::exp(double(x[n * size_t(C) + size_t(c)]) - top);
      const size_t t = size_t(y[n]);
      const double wt = w.empty() ? 1 : double(w[t]);
      sum += wt * (top + std::log(mass) - double(x[n * size_t(C) + t]));
      weight += wt;
      continue;
    }
    const double e = std::abs(double(x[n]) - double(y[n])), beta = o.smooth_l1_beta;
    sum += o.kind == TaskLoss::mse   ? e * e
           : o.kind == TaskLoss::mae ? e
           : e < beta                ? e * e / beta / 2
                                     : e - beta / 2;
    weight += 1;
    if (y[n] == 0) continue;
    signs += 1;
    const double a = y[n] > 0 ? -double(x[n]) : double(x[n]);
    bce += a > 0 ? a + std::log1p(std::exp(-a)) : std::log1p(std::exp(a));
  }
  return B == 0 ? 0 : sum / weight + (signs > 0 ? o.binary_task_weight * bce / signs : 0);
}

// Against the definition, and the devices' gradients against the CPU's.
void compare(const TaskLossShape& shape, const Values& x, const Values& y, const Values& w) {
  const int64_t C = shape.outputs;
  Guarded host_value(1), host(shape.batch * C);
  wait();
  task_loss_forward(Cpu{}, shape, x, y, w, host_value.span(), host.span());
  const Values want = host.values();
  // A double result is summed in the device's order, the definition in its own.
  const double ulps = sizeof(real) == 4 ? 4 : 4 + double(shape.batch) / 16;
  Bits bits;
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Guarded value(1), gradient(shape.batch * C), alone(1);
      task_loss_forward(be, shape, x, y, w, value.span(), gradient.span());
      task_loss_forward(be, shape, x, y, w, alone.span(), {});
      require_close(value.span(), {reference(x, y, w, C, shape.options)}, ulps);
      REQUIRE((value.intact() && gradient.intact() && alone.intact()));
      REQUIRE(value.values() == alone.values());
      for (real g : gradient.values()) REQUIRE(std::isfinite(g));
      require_close(gradient.span(), std::vector<double>(want.begin(), want.end()), 2);
      bits.require(device, {value.values(), gradient.values()});
    });
}

}  // namespace

TEST_CASE("task_loss: matches the definitions", "[kernels][task_loss]") {
  for (int64_t B : {0, 1, 7, 33, 300})
    for (double scale : {1.0, 1e-4, 500.0}) {
      Values y = uniform(B, -3, 3, 2);
      for (size_t i = 0; i < y.size(); i += 3) y[i] = 0;
      for (TaskLoss kind : {TaskLoss::mse, TaskLoss::mae, TaskLoss::smooth_l1})
        for (double beta : {1.0, 0.0, 0.3})
          for (double binary : {0.0, 0.5}) {
            const TaskLossOptions o{kind, beta, binary};
            const Values x = uniform(B, -scale, scale);
            compare({B, 1, o}, x, y, {});
          }
      for (int64_t C : {1, 2, 7})
        for (bool weighted : {false, true}) {
          const TaskLossOptions o{TaskLoss::cross_entropy, 1, 0};
          const Values x = uniform(B * C, -scale, scale),
                       w = weighted ? uniform(C, 0.1, 2, 5) : Values{};
          Values t(static_cast<size_t>(B));
          for (size_t i = 0; i < t.size(); ++i) t[i] = real(i % size_t(C));
          compare({B, C, o}, x, t, w);
        }
    }
}

TEST_CASE("task_loss: kinks and extremes", "[kernels][task_loss]") {
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      Values x{2, 1, 900, -900}, value(1), gradient(4);
      const Values y{2, 2, 0, 0}, signs{-1, -1, -1, 1}, none(4);
      task_loss_forward(be, {4, 1, {TaskLoss::mae, 1, 0}}, x, y, {}, value, gradient);
      device.wait();
      REQUIRE(gradient == Values{0, real(-0.25), real(0.25), real(-0.25)});
      task_loss_forward(be, {4, 1, {TaskLoss::mae, 1, 1}}, x, signs, {}, value, gradient);
      device.wait();
      REQUIRE(std::isfinite(value[0]));
      // No sign at all: the regression loss alone.
      task_loss_forward(be, {4, 1, {TaskLoss::mae, 1, 1}}, x, none, {}, value, gradient);
      device.wait();
      REQUIRE(close(value[0], 1803.0 / 4, 4));
      x[1] = NAN;
      task_loss_forward(be, {4, 1, {TaskLoss::mae, 1, 1}}, x, signs, {}, value, gradient);
      device.wait();
      REQUIRE((std::isnan(value[0]) && std::isnan(gradient[1]) && std::isfinite(gradient[0])));
    });
}

TEST_CASE("task_loss: arguments are checked", "[kernels][task_loss][errors]") {
  const TaskLossShape ce{2, 2, {TaskLoss::cross_entropy, 1, 0}};
  for (const Device& device : devices())
    device.run([&](const auto& be) {
      const Values x(4), y{0, 1}, w(2, 1), bad{0, 2}, half{0, real(0.5)}, below{-1, 0};
      Values value(1), gradient(4);
      REQUIRE_NOTHROW(task_loss_forward(be, ce, x, y, w, value, {}));
      // Whether a label is a class: the host does not look at a GPU's memory.
      for (const Values* labels : {&bad, &half, &below})
        if (device.on_host()) {
          REQUIRE_THROWS_AS(task_loss_forward(be, ce, x, *labels, {}, value, gradient),
                            std::invalid_argument);
        } else {
          task_loss_forward(be, ce, x, *labels, {}, value, gradient);
          device.wait();
          REQUIRE((std::isnan(value[0]) && std::isnan(gradient[0]) && std::isnan(gradient[3])));
        }
      REQUIRE_THROWS_AS(task_loss_forward(be, ce, x, y, value, value, gradient),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(task_loss_forward(be, {2, 2, {}}, x, y, {}, value, gradient),
                        std::invalid_argument);
      REQUIRE_THROWS_AS(task_loss_forward(be, {4, 1, {}}, x, y, {}, value, gradient),
                        std::invalid_argument);
      device.wait();
    });
}

#ifdef DECALIGN_F64
TEST_CASE("task_loss: gradient", "[autograd][task_loss]") {
  const Values y{1, -2, 0, 3, real(0.5)}, t{0, 2, 1, 1, 2}, w{1, real(0.5), 2};
  for (const Device& device : devices()) {
    for (TaskLoss kind : {TaskLoss::mse, TaskLoss::mae, TaskLoss::smooth_l1})
      for (double binary : {0.0, 0.7})
        gradcheck(device, {{5, 1}}, {{real(0.2), -1, 2, real(2.5), -3}},
                  [&](Tape& tape, const std::vector<Tensor>& x) {
                    return task_loss(tape, x[0], y, {}, {kind, 0.7, binary});
                  });
    gradcheck(device, {{5, 3}}, {uniform(15, -2, 2)},
              [&](Tape& tape, const std::vector<Tensor>& x) {
                return task_loss(tape, x[0], t, w, {TaskLoss::cross_entropy, 1, 0});
              });
  }
}
#endif
