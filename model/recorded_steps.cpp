#include "model/recorded_steps.h"

#include <algorithm>
#include <numeric>

#include "kernels/contrastive.h"
#include "kernels/gather.h"
#include "model/batches.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

std::vector<float> label_classes(const Split& split, const Config& config) {
  std::vector<float> classes;
  for (const float y : split.labels)
    classes.push_back(config.classification() ? y : float(sentiment_class(double(y))));
  return classes;
}

// Whether rows, keys or masks come from lengths or from tokens.
bool work_varies(const Config& config, const Split& split) {
  return config.mask_source == "lengths" ||
         std::any_of(split.modalities.begin(), split.modalities.end(), [&](const Sequences& s) {
           return s.values.empty() || (config.use_sequence_mask && !s.tokens.empty());
         });
}

size_t staged_bytes([[maybe_unused]] const Device& device) {
#ifdef DECALIGN_CUDA
  if (device.cuda()) return device.cuda()->lists->staged();
#endif
  return 0;
}

}  // namespace

RecordedSteps::RecordedSteps(Network& network, Optimizer& optimizer, Tape& tape, const Split& split,
                             std::optional<size_t> budget)
    : network_(network),
      optimizer_(optimizer),
      tape_(tape),
      split_(split),
      varies_(work_varies(network.config(), split)),
      labels_(tape.device(), std::span<const float>(split.labels)),
      classes_(tape.device(), std::span<const float>(label_classes(split, network.config()))),
      order_(tape.device(), split.labels.size()),
      state_(tape.device(), 1),
      log_(tape.device(), split.labels.size() * kStepLosses),
      losses_(tape.device(), kAhead, kStepLosses) {
  const Device& device = tape.device();
  const int64_t batch = std::min(network.config().batch_size, split.count());
  size_t bytes = 0, sample = 0;
  for (const Sequences& s : split.modalities) {
    bytes += s.values.size() * sizeof(float);
    if (!s.values.empty()) sample += size_t(s.steps * s.width);
  }
  if (bytes > budget.value_or(device.free_memory() / 2)) {
    uploads_.emplace(device, size_t(batch) * sample);
    std::vector<int64_t> places(static_cast<size_t>(batch));
    std::iota(places.begin(), places.end(), int64_t(0));
    places_ = Buffer<int64_t>(device, std::span<const int64_t>(places));
  }
  for (const Sequences& s : split.modalities) {
    values_.emplace_back(uploads_ ? Buffer<float>()
                                  : Buffer<float>(device, std::span<const float>(s.values)));
    sizes_.emplace_back(s.steps, s.width);
  }
}

void RecordedSteps::begin(std::span<const int64_t> order, const RandomState& random) {
  const StepState start{random, 0, 0};
  order_.upload(order);
  state_.upload({&start, 1});
  samples_.assign(order.begin(), order.end());
  steps_ = next_ = 0;
}

void RecordedSteps::step(const Kind& kind) {
  if (kind.first) optimizer_.zero_grad();
  const auto samples = std::span<const int64_t>(samples_).subspan(next_, size_t(kind.count));
  Batch batch;
  batch.count = kind.count;
  batch.modalities.resize(values_.size());
  if (varies_) gather_tokens(split_, samples, batch);
  std::vector<GatherPart> features, labelled;
  size_t sent = 0;
  for (size_t m = 0; m < values_.size(); ++m) {
    const auto [steps, width] = sizes_[m];
    BatchModality& input = batch.modalities[m];
    input.steps = steps, input.width = width;
    if (split_.modalities[m].values.empty()) continue;
    const auto x = tape_.take<real>(kind.count * steps * width);
    input.device_x = x;
    features.push_back({uploads_ ? uploads_->there().subspan(sent, x.size()) : values_[m].span(),
                        steps * width,
                        x,
                        {}});
    sent += x.size();
  }
  const auto labels = tape_.take<real>(kind.count);
  const auto classes = tape_.take<int32_t>(kind.count);
  batch.device_labels = labels, batch.device_classes = classes;
  labelled.push_back({labels_.span(), 1, labels, {}});
  labelled.push_back({classes_.span(), 1, {}, classes});
  StepState* const state = state_.data();
  tape_.run([&](const auto& be) {
    if (uploads_)
      gather(be, features, places_.span(), places_.data(), kind.count);
    else
      labelled.insert(labelled.end(), features.begin(), features.end());
    gather(be, labelled, order_.span(), &state->first, kind.count);
  });
  const Result result = network_.forward(tape_, batch, &state->random);
  transported_ = !result.transport.empty();
  tape_.backward(result.total, real(1) / real(kind.parts));
  if (kind.last) optimizer_.queue_step();
  const auto terms = step_terms(result);
  tape_.run([&](const auto& be) { step_record(be, terms, kind.count, state, log_.span()); });
}

// The next step's features.
void RecordedSteps::send(int64_t count) {
  const std::span<float> host = uploads_->host();
  auto next = host.begin();
  for (const Sequences& s : split_.modalities) {
    if (s.values.empty()) continue;
    for (const int64_t n : std::span(samples_).subspan(next_, size_t(count)))
      next = std::copy_n(s.sample(n).begin(), s.steps * s.width, next);
  }
  uploads_->send(size_t(next - host.begin()));
}

// As it is: it may allocate, and it shows how much memory its lists take.
void RecordedSteps::run(const Kind& kind, Recording& recording) {
  const size_t before = staged_bytes(tape_.device());
  step(kind);
  const size_t bytes = staged_bytes(tape_.device()) - before;
  recording.list_bytes = std::max(recording.list_bytes, varies_ ? bytes + bytes / 2 : bytes);
  recording.graph.reset();
  tape_.reset();
  recording.generation = tape_.generation();
}

// False where it needs more memory than the steps before.
bool RecordedSteps::record(const Kind& kind, Recording& recording) {
  try {
    if (!recording.graph)
      recording.graph.emplace(tape_.device(), recording.list_bytes, [&] { step(kind); });
    else if (varies_)
      recording.graph->record([&] { step(kind); });
    return true;
  } catch (const std::bad_alloc&) {
  } catch (const std::length_error&) {
  }
  recording.graph.reset();
  tape_.reset();
  return false;
}

void RecordedSteps::queue(int64_t count, int64_t part, int64_t parts) {
  const Kind kind{count, part == 0, part + 1 == parts, parts};
  const auto [entry, is_new] = recordings_.try_emplace(kind);
  Recording& recording = entry->second;
  tape_.reset();
  if (uploads_) send(count);
  const bool moved = !varies_ && recording.generation != tape_.generation();
  if (!is_new && !moved && record(kind, recording))
    recording.graph->replay();
  else
    run(kind, recording);
  next_ += size_t(count);
  if (kind.last) optimizer_.count_step();
  losses_.send(In(log_.span()).subspan(steps_ * kStepLosses, kStepLosses));
  ++steps_;
}

std::optional<StepLosses> RecordedSteps::receive(bool wait) {
  const In row = losses_.receive(wait);
  if (row.empty()) return std::nullopt;
  StepLosses losses;
  std::copy(row.begin(), row.end(), losses.values.begin());
  losses.transported = transported_;
  return losses;
}

size_t RecordedSteps::nodes() const {
  size_t most = 0;
  for (const auto& [kind, recording] : recordings_)
    if (recording.graph) most = std::max(most, recording.graph->nodes());
  return most;
}

}  // namespace decalign::inline DECALIGN_REAL
