#include "model/trainer.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <utility>

#include "model/bert.h"
#include "model/checkpoint.h"
#include "model/parameter_groups.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

std::string clock_text(double seconds) {
  const int64_t s = int64_t(seconds + 0.5);
  return s < 3600 ? format("%d:%02d", int(s / 60), int(s % 60))
                  : format("%d:%02d:%02d", int(s / 3600), int(s / 60 % 60), int(s % 60));
}

Network& moved(Network& network, const Device& device) {
  network.move_to(device);
  return network;
}

}  // namespace

Evaluation evaluate_split(Network& network, const Split& split, const Device& device) {
  network.move_to(device);
  Tape tape(device);
  return evaluate_split(network, split, tape);
}

Evaluation evaluate_split(Network& network, const Split& split, Tape& tape) {
  const struct Pause {  // nothing is recorded here, whatever ends it
    Tape& tape;
    bool before = tape.recording();
    explicit Pause(Tape& t) : tape(t) { tape.set_recording(false); }
    ~Pause() { tape.set_recording(before); }
  } pause(tape);
  Batch batch;
  Evaluation result;
  const Config& config = network.config();
  const int64_t n = split.count();
  result.predictions.classes = config.classification() ? config.num_classes : 0;
  result.predictions.ids = split.ids;
  result.predictions.labels = split.labels;
  std::vector<int64_t> samples(static_cast<size_t>(n));
  std::iota(samples.begin(), samples.end(), int64_t(0));
  int64_t batches = 0;
  for (int64_t first = 0; first < n; first += config.batch_size, ++batches) {
    tape.reset();
    gather(
        split,
        std::span(samples).subspan(size_t(first), size_t(std::min(config.batch_size, n - first))),
        batch);
    const Result r = network.forward(tape, batch, nullptr);
    for (const real score : tape.device().read(r.logits.value))
      result.predictions.scores.push_back(float(score));
    if (!batch.labels.empty()) result.loss += double(tape.device().read(r.task.value, 0));
  }
  if (batches > 0) result.loss /= double(batches);
  if (!split.labels.empty())
    result.metrics = evaluate(config.dataset_name, result.predictions.classes,
                              result.predictions.scores, split.labels);
  return result;
}

Trainer::Trainer(const Config& config, const Dataset& dataset, const Statistics& statistics,
                 const TextEncoder* encoder, uint64_t seed, const std::string& folder,
                 const Device& device, RunLog& log)
    : config_(config),
      dataset_(dataset),
      folder_(folder),
      device_(device),
      log_(log),
      network_(
          config, modality_sizes(dataset.splits.at("train")), "config",
          encoder && !encoder->frozen ? std::optional(encoder->pretrained.config) : std::nullopt),
      optimizer_(moved(network_, device).parameters(),
                 parameter_groups(config, network_.encoder(), config.learning_rate),
                 config.average_decay),
      tape_(device),
      random_(device, 1),
      selection_(selection_choice(config)),
      scheduling_(scheduler_choice(config)) {
  const std::vector<double> weights = class_weights(config, dataset.splits.at("train"));
  about_.config = config;
  about_.sizes = network_.sizes();
  about_.encoder = network_.encoder();
  if (encoder) about_.frozen = encoder->frozen;
  about_.class_weights.assign(weights.begin(), weights.end());
  about_.statistics = statistics;
  about_.seed = seed;
  network_.set_class_weights(about_.class_weights);
  network_.parameters().initialize(seed);
  if (network_.encoder())
    load_bert(network_.parameters(), Safetensors(encoder->pretrained.weights()));
  for (size_t g = 0; g < optimizer_.groups(); ++g) rates_.push_back(optimizer_.learning_rate(g));
  if (!device.on_host()) recorded_.emplace(network_, optimizer_, tape_, dataset.splits.at("train"));
  progress_.best_value = selection_.maximise ? -1e8 : 1e8;
  progress_.scheduler.maximise = scheduling_.maximise;
  progress_.scheduler.patience = config.scheduler_patience.value_or(config.patience);
  progress_.scheduler.factor = config.factor;
  std::filesystem::create_directories(folder_);
}

void Trainer::require_finite(const StepLosses& losses, int64_t epoch, int64_t batch,
                             int64_t step) const {
  const char* const term = losses.not_finite();
  if (!term) return;
  throw input_error(format("seed %llu, epoch %lld, batch %lld (step %lld): the %s loss is not "
                           "finite; ",
                           (unsigned long long)about_.seed, (long long)epoch, (long long)batch,
                           (long long)step, term) +
                    last_good());
}

std::string Trainer::last_good() const {
  if (progress_.best_epoch == 0) return "no epoch was completed, there is no checkpoint";
  return "the last good checkpoint is " + checkpoint_path() + " of epoch " +
         std::to_string(progress_.best_epoch);
}

// The weights may have become NaN in an epoch's last step, which no loss has seen.
Evaluation Trainer::validate(int64_t epoch) {
  try {
    return evaluate(dataset_.splits.at("valid"));
  } catch (const input_error& e) {
    throw input_error(
        format("seed %llu, epoch %lld (step %lld): validation: ", (unsigned long long)about_.seed,
               (long long)epoch, (long long)optimizer_.steps()) +
        e.what() + "; " + last_good());
  }
}

void Trainer::set_rates(int64_t step, int64_t steps) {
  const double warm = warmup_factor(config_, step, steps);
  for (size_t g = 0; g < rates_.size(); ++g)
    optimizer_.set_learning_rate(g, g == 0 ? rates_[g] : warm * rates_[g]);
}

// A step on a batch gathered on the host, run as it is.
StepLosses Trainer::eager_step(std::span<const int64_t> samples, int64_t part, int64_t parts) {
  gather(dataset_.splits.at("train"), samples, batch_);
  tape_.reset();
  if (part == 0) optimizer_.zero_grad();
  const RandomState random{about_.seed,
                           uint64_t(optimizer_.steps() * config_.accumulation_steps + part)};
  random_.upload({&random, 1});
  const Result result = network_.forward(tape_, batch_, random_.data());
  StepLosses losses;
  losses.transported = !result.transport.empty();
  const auto terms = step_terms(result);
  for (size_t i = 0; i < terms.size(); ++i)
    if (!terms[i].empty()) losses.values[i] = double(device_.read(terms[i], 0));
  if (losses.not_finite()) return losses;
  tape_.backward(result.total, real(1) / real(parts));
  if (part + 1 == parts) optimizer_.step();
  return losses;
}

Trainer::EpochLoss Trainer::train_epoch(int64_t epoch) {
  const std::vector<int64_t> order =
      shuffled(dataset_.splits.at("train").count(), about_.seed, uint64_t(epoch));
  const int64_t n = std::ssize(order), together = config_.accumulation_steps;
  const int64_t batches = (n + config_.batch_size - 1) / config_.batch_size;
  const int64_t steps = config_.num_epochs * ((batches + together - 1) / together);
  const int64_t first_step = optimizer_.steps();
  const auto start = std::chrono::steady_clock::now();
  EpochLoss loss;
  const auto finished = [&](const StepLosses& step) {
    const int64_t i = loss.batches++;
    require_finite(step, epoch, i + 1, first_step + i / together + 1);
    loss.total += step.total();
    if (step.transported) {
      loss.mass += step.mass();
      ++loss.transports;
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double left =
        seconds / double(i + 1) * double(batches - i - 1 + (config_.num_epochs - epoch) * batches);
    log_.progress(format(
        "epoch %lld  batch %lld/%lld  loss %.4f  %.0f samples/s  at most %s left", (long long)epoch,
        (long long)(i + 1), (long long)batches, loss.total / double(loss.batches),
        double(std::min(n, (i + 1) * config_.batch_size)) / seconds, clock_text(left).c_str()));
  };
  if (recorded_) recorded_->begin(order, {about_.seed, uint64_t(first_step * together)});
  for (int64_t i = 0; i < batches; ++i) {
    const int64_t first = i * config_.batch_size, count = std::min(config_.batch_size, n - first);
    const int64_t part = i % together;  // of the batches of one step
    const int64_t parts = std::min(together, batches - (i - part));
    if (part + 1 == parts) set_rates(optimizer_.steps(), steps);
    if (!recorded_) {
      finished(eager_step(std::span(order).subspan(size_t(first), size_t(count)), part, parts));
      continue;
    }
    recorded_->queue(count, part, parts);
    const bool full = i + 1 - loss.batches >= int64_t(RecordedSteps::kAhead);
    while (const auto losses = recorded_->receive(full)) {
      finished(*losses);
      if (full) break;
    }
  }
  while (recorded_ && loss.batches < batches) finished(*recorded_->receive(true));
  return loss;
}

void Trainer::run() {
  if (load_state())
    log_.line(format("resumed after epoch %lld from ", (long long)progress_.epoch) + state_path());
  const int64_t stop_patience = config_.early_stop_patience.value_or(config_.patience);
  while (progress_.epoch < config_.num_epochs &&
         (progress_.epoch == 0 || progress_.epoch - progress_.best_epoch < stop_patience)) {
    const int64_t epoch = progress_.epoch + 1;
    const auto start = std::chrono::steady_clock::now();
    const std::vector<double> rates = rates_;
    const EpochLoss loss = train_epoch(epoch);
    std::optional<AveragedWeights> averaged(std::in_place, network_.parameters(), optimizer_);
    const Evaluation valid = validate(epoch);
    const double value = selection_.value(valid.metrics, valid.loss);
    if (progress_.scheduler.step(scheduling_.value(valid.metrics, valid.loss)))
      for (double& rate : rates_) rate = progress_.scheduler.reduced(rate);
    const bool best = selection_.better(value, progress_.best_value);
    const double mass = loss.transports ? loss.mass / double(loss.transports) : 1;
    std::string line =
        format("seed %llu  epoch %lld  loss %.4f  valid %s %.4f  lr %.2g  %.1f s",
               (unsigned long long)about_.seed, (long long)epoch, loss.total / double(loss.batches),
               selection_.name.c_str(), value, rates[0],
               std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    if (loss.transports) line += format("  mass %.3f", mass);
    if (best) line += "  best";
    log_.line(line);
    if (std::exchange(arena_unknown_, false))
      log_.line(format("seed %llu  arena %.1f MB, the memory of a step",
                       (unsigned long long)about_.seed, double(tape_.capacity()) / 1e6));
    if (mass < 0.9)
      log_.warn(format(
          "only %.3f of the mass is transported: the clamped Sinkhorn loses it; set sinkhorn=log",
          mass));
    progress_.epoch = epoch;
    if (best) {
      progress_.best_epoch = about_.epoch = epoch;
      progress_.best_value = value;
      save_checkpoint(checkpoint_path(), network_, about_);
    }
    averaged.reset();
    save_state();
  }
  if (progress_.best_epoch == 0)
    throw input_error(folder_ + ": no epoch had a valid " + selection_.name +
                      " on the validation split");
  const Safetensors best(checkpoint_path());
  load_weights(network_.parameters(), best);
}

}  // namespace decalign::inline DECALIGN_REAL
