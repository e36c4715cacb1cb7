#include "model/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/fill.h"

namespace decalign::inline DECALIGN_REAL {

namespace {

std::vector<ParameterGroup> equal_groups(const Parameters& parameters,
                                         const ParameterGroup& group) {
  int last = 0;
  for (const Parameter& p : parameters.list()) last = std::max(last, p.group);
  return std::vector<ParameterGroup>(size_t(last) + 1, group);
}

}  // namespace

Optimizer::Optimizer(Parameters& parameters, const AdamOptions& options, double learning_rate)
    : Optimizer(parameters, equal_groups(parameters, {options, learning_rate})) {}

Optimizer::Optimizer(Parameters& parameters, const std::vector<ParameterGroup>& groups)
    : parameters_(parameters), m_(parameters.values().size()), v_(parameters.values().size()) {
  expect(!groups.empty(), "Optimizer: no group of parameters");
  for (const ParameterGroup& group : groups)
    groups_.push_back({group.options, {group.learning_rate, 0, 0}, {}});
  for (Group& group : groups_) group.options.clip = groups[0].options.clip;
  for (const Parameter& p : parameters.list()) {
    if (!p.trained) continue;
    expect(p.group >= 0 && size_t(p.group) < groups_.size(),
           "Optimizer: a parameter's group is not there");
    std::vector<Range>& ranges = groups_[size_t(p.group)].ranges;
    const size_t begin = size_t(p.offset), size = size_t(p.size());
    // The few padding elements between two parameters are zero and stay so.
    if (!ranges.empty() && begin - (ranges.back().begin + ranges.back().size) < 16)
      ranges.back().size = begin + size - ranges.back().begin;
    else
      ranges.push_back({begin, size});
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
    double& norm = groups_[0].state.squared_norm;
    global_norm(be, grads, false, {&norm, 1}, Scratch(scratch_).subspan(aligned));
    for (Group& group : groups_) {
      group.state.squared_norm = norm;
      adam_advance(be, &group.state);
      for (const Range& r : group.ranges)
        adam(be, group.options, &group.state, grads.subspan(r.begin, r.size),
             parameters_.values().subspan(r.begin, r.size), InOut(m_).subspan(r.begin, r.size),
             InOut(v_).subspan(r.begin, r.size));
    }
  });
}

double Optimizer::gradient_norm() const { return std::sqrt(groups_[0].state.squared_norm); }

}  // namespace decalign::inline DECALIGN_REAL
