// Training one seed: epochs, validation, the best checkpoint, and a state from which a killed run
// goes on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/batches.h"
#include "model/optimizer.h"
#include "model/predictions_csv.h"
#include "model/prepare.h"
#include "model/recorded_steps.h"
#include "model/run_log.h"
#include "model/selection.h"
#include "model/text_encoder.h"

namespace decalign::inline DECALIGN_REAL {

/// Predictions of a split and the mean of its batches' task losses (0 without labels).
struct Evaluation {
  Predictions predictions;
  double loss = 0;
  Metrics metrics;  ///< empty without labels
};

/// Runs the network over a split, without dropout and in order. The tape's last step is forgotten
/// and its memory used.
Evaluation evaluate_split(Network& network, const Split& split, Tape& tape);
/// The same on a device, to which the network moves, in memory of its own.
Evaluation evaluate_split(Network& network, const Split& split, const Device& device);

/// A trained network as a file: weights, the config and the sizes it was built for, statistics for
/// standardising.
struct Checkpoint {
  Config config;
  std::vector<ModalitySize> sizes;
  std::optional<BertConfig> encoder;  ///< of a fine-tuned text encoder, whose weights are here too
  std::optional<FrozenEncoder> frozen;  ///< the pretrained encoder that the text went through
  std::vector<real> class_weights;
  Statistics statistics;
  uint64_t seed = 0;
  int64_t epoch = 0;
};

void save_checkpoint(const std::string& path, Network& network, const Checkpoint& about);
/// Reads what save_checkpoint wrote; the network is built and its weights are loaded.
std::pair<Checkpoint, Network> load_checkpoint(const std::string& path);

class Trainer {
 public:
  /// `dataset` prepared and with the splits train and valid. Files go to `folder`:
  /// checkpoint.safetensors (the best epoch), state.safetensors (the last one). `encoder`: what
  /// reads the data's tokens, null if they have none.
  Trainer(const Config& config, const Dataset& dataset, const Statistics& statistics,
          const TextEncoder* encoder, uint64_t seed, const std::string& folder,
          const Device& device, RunLog& log);

  /// Trains to the end, from state.safetensors if there is one: then the remaining epochs give the
  /// same bits as an uninterrupted run. Afterwards the network has the best epoch's weights. Throws
  /// input_error if a loss becomes NaN or infinite, naming the step, the term and the last good
  /// checkpoint.
  void run();

  /// A split by the network as it is, in the memory that training used.
  Evaluation evaluate(const Split& split) { return evaluate_split(network_, split, tape_); }
  Network& network() { return network_; }
  int64_t best_epoch() const { return progress_.best_epoch; }
  double best_value() const { return progress_.best_value; }

 private:
  struct Progress {
    int64_t epoch = 0, best_epoch = 0;
    double best_value = 0;
    PlateauScheduler scheduler;
  };
  struct EpochLoss {
    double total = 0, mass = 0;
    int64_t batches = 0, transports = 0;
  };
  EpochLoss train_epoch(int64_t epoch);
  void set_rates(int64_t step, int64_t steps);
  StepLosses eager_step(std::span<const int64_t> samples, int64_t part, int64_t parts);
  void require_finite(const StepLosses& losses, int64_t epoch, int64_t batch, int64_t step) const;
  Evaluation validate(int64_t epoch);
  std::string last_good() const;
  void save_state();
  bool load_state();
  std::string checkpoint_path() const { return folder_ + "/checkpoint.safetensors"; }
  std::string state_path() const { return folder_ + "/state.safetensors"; }

  Config config_;
  const Dataset& dataset_;
  Checkpoint about_;
  std::string folder_;
  Device device_;
  RunLog& log_;
  Network network_;
  Optimizer optimizer_;
  Tape tape_;
  Batch batch_;
  Buffer<RandomState> random_;
  std::optional<RecordedSteps> recorded_;  // where every step does the same work
  std::vector<double> rates_;              // of the parameter groups, without warm-up
  MetricChoice selection_, scheduling_;
  Progress progress_;
  bool arena_unknown_ = true;  // its size has not been logged
};

}  // namespace decalign::inline DECALIGN_REAL
