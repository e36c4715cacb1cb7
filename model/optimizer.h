// Global-norm clipping and Adam over the network's parameters.
#pragma once

#include <vector>

#include "autograd/buffer.h"
#include "kernels/adam.h"
#include "kernels/weight_average.h"
#include "model/parameters.h"

namespace decalign::inline DECALIGN_REAL {

/// What the parameters of one group (Parameter::group) share.
struct ParameterGroup {
  AdamOptions options;
  double learning_rate = 0;
};

class Optimizer {
 public:
  /// Works where the parameters are: see Parameters::move_to, which comes first.
  /// Group g of the parameters has groups[g]; all are clipped together, by the first one's `clip`.
  /// Parameters that are not trained stay untouched. Throws std::invalid_argument for a parameter
  /// of a group that is not there.
  /// With `average_decay` above 0 every step updates their average too: see
  /// kernels/weight_average.h.
  Optimizer(Parameters& parameters, const std::vector<ParameterGroup>& groups,
            double average_decay = 0);
  /// The same options and step size for every group.
  Optimizer(Parameters& parameters, const AdamOptions& options, double learning_rate);

  void zero_grad();
  /// Clips by the norm of all gradients, then one Adam step.
  void step();
  /// The two halves of step(): what is queued on the device, and what the host counts. A recorded
  /// step replays the first and calls the second.
  void queue_step();
  void count_step();

  /// The norm before clipping of the last step.
  double gradient_norm() const;
  size_t groups() const { return groups_.size(); }
  double learning_rate(size_t group = 0) const { return groups_[group].state.learning_rate; }
  void set_learning_rate(size_t group, double rate);

  bool averaging() const { return average_decay_ > 0; }

  /// What a resumed run needs: moments and average (laid out as the parameters' flat arrays; no
  /// average where none is kept) and the number of steps done.
  std::vector<real> first_moment() const { return m_.read(); }
  std::vector<real> second_moment() const { return v_.read(); }
  std::vector<real> average() const { return average_.read(); }
  int64_t steps() const { return groups_[0].state.step; }
  void restore(In first_moment, In second_moment, In average, int64_t steps);

 private:
  struct Group {
    AdamOptions options;
    AdamState state;  // the host's, without the norm
  };
  Parameters& parameters_;
  std::vector<Group> groups_;
  std::vector<AdamRange> ranges_;  // of trained parameters, merged where they touch
  void push_state(size_t group);
  Device device_;
  double average_decay_;
  Buffer<real> m_, v_, average_;
  Buffer<AdamState> states_;  // of the groups, where the kernels read them
  Buffer<std::byte> scratch_;
};

/// While it lives the parameters are their average, on the host and on the device.
class AveragedWeights {
 public:
  /// Does nothing where the optimiser keeps no average. Both must outlive it.
  AveragedWeights(Parameters& parameters, const Optimizer& optimizer);
  ~AveragedWeights();
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

 private:
  Parameters& parameters_;
  std::vector<real> own_;  // the weights as trained; empty: no average
};

}  // namespace decalign::inline DECALIGN_REAL
