#include "kernels/task_loss.h"

#include <algorithm>
#include <cmath>

#include "kernels/check/task_loss.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

struct Term {
  double value, slope;
};

Term regression(const TaskLossOptions& o, double e) {
  const double a = std::abs(e), sign = e > 0 ? 1 : e < 0 ? -1 : 0;
  if (o.kind == TaskLoss::mse) return {e * e, 2 * e};
  if (o.kind == TaskLoss::smooth_l1 && a < o.smooth_l1_beta)
    return {e * e / (2 * o.smooth_l1_beta), e / o.smooth_l1_beta};
  const double shift = o.kind == TaskLoss::smooth_l1 ? o.smooth_l1_beta / 2 : 0;
  return {a - shift, std::isnan(e) ? e : sign};
}

// BCE-with-logits, stable for large |x|.
Term sign_term(double x, bool positive) {
  const double tail = std::exp(-std::abs(x));
  const double sigmoid = x >= 0 ? 1 / (1 + tail) : tail / (1 + tail);
  return {std::max(x, 0.0) - (positive ? x : 0) + std::log1p(tail), sigmoid - (positive ? 1 : 0)};
}

void regression_loss(const TaskLossShape& shape, In logits, In labels, Out value, Out gradient) {
  const TaskLossOptions& o = shape.options;
  const size_t n = size_t(shape.batch);
  size_t signs = 0;
  if (o.binary_task_weight > 0)
    for (size_t i = 0; i < n; ++i) signs += labels[i] != 0;
  const double weight = 1 / double(n),
               sign_weight = signs > 0 ? o.binary_task_weight / double(signs) : 0;
  double sum = 0, sign_sum = 0;
  for (size_t i = 0; i < n; ++i) {
    const double x = double(logits[i]), y = double(labels[i]);
    const Term r = regression(o, x - y);
    sum += r.value;
    double slope = weight * r.slope;
    if (signs > 0 && y != 0) {
      const Term b = sign_term(x, y > 0);
      sign_sum += b.value;
      slope += sign_weight * b.slope;
    }
    if (!gradient.empty()) gradient[i] = real(slope);
  }
  value[0] = real(sum * weight + sign_sum * sign_weight);
}

void cross_entropy(const TaskLossShape& shape, In logits, In labels, In class_weights, Out value,
                   Out gradient) {
  const size_t classes = size_t(shape.outputs);
  const auto target = [&](size_t n) { return size_t(labels[n]); };
  const auto weight = [&](size_t n) {
    return class_weights.empty() ? 1.0 : double(class_weights[target(n)]);
  };
  double total = 0, sum = 0;
  for (size_t n = 0; n < size_t(shape.batch); ++n) total += weight(n);
  for (size_t n = 0; n < size_t(shape.batch); ++n) {
    const In row = logits.subspan(n * classes, classes);
    const double top = double(*std::max_element(row.begin(), row.end()));
    double mass = 0;
    for (real x : row) mass += std::exp(double(x) - top);
    sum += weight(n) * (top + std::log(mass) - double(row[target(n)]));
    if (gradient.empty()) continue;
    for (size_t c = 0; c < classes; ++c) {
      const double p = std::exp(double(row[c]) - top) / mass;
      gradient[n * classes + c] = real(weight(n) / total * (p - (c == target(n) ? 1 : 0)));
    }
  }
  value[0] = real(sum / total);
}

}  // namespace

void task_loss_forward(const Cpu&, const TaskLossShape& shape, In logits, In labels,
                       In class_weights, Out value, Out gradient) {
  const bool classification = shape.options.kind == TaskLoss::cross_entropy;
  check_task_loss_forward(shape, logits, labels, class_weights, value, gradient);
  if (classification)
    for (real y : labels)
      expect(y >= 0 && y < real(shape.outputs) && y == std::floor(y),
             "task_loss: a label is no class index");
  value[0] = 0;
  if (shape.batch == 0) return;
  if (classification)
    cross_entropy(shape, logits, labels, class_weights, value, gradient);
  else
    regression_loss(shape, logits, labels, value, gradient);
}

}  // namespace decalign::inline DECALIGN_REAL
