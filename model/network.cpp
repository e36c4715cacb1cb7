#include "model/network.h"

#include <algorithm>
#include <cmath>

#include "autograd/concat.h"
#include "autograd/conv1d.h"
#include "autograd/decoupling.h"
#include "autograd/dropout.h"
#include "autograd/mask.h"
#include "autograd/pooling.h"
#include "data/dataset.h"
#include "kernels/fill.h"
#include "model/bert.h"
#include "model/layout.h"
#include "model/step.h"

namespace decalign::inline DECALIGN_REAL {

Network::Network(const Config& config, std::vector<ModalitySize> sizes, const std::string& where,
                 std::optional<BertConfig> encoder)
    : config_(config), sizes_(std::move(sizes)), encoder_(std::move(encoder)) {
  if (sizes_.size() < 2)
    throw input_error(where + ": DecAlign needs at least two modalities, the data has " +
                      std::to_string(sizes_.size()));
  const auto& names = config_.active_modalities;
  for (const std::string& name : names)
    if (std::none_of(sizes_.begin(), sizes_.end(),
                     [&](const ModalitySize& s) { return s.name == name; }))
      throw input_error(where + ": key \"active_modalities\" names \"" + name +
                        "\", which the data does not have");
  for (size_t m = 0; m < sizes_.size(); ++m) {
    const ModalitySize& s = sizes_[m];
    if (names.empty() || std::find(names.begin(), names.end(), s.name) != names.end())
      active_.push_back(m);
    const int64_t kernel = config_.kernel_size(s.name);
    if (encoder_ && s.name == "text" && s.steps > encoder_->max_position_embeddings)
      throw input_error(where + ": text has " + std::to_string(s.steps) +
                        " tokens, the encoder takes " +
                        std::to_string(encoder_->max_position_embeddings));
    if (projected(m) && kernel > s.steps)
      throw input_error(where + ": key \"conv1d_kernel_size_" + modality_suffix(s.name) + "\" is " +
                        std::to_string(kernel) + ", longer than the " + std::to_string(s.steps) +
                        " steps of " + s.name);
  }
  add_parameters();
}

void Network::set_class_weights(std::vector<real> weights) {
  class_weights_ = std::move(weights);
  device_class_weights_ = Buffer<real>(parameters_.device(), In(class_weights_));
}

void Network::move_to(const Device& device) {
  parameters_.move_to(device);
  set_class_weights(std::move(class_weights_));
}

void Network::add_parameters() {
  const int64_t d = config_.width(), p = config_.pde_width();
  const bool aligned = active_.size() == sizes_.size();
  const auto is_active = [&](size_t m) {
    return std::find(active_.begin(), active_.end(), m) != active_.end();
  };
  // PyTorch's start of Conv1d and Linear: uniform within 1 / sqrt(inputs of one output).
  const auto weight = [&](const std::string& name, const Shape& shape, bool trained) {
    const double inputs = double(element_count(shape) / shape[0]);
    parameters_.add({name + ".weight", shape, 0, 1 / std::sqrt(inputs), 0, trained});
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool trained,
                          bool zero_bias = false) {
    const double bound = 1 / std::sqrt(double(in));
    weight(name, {out, in}, trained);
    parameters_.add({name + ".bias", {out}, 0, zero_bias ? 0 : bound, 0, trained});
  };
  const auto norm = [&](const std::string& name, bool trained) {
    parameters_.add({name + ".weight", {d}, 0, 0, 1, trained});
    parameters_.add({name + ".bias", {d}, 0, 0, 0, trained});
  };
  const auto suffix = [&](size_t m) { return modality_suffix(sizes_[m].name); };

  if (encoder_) {
    bool read = config_.use_finetune;
    for (size_t m = 0; m < sizes_.size(); ++m)
      if (sizes_[m].name == "text") read = read && is_active(m);
    add_bert_parameters(parameters_, *encoder_, read);
  }
  for (size_t m = 0; m < sizes_.size(); ++m) {
    const int64_t kernel = config_.kernel_size(sizes_[m].name), width = sizes_[m].width;
    weight("proj_" + suffix(m), {d, width, kernel}, is_active(m) && projected(m));
  }
  for (size_t m = 0; m < sizes_.size(); ++m)
    weight("encoder_uni_" + suffix(m), {d, d, 1}, is_active(m));
  weight("encoder_com", {d, d, 1}, true);
  for (size_t m = 0; m < sizes_.size(); ++m) {
    for (int64_t l = 0; l < config_.nlevels; ++l) {
      const std::string layer = "trans_" + suffix(m) + ".layers." + std::to_string(l) + ".";
      const bool t = is_active(m);
      const double xavier = std::sqrt(6.0 / double(4 * d));
      parameters_.add({layer + "self_attn.in_proj_weight", {3 * d, d}, 0, xavier, 0, t});
      parameters_.add({layer + "self_attn.in_proj_bias", {3 * d}, 0, 0, 0, t});
      linear(layer + "self_attn.out_proj", d, d, t, true);
      norm(layer + "attn_layer_norm", t);
      linear(layer + "fc1", 4 * d, d, t);
      linear(layer + "fc2", d, 4 * d, t);
      norm(layer + "final_layer_norm", t);
    }
  }
  for (size_t m = 0; m < sizes_.size(); ++m) {
    linear("pde_" + suffix(m) + ".net.0", d, d, aligned);
    linear("pde_" + suffix(m) + ".net.3", p, d, aligned);
  }
  linear("out_layer", config_.outputs(), 2 * std::ssize(sizes_) * d, true);
}

// Token ids -> features [B, T, hidden]. Packed, `lengths` receives the number of attended tokens,
// which come first, and the rest is 0.
Tensor Network::encode(Step& step, const BatchModality& text, int64_t batch, bool packed,
                       std::vector<int64_t>& lengths) {
  Tape& tape = step.tape;
  const TokenRows tokens = token_rows(tape, text, batch, packed);
  BertOptions options;
  options.trained = config_.use_finetune;
  options.recompute = config_.checkpoint_activations;
  options.dropout = [&](double rate) { return step.dropout(rate); };
  Tensor x = bert(tape, parameters_, *encoder_, tokens, options);
  const int64_t rows = batch * text.steps;
  if (packed) {  // to the rows that a convolution expects
    std::vector<RowCopy> copies;
    std::vector<real> mask(static_cast<size_t>(rows));
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t length = tokens.rows.length(b), first = b * text.steps;
      lengths.push_back(length);
      copies.push_back({tokens.rows.begin(b), first, length});
      for (int64_t t = 0; t < text.steps; ++t) mask[size_t(first + t)] = t < length ? 1 : 0;
      // Any row, for the mask to clear.
      for (int64_t t = length; t < text.steps; ++t) copies.push_back({0, first + t, 1});
    }
    if (tokens.rows.total() == 0) {
      x = tape.make({rows, encoder_->hidden_size}, false);
      tape.run([&](const auto& be) { fill(be, 0, x.value); });
    } else {
      x = mask_rows(tape, embed(tape, x, copies, rows, 1, {}), tape.upload<real>(mask));
    }
  }
  x.shape = {batch, text.steps, encoder_->hidden_size};
  return x;
}

// x_m -> projected rows [R, d]; sets the step's rows and mask.
Tensor Network::project(Step& step, const Batch& batch) {
  Tape& tape = step.tape;
  const bool by_length = config_.mask_source == "lengths";
  const int64_t modalities = std::ssize(active_), batch_size = batch.count;
  std::vector<int64_t> lengths;
  std::vector<const BatchModality*> inputs;
  std::vector<In> values;
  std::vector<bool> masked;
  std::vector<Conv1dPart> parts;
  int64_t shortest = INT64_MAX;
  for (size_t m : active_) {
    const BatchModality& input = batch.modalities[m];
    const int64_t steps =
        input.steps - (projected(m) ? config_.kernel_size(sizes_[m].name) - 1 : 0);
    shortest = std::min(shortest, steps);
    std::vector<int64_t> given(input.lengths.begin(), input.lengths.end());
    Tensor features;
    if (input.values().empty() && !input.tokens.empty()) {
      if (by_length) given.clear();
      features = encode(step, input, batch_size, by_length, given);
    } else {
      // Data: never written through and without a gradient.
      const In x = on_device(tape, input.device_x, In(input.x));
      features = tape.leaf({batch_size, input.steps, input.width},
                           Out(const_cast<real*>(x.data()), x.size()));
    }
    for (int64_t b = 0; b < batch_size; ++b)
      lengths.push_back(by_length ? std::min(given[size_t(b)], steps) : steps);
    inputs.push_back(&input);
    values.push_back(features.value);
    masked.push_back(sizes_[m].name != "text" || !input.tokens.empty());
    if (sizes_[m].name == "text")
      features = dropout(tape, features, step.dropout(config_.text_dropout));
    const Tensor weight =
        projected(m) ? parameters_.on(tape, "proj_" + modality_suffix(sizes_[m].name) + ".weight")
                     : Tensor{};
    parts.push_back({features, weight});
  }
  step.rows = make_rows(tape, modalities, batch_size, lengths);
  Tensor x = conv1d(tape, step.rows, parts, config_.width());
  if (!by_length && config_.use_sequence_mask) {
    step.mask = zero_step_mask(tape, step.rows, inputs, values, masked);
    x = mask_rows(tape, x, step.mask);
  }
  if (config_.temporal_length != 0) {
    const int64_t steps = config_.temporal_length < 0 ? shortest : config_.temporal_length;
    const Rows to = make_rows(tape, modalities, batch_size,
                              std::vector<int64_t>(size_t(modalities * batch_size), steps));
    x = temporal_pooling(tape, step.rows, to, x);
    step.rows = to;
    step.mask = {};
  }
  return x;
}

Result Network::forward(Tape& tape, const Batch& batch, const RandomState* random) {
  expect(batch.count >= 1 && batch.modalities.size() == sizes_.size(),
         "Network::forward: modalities of the batch");
  for (size_t m = 0; m < sizes_.size(); ++m) {
    const BatchModality& input = batch.modalities[m];
    const bool tokens = encoder_ && sizes_[m].name == "text" && input.values().empty();
    expect(input.width == sizes_[m].width &&
               (tokens ? std::ssize(input.tokens) == 3 * batch.count * input.steps
                       : std::ssize(input.values()) == batch.count * input.steps * input.width) &&
               (config_.mask_source != "lengths" || std::ssize(input.lengths) == batch.count),
           "Network::forward: sizes of the batch");
  }
  Step step{tape, random};
  const int64_t d = config_.width();
  const Tensor x = project(step, batch);
  const int64_t total = step.rows.total();
  const auto weight_of = [&](const std::string& stem) {
    return [&, stem](size_t m) {
      MatmulPart part;
      part.weight =
          parameters_.on(tape, stem + modality_suffix(sizes_[active_[m]].name) + ".weight");
      part.weight.shape = {d, d};  // a convolution of one tap
      return part;
    };
  };
  const Tensor unique = matmul(tape, x, step.per_modality(d, weight_of("encoder_uni_")), total, d);
  MatmulPart shared;
  shared.rows = total;
  shared.n = d;
  shared.weight = parameters_.on(tape, "encoder_com.weight");
  shared.weight.shape = {d, d};
  const Tensor common = matmul(tape, x, std::span(&shared, 1), total, d);

  Result result;
  const std::vector<uint8_t> all(active_.size(), 1);
  result.dec = decoupling(
      tape, step.rows, unique, common, all,
      config_.dec_loss == "cos_sum" ? DecouplingLoss::cos_sum : DecouplingLoss::cos2_mean);
  const Tensor pooled_common = pooling(tape, step.rows, common, step.mask);
  if (active_.size() == sizes_.size()) {
    align(step, pooling(tape, step.rows, unique, step.mask), pooled_common, result);
  } else {
    for (Tensor* term : {&result.hete, &result.homo}) {
      *term = tape.make({1}, false);
      tape.run([&](const auto& be) { fill(be, 0, term->value); });
    }
  }
  const Tensor pooled_unique = pooling(tape, step.rows, transformers(step, unique), step.mask);

  std::vector<uint8_t> active(sizes_.size(), 0);
  for (size_t m : active_) active[m] = 1;
  result.final_rep = concat(tape, std::vector<Tensor>{pooled_unique, pooled_common}, active);
  MatmulPart head;
  head.rows = batch.count;
  head.n = config_.outputs();
  head.weight = parameters_.on(tape, "out_layer.weight");
  head.bias = parameters_.on(tape, "out_layer.bias");
  const Tensor dropped = dropout(tape, result.final_rep, step.dropout(config_.output_dropout));
  result.logits = matmul(tape, dropped, std::span(&head, 1), batch.count, head.n);
  if (!batch.labels.empty() || !batch.device_labels.empty()) losses(step, batch, result);
  return result;
}

}  // namespace decalign::inline DECALIGN_REAL
