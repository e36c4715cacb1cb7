// Global-norm clipping and Adam over the network's parameters.
#pragma once

#include <vector>

#include "autograd/device.h"
#include "autograd/huge_pages.h"
#include "kernels/adam.h"
#include "model/parameters.h"

namespace decalign::inline DECALIGN_REAL {

/// What the parameters of one group (Parameter::group) share.
struct ParameterGroup {
  AdamOptions options;
  double learning_rate = 0;
};

class Optimizer {
 public:
  /// Group g of the parameters has groups[g]; all are clipped together, by the first one's `clip`.
  /// Parameters that are not trained stay untouched. Throws std::invalid_argument for a parameter
  /// of a group that is not there.
  Optimizer(Parameters& parameters, const std::vector<ParameterGroup>& groups);
  /// The same options and step size for every group.
  Optimizer(Parameters& parameters, const AdamOptions& options, double learning_rate);

  void zero_grad(const Device& device);
  /// Clips by the norm of all gradients, then one Adam step.
  void step(const Device& device);

  /// The norm before clipping of the last step.
  double gradient_norm() const;
  size_t groups() const { return groups_.size(); }
  double learning_rate(size_t group = 0) const { return groups_[group].state.learning_rate; }
  void set_learning_rate(size_t group, double rate) { groups_[group].state.learning_rate = rate; }

  /// What a resumed run needs: moments (laid out as the parameters' flat arrays) and the number of
  /// steps done.
  Out first_moment() { return m_; }
  Out second_moment() { return v_; }
  int64_t steps() const { return groups_[0].state.step; }
  void set_steps(int64_t steps) {
    for (Group& group : groups_) group.state.step = steps;
  }

 private:
  struct Range {
    size_t begin, size;
  };
  struct Group {
    AdamOptions options;
    AdamState state;
    std::vector<Range> ranges;  // of trained parameters, merged where they touch
  };
  Parameters& parameters_;
  std::vector<Group> groups_;
  HugeVector<real> m_, v_;
  std::vector<std::byte> scratch_;
};

}  // namespace decalign::inline DECALIGN_REAL
