#include "model/optimizer.h"

#include <cmath>

#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL {

Optimizer::Optimizer(Parameters& parameters, const AdamOptions& options, double learning_rate)
    : parameters_(parameters),
      options_(options),
      m_(parameters.values().size()),
      v_(parameters.values().size()) {
  state_.learning_rate = learning_rate;
  for (const Parameter& p : parameters.list()) {
    if (!p.trained) continue;
    const size_t begin = size_t(p.offset), size = size_t(p.size());
    // The few padding elements between two parameters are zero and stay so.
    if (!ranges_.empty() && begin - (ranges_.back().begin + ranges_.back().size) < 16)
      ranges_.back().size = begin + size - ranges_.back().begin;
    else
      ranges_.push_back({begin, size});
  }
}

void Optimizer::zero_grad(const Device& device) {
  device.run([&](const auto& be) { fill(be, 0, parameters_.grads()); });
}

void Optimizer::step(const Device& device) {
  device.run([&](const auto& be) {
    const In grads = parameters_.grads();
    scratch_.resize(global_norm_scratch_bytes(be, std::ssize(grads)) + 64);
    const auto aligned = (64 - reinterpret_cast<uintptr_t>(scratch_.data()) % 64) % 64;
    global_norm(be, grads, false, {&state_.squared_norm, 1}, Scratch(scratch_).subspan(aligned));
    adam_advance(be, &state_);
    for (const Range& r : ranges_)
      adam(be, options_, &state_, grads.subspan(r.begin, r.size),
           parameters_.values().subspan(r.begin, r.size), InOut(m_).subspan(r.begin, r.size),
           InOut(v_).subspan(r.begin, r.size));
  });
}

double Optimizer::gradient_norm() const { return std::sqrt(state_.squared_norm); }

}  // namespace decalign::inline DECALIGN_REAL
