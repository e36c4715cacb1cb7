#include "model/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

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

Optimizer::Optimizer(Parameters& parameters, const std::vector<ParameterGroup>& groups,
                     double average_decay)
    : parameters_(parameters),
      device_(parameters.device()),
      average_decay_(average_decay),
      m_(device_, parameters.values().size()),
      v_(device_, parameters.values().size()),
      average_(device_, average_decay > 0 ? parameters.values().size() : 0),
      states_(device_, groups.size()) {
  expect(!groups.empty(), "Optimizer: no group of parameters");
  for (const ParameterGroup& group : groups)
    groups_.push_back({group.options, {group.learning_rate, 0, 0}});
  for (Group& group : groups_) group.options.clip = groups[0].options.clip;
  for (const Parameter& p : parameters.list()) {
    if (!p.trained) continue;
    expect(p.group >= 0 && size_t(p.group) < groups_.size(),
           "Optimizer: a parameter's group is not there");
    AdamRange* const last = ranges_.empty() ? nullptr : &ranges_.back();
    // The few padding elements between two parameters are zero and stay so.
    if (last && last->group == p.group && p.offset - (last->begin + last->size) < 16)
      last->size = p.offset + p.size() - last->begin;
    else
      ranges_.push_back({p.offset, p.size(), p.group});
  }
  const size_t bytes = device_.run([&](const auto& be) {
    fill(be, 0, m_.span());
    fill(be, 0, v_.span());
    fill(be, 0, average_.span());
    return clipped_adam_scratch_bytes(be, std::ssize(parameters_.values()), std::ssize(groups_));
  });
  scratch_ = Buffer<std::byte>(device_, bytes);
  for (size_t g = 0; g < groups_.size(); ++g) push_state(g);
}

void Optimizer::push_state(size_t group) {
  device_.upload(&groups_[group].state, &states_.span()[group], sizeof(AdamState));
}

void Optimizer::set_learning_rate(size_t group, double rate) {
  if (groups_[group].state.learning_rate == rate) return;
  groups_[group].state.learning_rate = rate;
  static_assert(offsetof(AdamState, learning_rate) == 0);
  device_.upload(&rate, &states_.span()[group], sizeof rate);  // the rest is the device's
}

void Optimizer::restore(In first_moment, In second_moment, In average, int64_t steps) {
  expect(first_moment.size() == m_.size() && second_moment.size() == v_.size() &&
             average.size() == average_.size(),
         "Optimizer::restore: size of the moments and the average");
  m_.upload(first_moment);
  v_.upload(second_moment);
  average_.upload(average);
  for (size_t g = 0; g < groups_.size(); ++g) {
    groups_[g].state.step = steps;
    push_state(g);
  }
}

void Optimizer::zero_grad() {
  device_.run([&](const auto& be) { fill(be, 0, parameters_.device_grads()); });
}

void Optimizer::queue_step() {
  std::vector<AdamGroup> groups;
  for (size_t g = 0; g < groups_.size(); ++g)
    groups.push_back({groups_[g].options, &states_.span()[g]});
  device_.run([&](const auto& be) {
    clipped_adam(be, groups, ranges_, parameters_.device_grads(), parameters_.device_values(),
                 m_.span(), v_.span(), scratch_.span());
    if (averaging())
      weight_average(be, average_decay_, states_.data(), parameters_.device_values(),
                     average_.span());
  });
}

void Optimizer::count_step() {
  for (Group& group : groups_) ++group.state.step;
}

void Optimizer::step() {
  queue_step();
  count_step();
}

AveragedWeights::AveragedWeights(Parameters& parameters, const Optimizer& optimizer)
    : parameters_(parameters) {
  if (!optimizer.averaging()) return;
  parameters.fetch();
  const Out values = parameters.values();
  own_.assign(values.begin(), values.end());
  const std::vector<real> average = optimizer.average();
  std::copy(average.begin(), average.end(), values.begin());
  parameters.push();
}

AveragedWeights::~AveragedWeights() {
  if (own_.empty()) return;
  std::copy(own_.begin(), own_.end(), parameters_.values().begin());
  parameters_.push();
}

double Optimizer::gradient_norm() const { return std::sqrt(states_.read()[0].squared_norm); }

}  // namespace decalign::inline DECALIGN_REAL
