// The tape: what to do on the way back, in the order it happened on the way forward. Owns the
// step's memory.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>

#include "autograd/arena.h"
#include "autograd/device.h"
#include "autograd/tensor.h"

namespace decalign::inline DECALIGN_REAL {

/// One step: allocate inputs, call ops, backward(loss), reset(). Ops are free functions f(tape,
/// tensors...) -> tensor.
class Tape {
 public:
  /// With `recording` false (evaluation) no tensor wants a gradient and nothing is remembered.
  explicit Tape(Device device = {}, bool recording = true)
      : device_(device), recording_(recording), values_(device), grads_(device) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  const Device& device() const { return device_; }
  bool recording() const { return recording_; }
  void set_recording(bool recording) { recording_ = recording; }

  // ---- for ops ---------------------------------------------------------------------------------
  /// A result, uninitialised, in this step's memory.
  Tensor make(Shape shape, bool requires_grad);
  /// Uninitialised memory of the device until reset(): saved statistics, work space.
  template <class T>
  std::span<T> take(int64_t n) {
    return values_.take<T>(n);
  }
  /// Work space of the kernel that runs next: the same memory for every op, valid until the next
  /// call.
  Scratch scratch(size_t bytes) {
    if (bytes > scratch_.size()) scratch_ = values_.bytes(bytes);
    return scratch_.first(bytes);
  }
  /// Uninitialised memory of the host until reset(): lists of groups, rows, ranges.
  template <class T>
  std::span<T> list(int64_t n) {
    return lists_.take<T>(n);
  }
  /// A copy of host values in the host's memory until reset().
  template <class T>
  std::span<T> keep(std::span<const T> source) {
    const auto copy = list<T>(std::ssize(source));
    std::copy(source.begin(), source.end(), copy.begin());
    return copy;
  }
  /// A copy of host values in the device's memory until reset(), or in a recorded step's.
  template <class T>
  std::span<const T> upload(std::span<const T> source) {
    if (const void* there = device_.recorded_copy(source.data(), source.size_bytes()))
      return {static_cast<const T*>(there), source.size()};
    const auto copy = take<T>(std::ssize(source));
    device_.upload(source.data(), copy.data(), source.size_bytes());
    return copy;
  }
  /// Runs f(backend) now.
  template <class F>
  decltype(auto) run(F&& f) const {
    return device_.run(std::forward<F>(f));
  }
  /// Remembers f(backend) for the way back; forgotten at once if no output wants a gradient. It is
  /// skipped if none of the outputs received one. Afterwards the outputs' gradients are released.
  template <class F>
  void record(std::initializer_list<Tensor> outputs, F f) {
    std::vector<int> nodes;
    for (const Tensor& t : outputs)
      if (t.requires_grad()) nodes.push_back(t.node);
    if (!nodes.empty())
      steps_.push_back({std::move(nodes), [device = device_, f] { device.run(f); }});
  }
  /// The gradient that arrived at t (zeros if none did). Only inside a recorded step.
  In grad(const Tensor& t) { return grad_sink(t); }
  /// Where backward kernels add; zero-filled on first use; empty if t wants no gradient.
  InOut grad_sink(const Tensor& t);

  // ---- for their callers
  // -------------------------------------------------------------------------
  /// A tensor over memory of the caller's; its gradient is added to `grad` (empty: none is wanted).
  Tensor leaf(Shape shape, Out value, InOut grad = {});
  /// Copies host values in; no gradient.
  Tensor constant(Shape shape, In value);

  /// Seeds d(loss)/d(loss) = scale, runs the steps last to first, then forgets them; values stay
  /// until reset(). Throws std::invalid_argument unless `loss` has one element and requires a
  /// gradient.
  void backward(const Tensor& loss, real scale = 1);
  /// The same from a gradient of any result's size.
  void backward(const Tensor& result, In gradient);
  /// Forgets values, gradients and steps.
  void reset();

  /// A tape on the same device for work that a recorded step does again: see
  /// autograd/recomputed.h.
  Tape& inner();

  /// Changes when a step's memory moves: while it stays, equal steps use equal addresses.
  uint64_t generation() const {
    return values_.generation() + grads_.generation() + (inner_ ? inner_->generation() : 0);
  }
  /// Bytes of memory held.
  size_t capacity() const {
    return values_.capacity() + grads_.capacity() + lists_.capacity() +
           (inner_ ? inner_->capacity() : 0);
  }

 private:
  struct Step {
    std::vector<int> outputs;
    std::function<void()> run;
  };
  struct Node {
    int64_t size = 0;
    InOut grad;
    bool external = false;
  };
  void zero_gradients();
  void run_back();

  Device device_;
  bool recording_;
  std::unique_ptr<Tape> inner_;
  Arena values_, grads_;
  Arena lists_;  // the host's
  Scratch scratch_;
  std::multimap<int64_t, real*>
      free_grads_;  // released gradients by size: the next op's are hot in cache
  InOut zeros_;     // memory of gradients to come that is zero
  std::vector<Node> nodes_;
  std::vector<Step> steps_;
};

/// True if any of the tensors wants a gradient.
template <class... T>
bool any_grad(const T&... tensors) {
  return (tensors.requires_grad() || ...);
}

}  // namespace decalign::inline DECALIGN_REAL
