// What task_loss asks of its arguments, on every backend.
#pragma once

#include "kernels/task_loss.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_task_loss_forward(const TaskLossShape& shape, In logits, In labels,
                                    In class_weights, Out value, Out gradient) {
  const bool classification = shape.options.kind == TaskLoss::cross_entropy;
  expect(shape.batch >= 0 && shape.outputs >= 1, "task_loss: sizes out of range");
  expect(classification || shape.outputs == 1, "task_loss: regression has one output");
  expect(std::ssize(logits) == shape.batch * shape.outputs, "task_loss: logits must be [B, C]");
  expect(std::ssize(labels) == shape.batch, "task_loss: one label per sample");
  expect(class_weights.empty() || (classification && std::ssize(class_weights) == shape.outputs),
         "task_loss: one weight per class, cross_entropy only");
  expect(shape.options.smooth_l1_beta >= 0, "task_loss: smooth_l1_beta is negative");
  expect(value.size() == 1, "task_loss: value must have one element");
  expect(gradient.empty() || gradient.size() == logits.size(),
         "task_loss: gradient must have the size of logits");
}

}  // namespace decalign::inline DECALIGN_REAL
