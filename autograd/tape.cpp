#include "autograd/tape.h"

#include <algorithm>

#include "kernels/fill.h"
#include "kernels/scaled_add.h"

namespace decalign::inline DECALIGN_REAL {

Tensor Tape::make(Shape shape, bool requires_grad) {
  const int64_t n = element_count(shape);
  Tensor t{std::move(shape), values_.take<real>(n), -1};
  if (requires_grad && recording_) {
    t.node = int(nodes_.size());
    nodes_.push_back({n, {}, false});
  }
  return t;
}

Tensor Tape::leaf(Shape shape, Out value, InOut grad) {
  expect(element_count(shape) == std::ssize(value), "Tape::leaf: shape and value disagree");
  expect(grad.empty() || grad.size() == value.size(),
         "Tape::leaf: value and gradient differ in size");
  Tensor t{std::move(shape), value, -1};
  if (!grad.empty() && recording_) {
    t.node = int(nodes_.size());
    nodes_.push_back({std::ssize(value), grad, true});
  }
  return t;
}

Tensor Tape::constant(Shape shape, In value) {
  Tensor t = make(std::move(shape), false);
  expect(value.size() == t.value.size(), "Tape::constant: shape and value disagree");
  device_.upload(value.data(), t.value.data(), value.size_bytes());
  return t;
}

InOut Tape::grad_sink(const Tensor& t) {
  if (!t.requires_grad()) return {};
  Node& node = nodes_[size_t(t.node)];
  if (node.grad.empty() && node.size > 0 && !device_.on_host()) {
    node.grad = grads_.take<real>(node.size);
    const bool zero = node.grad.data() >= zeros_.data() &&
                      node.grad.data() + node.size <= zeros_.data() + zeros_.size();
    if (!zero) device_.run([&](const auto& be) { fill(be, 0, node.grad); });
  } else if (node.grad.empty() && node.size > 0) {
    // The smallest released gradient that fits without wasting more than half of it.
    const auto found = free_grads_.lower_bound(node.size);
    if (found != free_grads_.end() && found->first <= 2 * node.size) {
      node.grad = {found->second, size_t(node.size)};
      free_grads_.erase(found);
    } else {
      node.grad = grads_.take<real>(node.size);
    }
    device_.run([&](const auto& be) { fill(be, 0, node.grad); });
  }
  return node.grad;
}

// On a GPU one fill of all gradients' memory, not one for each: launches are dear there and memory
// is not, so none is used twice in a step.
void Tape::zero_gradients() {
  if (device_.on_host()) return;
  const auto rest = grads_.rest();
  zeros_ = {reinterpret_cast<real*>(rest.data()), rest.size() / sizeof(real)};
  device_.run([&](const auto& be) { fill(be, 0, zeros_); });
}

void Tape::backward(const Tensor& loss, real scale) {
  expect(loss.size() == 1 && loss.requires_grad(),
         "Tape::backward: the loss must have one element and require a gradient");
  zero_gradients();
  const InOut seed = grad_sink(loss);
  device_.run([&](const auto& be) { fill(be, scale, seed); });
  run_back();
}

void Tape::backward(const Tensor& result, In gradient) {
  expect(result.requires_grad() && gradient.size() == result.value.size(),
         "Tape::backward: the gradient must have the result's size");
  zero_gradients();
  const InOut seed = grad_sink(result);
  const auto one = take<real>(1);
  device_.run([&](const auto& be) {
    fill(be, 1, one);
    scaled_add(be, one, gradient, seed);
  });
  run_back();
}

void Tape::run_back() {
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    const bool reached = std::any_of(step->outputs.begin(), step->outputs.end(),
                                     [&](int n) { return !nodes_[size_t(n)].grad.empty(); });
    if (reached) step->run();
    for (int n : step->outputs) {
      Node& node = nodes_[size_t(n)];
      if (node.grad.empty() || node.external) continue;
      free_grads_.emplace(node.size, node.grad.data());
      node.grad = {};
    }
  }
  steps_.clear();
}

Tape& Tape::inner() {
  if (!inner_) inner_ = std::make_unique<Tape>(device_, recording_);
  return *inner_;
}

void Tape::reset() {
  steps_.clear();
  nodes_.clear();
  free_grads_.clear();
  zeros_ = {};
  scratch_ = {};
  grads_.reset();
  values_.reset();
  lists_.reset();
}

}  // namespace decalign::inline DECALIGN_REAL
