#include "autograd/task_loss.h"

#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {

Tensor task_loss(Tape& tape, const Tensor& logits, In labels, In class_weights,
                 const TaskLossOptions& options) {
  expect(logits.shape.size() == 2, "task_loss: logits must be [B, C]");
  const TaskLossShape shape{logits.shape[0], logits.shape[1], options};
  const Tensor value = tape.make({1}, logits.requires_grad());
  const auto gradient = tape.take<real>(value.requires_grad() ? logits.size() : 0);
  tape.run([&](const auto& be) {
    task_loss_forward(be, shape, logits.value, labels, class_weights, value.value, gradient);
  });
  tape.record({value}, [&tape, logits, gradient, value](const auto& be) {
    scaled_add(be, tape.grad(value), gradient, tape.grad_sink(logits));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
