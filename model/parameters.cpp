#include "model/parameters.h"

#include "kernels/dropout_mask.h"

namespace decalign::inline DECALIGN_REAL {

void Parameters::add(Parameter parameter) {
  if (!position_.emplace(parameter.name, list_.size()).second)
    throw std::invalid_argument("Parameters::add: " + parameter.name + " is there already");
  parameter.offset = std::ssize(values_);
  const size_t total =
      size_t((parameter.offset + parameter.size() + 15) / 16 * 16);  // each starts on a cache line
  values_.resize(total);
  grads_.resize(total);
  list_.push_back(std::move(parameter));
}

void Parameters::initialize(uint64_t seed) {
  constexpr uint32_t kInitialisation = 0xffffffff;  // a step number that training never reaches
  for (size_t i = 0; i < list_.size(); ++i) {
    const Out value = values(list_[i]);
    for (size_t j = 0; j < value.size(); ++j) {
      const auto word =
          philox({uint32_t(j), uint32_t(uint64_t(j) >> 32), uint32_t(i), kInitialisation},
                 {uint32_t(seed), uint32_t(seed >> 32)});
      const double u =
          double((uint64_t(word[0]) << 21) ^ (word[1] >> 11)) / 9007199254740992.0;  // [0, 1)
      value[j] = real(list_[i].bound > 0 ? list_[i].bound * (2 * u - 1) : list_[i].start);
    }
  }
  push();
}

void Parameters::move_to(const Device& device) {
  device_ = device;
  on_device_.reset();
  if (device.on_host()) return;
  on_device_.emplace(OnDevice{Buffer<real>(device, In(values_)), Buffer<real>(device, In(grads_))});
}

void Parameters::fetch() {
  if (!on_device_) return;
  device_.download(on_device_->values.data(), values_.data(), values_.size() * sizeof(real));
  device_.download(on_device_->grads.data(), grads_.data(), grads_.size() * sizeof(real));
}

void Parameters::push() {
  if (on_device_) on_device_->values.upload(values_);
}

const Parameter* Parameters::find(const std::string& name) const {
  const auto found = position_.find(name);
  return found == position_.end() ? nullptr : &list_[found->second];
}

Tensor Parameters::on(Tape& tape, const std::string& name) {
  const Parameter* p = find(name);
  if (!p) throw std::invalid_argument("Parameters::on: no parameter " + name);
  const size_t first = size_t(p->offset), size = size_t(p->size());
  return tape.leaf(p->shape, device_values().subspan(first, size),
                   device_grads().subspan(first, size));
}

}  // namespace decalign::inline DECALIGN_REAL
