// Which epoch is the best, when the learning rate falls, when a run stops.
#pragma once

#include <string>

#include "model/config.h"
#include "model/metrics.h"

namespace decalign {

/// A metric of the validation split and its direction.
struct MetricChoice {
  std::string name;
  bool maximise = false;

  /// The metric's value as the release compares it, rounded to four decimals; `loss`, the mean of
  /// the batches' task losses and not rounded, for every name that is no metric (the data set's
  /// name in capitals, by custom).
  double value(const Metrics& metrics, double loss) const;
  bool better(double current, double best) const {
    return maximise ? current > best : current < best;
  }
};

/// selection_metric; absent: in classification weighted F1, else the loss.
MetricChoice selection_choice(const Config& config);
/// scheduler_metric; absent: the selection's.
MetricChoice scheduler_choice(const Config& config);

/// torch.optim.lr_scheduler.ReduceLROnPlateau: after more than `patience` epochs in a row without a
/// relative improvement of 1e-4 every learning rate is multiplied by `factor`.
struct PlateauScheduler {
  bool maximise = false;
  int64_t patience = 10;
  double factor = 0.1;
  bool started = false;
  double best = 0;
  int64_t bad_epochs = 0;

  /// Counts an epoch whose metric was `value`; true if the learning rates are to fall now.
  bool step(double value);
  /// A learning rate after the fall; one that would change by no more than 1e-8 stays.
  double reduced(double learning_rate) const;
};

}  // namespace decalign
