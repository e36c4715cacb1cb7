#include "kernels/check/task_loss.h"
#include "kernels/cuda/reduce.h"
#include "kernels/task_loss.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;  // one block: a batch is small

struct Term {
  double value, slope;
};

__device__ Term regression(const TaskLossOptions& o, double e) {
  const double a = fabs(e), sign = e > 0 ? 1 : e < 0 ? -1 : 0;
  if (o.kind == TaskLoss::mse) return {e * e, 2 * e};
  if (o.kind == TaskLoss::smooth_l1 && a < o.smooth_l1_beta)
    return {e * e / (2 * o.smooth_l1_beta), e / o.smooth_l1_beta};
  const double shift = o.kind == TaskLoss::smooth_l1 ? o.smooth_l1_beta / 2 : 0;
  return {a - shift, e != e ? e : sign};
}

// BCE-with-logits, stable for large |x|.
__device__ Term sign_term(double x, bool positive) {
  const double tail = exp(-fabs(x));
  const double sigmoid = x >= 0 ? 1 / (1 + tail) : tail / (1 + tail);
  return {fmax(x, 0.0) - (positive ? x : 0) + log1p(tail), sigmoid - (positive ? 1 : 0)};
}

__global__ void __launch_bounds__(kThreads)
    regression_kernel(int64_t batch, const __grid_constant__ TaskLossOptions o, const real* logits,
                      const real* labels, real* value, real* gradient) {
  const bool with_sign = o.binary_task_weight > 0;
  double signs = 0;
  if (with_sign) {
    for (int64_t i = threadIdx.x; i < batch; i += kThreads) signs += labels[i] != 0;
    signs = block_sum<kThreads>(signs);
  }
  const double weight = 1 / double(batch),
               sign_weight = signs > 0 ? o.binary_task_weight / signs : 0;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < batch; i += kThreads) {
    const double x = double(logits[i]), y = double(labels[i]);
    const Term r = regression(o, x - y);
    double slope = weight * r.slope;
    sum += weight * r.value;
    if (with_sign && y != 0) {
      const Term b = sign_term(x, y > 0);
      sum += sign_weight * b.value;
      slope += sign_weight * b.slope;
    }
    if (gradient) gradient[i] = real(slope);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) value[0] = real(sum);
}

// A thread per sample. A label that is no class has a weight of NaN, which reaches everything.
__global__ void __launch_bounds__(kThreads)
    cross_entropy_kernel(int64_t batch, int64_t classes, const real* logits, const real* labels,
                         const real* class_weights, real* value, real* gradient) {
  const auto target = [&](int64_t n) {
    const real y = labels[n];
    return y >= 0 && y < real(classes) && y == floor(y) ? int64_t(y) : int64_t(-1);
  };
  const auto weight = [&](int64_t t) {
    if (t < 0) return double(NAN);
    return class_weights ? double(class_weights[t]) : 1.0;
  };
  double total = 0, sum = 0;
  for (int64_t n = threadIdx.x; n < batch; n += kThreads) total += weight(target(n));
  total = block_sum<kThreads>(total);
  for (int64_t n = threadIdx.x; n < batch; n += kThreads) {
    const int64_t t = target(n);
    const double w = weight(t);
    const real* row = logits + n * classes;
    double top = double(row[0]), mass = 0;
    for (int64_t c = 1; c < classes; ++c) top = fmax(top, double(row[c]));
    for (int64_t c = 0; c < classes; ++c) mass += exp(double(row[c]) - top);
    sum += w * (top + log(mass) - double(row[t < 0 ? 0 : t]));
    for (int64_t c = 0; c < classes && gradient; ++c) {
      const double p = exp(double(row[c]) - top) / mass;
      gradient[n * classes + c] = real(w / total * (p - (c == t ? 1 : 0)));
    }
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) value[0] = real(batch > 0 ? sum / total : 0.0);
}

}  // namespace

void task_loss_forward(const Cuda& be, const TaskLossShape& s, In logits, In labels,
                       In class_weights, Out value, Out gradient) {
  check_task_loss_forward(s, logits, labels, class_weights, value, gradient);
  if (s.options.kind == TaskLoss::cross_entropy)
    launch(be, cross_entropy_kernel, 1, kThreads, 0, s.batch, s.outputs, logits.data(),
           labels.data(), pointer(class_weights), value.data(), pointer(gradient));
  else
    launch(be, regression_kernel, 1, kThreads, 0, s.batch, s.options, logits.data(), labels.data(),
           value.data(), pointer(gradient));
}

}  // namespace decalign::inline DECALIGN_REAL
