// The network's weights: names, one flat array of values and one of gradients, and their twins on a
// device.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "autograd/buffer.h"
#include "autograd/huge_pages.h"
#include "autograd/tape.h"

namespace decalign::inline DECALIGN_REAL {

struct Parameter {
  std::string name;  ///< the release's state_dict name
  Shape shape;
  int64_t offset = 0;  ///< first element in the flat arrays
  double bound = 0;    ///< initialised uniformly in [-bound, bound]
  double start = 0;    ///< or, with bound 0, to this constant
  /// Whether the optimiser touches it: false where no gradient can reach (an inactive modality, a
  /// skipped projection).
  bool trained = true;
  int group = 0;  ///< of parameters that share a step size: see Optimizer

  int64_t size() const { return element_count(shape); }
};

class Parameters {
 public:
  /// Appends one; its values are undefined until initialize() or until the caller writes them.
  /// Throws std::invalid_argument for a name that is there already.
  void add(Parameter parameter);
  /// Draws every value from Philox by (seed, parameter, element): the same weights on every
  /// machine.
  void initialize(uint64_t seed);

  /// From here on values and gradients live in the device's memory too, and steps on it use those:
  /// values() and grads() are the host's, which fetch() and push() bring up to date. On the host
  /// both are the same arrays, and all three do nothing.
  void move_to(const Device& device);
  void fetch();  ///< values and gradients, device to host
  void push();   ///< values, host to device

  /// The parameter as an input of this step. Throws std::invalid_argument if there is none of that
  /// name.
  Tensor on(Tape& tape, const std::string& name);

  const std::vector<Parameter>& list() const { return list_; }
  const Parameter* find(const std::string& name) const;
  Out values(const Parameter& p) {
    return Out(values_).subspan(size_t(p.offset), size_t(p.size()));
  }
  InOut grads(const Parameter& p) {
    return InOut(grads_).subspan(size_t(p.offset), size_t(p.size()));
  }
  Out values() { return values_; }
  InOut grads() { return grads_; }
  /// The arrays that kernels use.
  Out device_values() { return on_device_ ? on_device_->values.span() : values(); }
  InOut device_grads() { return on_device_ ? on_device_->grads.span() : grads(); }
  const Device& device() const { return device_; }

 private:
  struct OnDevice {
    Buffer<real> values, grads;
  };
  std::vector<Parameter> list_;
  std::unordered_map<std::string, size_t> position_;  // in list_, by name
  HugeVector<real> values_, grads_;
  Device device_;
  std::optional<OnDevice> on_device_;
};

}  // namespace decalign::inline DECALIGN_REAL
