// Training steps on a device other than the host: the data set lies there where it fits, and a
// whole step is one launch of a recorded graph.
#pragma once

#include <map>
#include <optional>

#include "autograd/graph.h"
#include "autograd/uploads.h"
#include "data/dataset.h"
#include "kernels/step_record.h"
#include "model/optimizer.h"
#include "model/step_losses.h"

namespace decalign::inline DECALIGN_REAL {

/// Where every step of a batch size does the same work (float features under the release's masks)
/// it is recorded once and replayed. Where rows differ from batch to batch (mask_source lengths,
/// token ids) a step is recorded anew while those before it run; the kernels are the same, so that
/// it takes the old one's place in the executable graph.
class RecordedSteps {
 public:
  /// All of these must outlive it; the tape and the optimiser work on the same device. `budget`:
  /// bytes of its memory that the features may take, by default half of what is free. Where they
  /// need more they stay on the host, and a batch's are sent while the step before it runs.
  RecordedSteps(Network& network, Optimizer& optimizer, Tape& tape, const Split& split,
                std::optional<size_t> budget = {});
  /// Whether the features are on the device.
  bool resident() const { return !uploads_; }

  /// The next steps take the samples in this order. `random` is the first one's; each further step
  /// counts on.
  void begin(std::span<const int64_t> order, const RandomState& random);

  /// Queues a step on the next `count` samples: batch `part` of the `parts` whose gradients one
  /// optimiser step takes together. A batch size seen for the first time runs as it is, the second
  /// time it is recorded; so does a step that needs more memory than all before. At most kAhead
  /// steps may be on their way.
  void queue(int64_t count, int64_t part, int64_t parts);
  static constexpr size_t kAhead = 64;

  /// Losses of the oldest step that has not been received; none while it is on its way, unless
  /// `wait`.
  std::optional<StepLosses> receive(bool wait);

  /// Nodes of the largest recorded step, 0 if none is.
  size_t nodes() const;

 private:
  struct Kind {  // of step: what its recording depends on
    int64_t count;
    bool first, last;
    int64_t parts;
    auto operator<=>(const Kind&) const = default;
  };
  struct Recording {
    std::optional<Graph> graph;
    uint64_t generation = 0;  // of the tape's memory, when it ran or was recorded
    size_t list_bytes = 0;
  };
  void step(const Kind& kind);
  void send(int64_t count);
  void run(const Kind& kind, Recording& recording);
  bool record(const Kind& kind, Recording& recording);

  Network& network_;
  Optimizer& optimizer_;
  Tape& tape_;
  const Split& split_;
  bool varies_;                                     // what a step does, from batch to batch
  std::vector<int64_t> samples_;                    // the order, for the host
  size_t next_ = 0;                                 // sample of the next step
  std::vector<Buffer<float>> values_;               // of the split's modalities
  std::vector<std::pair<int64_t, int64_t>> sizes_;  // steps and width
  std::optional<Uploads> uploads_;                  // of features, else they are in values_
  Buffer<int64_t> places_;                          // 0 .. of a batch sent that way
  Buffer<float> labels_, classes_;
  Buffer<int64_t> order_;
  Buffer<StepState> state_;
  Buffer<real> log_;  // a row per step of an epoch
  size_t steps_ = 0;  // queued since begin()
  std::map<Kind, Recording> recordings_;
  Readback losses_;
  bool transported_ = false;
};

}  // namespace decalign::inline DECALIGN_REAL
