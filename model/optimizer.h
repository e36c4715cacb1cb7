// Global-norm clipping and Adam over the network's parameters.
#pragma once

#include <vector>

#include "autograd/device.h"
#include "kernels/adam.h"
#include "model/parameters.h"

namespace decalign::inline DECALIGN_REAL {

class Optimizer {
 public:
  /// Decay and clipping from the options; parameters that are not trained stay untouched.
  Optimizer(Parameters& parameters, const AdamOptions& options, double learning_rate);

  void zero_grad(const Device& device);
  /// Clips by the norm of all gradients, then one Adam step.
  void step(const Device& device);

  /// The norm before clipping of the last step.
  double gradient_norm() const;
  double learning_rate() const { return state_.learning_rate; }
  void set_learning_rate(double rate) { state_.learning_rate = rate; }

  /// What a resumed run needs: moments (laid out as the parameters' flat arrays) and the number of
  /// steps done.
  Out first_moment() { return m_; }
  Out second_moment() { return v_; }
  int64_t steps() const { return state_.step; }
  void set_steps(int64_t steps) { state_.step = steps; }

 private:
  struct Range {
    size_t begin, size;
  };
  Parameters& parameters_;
  AdamOptions options_;
  AdamState state_;
  std::vector<Range> ranges_;  // of trained parameters, merged where they touch
  std::vector<real> m_, v_;
  std::vector<std::byte> scratch_;
};

}  // namespace decalign::inline DECALIGN_REAL
