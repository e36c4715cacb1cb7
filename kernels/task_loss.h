// The task's loss: regression with an optional sign term, or weighted cross-entropy.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

enum class TaskLoss { mse, mae, smooth_l1, cross_entropy };

struct TaskLossOptions {
  TaskLoss kind = TaskLoss::mae;
  double smooth_l1_beta = 1;      ///< >= 0; 0: mae
  double binary_task_weight = 0;  ///< > 0: the sign term below, regression only
};

struct TaskLossShape {
  int64_t batch = 0, outputs = 1;  ///< logits are [B, C]; C = 1 for regression
  TaskLossOptions options;
};

/// With e = logit - label:
///   mse            mean e^2
///   mae            mean |e|, its derivative at 0 is 0
///   smooth_l1      mean (|e| < beta ? e^2 / (2 beta) : |e| - beta / 2)
///   and binary_task_weight * mean over the labels != 0 of BCE-with-logits(logit, label > 0), 0 if
///   there is none
///   cross_entropy  sum_n w_t (logsumexp(logits_n) - logits_nt) / sum_n w_t, t = label n
///
///   logits [B, C];  labels [B], backend memory, for cross_entropy an integer in 0 .. C - 1;
///   class_weights [C] or empty: 1;  value [1];  gradient [B, C]: dvalue/dlogits, or empty: not
///   computed
///
/// B = 0: value 0. A summed target weight of 0 gives NaN, as in PyTorch. A label out of range: Cpu
/// throws std::invalid_argument, Cuda gives NaN. The way back is scaled_add(dvalue, gradient,
/// dlogits).
void task_loss_forward(const Cpu&, const TaskLossShape&, In logits, In labels, In class_weights,
                       Out value, Out gradient);
void task_loss_forward(const Cuda&, const TaskLossShape&, In logits, In labels, In class_weights,
                       Out value, Out gradient);

}  // namespace decalign::inline DECALIGN_REAL
