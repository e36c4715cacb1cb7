// The task's loss as an op.
#pragma once

#include "autograd/tape.h"
#include "kernels/task_loss.h"

namespace decalign::inline DECALIGN_REAL {

/// logits [B, 1] or [B, C] -> [1].  labels [B] and class_weights [C] or empty are read on the way
/// forward only. See kernels/task_loss.h.
Tensor task_loss(Tape&, const Tensor& logits, In labels, In class_weights, const TaskLossOptions&);

}  // namespace decalign::inline DECALIGN_REAL
