#include "autograd/contrastive.h"

#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {

Tensor contrastive(Tape& tape, const Tensor& features, std::span<const int32_t> classes,
                   double temperature) {
  expect(features.shape.size() == 2, "contrastive: features must be [B, F]");
  const ContrastiveShape shape{features.shape[0], features.shape[1], temperature};
  const Tensor value = tape.make({1}, features.requires_grad());
  const auto gradient = tape.take<real>(value.requires_grad() ? features.size() : 0);
  tape.run([&](const auto& be) {
    const auto scratch = tape.take<std::byte>(int64_t(contrastive_scratch_bytes(be, shape)));
    contrastive_forward(be, shape, features.value, classes, value.value, gradient, scratch);
  });
  tape.record({value}, [&tape, features, gradient, value](const auto& be) {
    scaled_add(be, tape.grad(value), gradient, tape.grad_sink(features));
  });
  return value;
}

}  // namespace decalign::inline DECALIGN_REAL
