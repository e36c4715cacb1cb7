#include "model/frozen_text.h"

#include <algorithm>
#include <numeric>

#include "model/batches.h"
#include "model/bert.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kClips = 32;  // encoded together

// Writes sample n's features, hidden states of `rows`, into the split's text.
void store(const TokenRows& tokens, In hidden, int64_t b, TextFeatures kind, int64_t width,
           float* out) {
  const int64_t first = tokens.rows.begin(b), length = tokens.rows.length(b);
  const auto states = hidden.subspan(size_t(first * width), size_t(length * width));
  if (kind != TextFeatures::pooled) {
    std::transform(states.begin(), states.end(), out, [](real x) { return float(x); });
    return;
  }
  for (int64_t j = 0; j < width && length > 0; ++j) {
    double sum = 0;
    for (int64_t t = 0; t < length; ++t) sum += double(states[size_t(t * width + j)]);
    out[j] = float(sum / double(length));
  }
}

void encode_split(Sequences& text, Parameters& parameters, const BertConfig& config,
                  TextFeatures kind, Tape& tape) {
  const int64_t n = text.count, width = config.hidden_size;
  const int64_t steps = kind == TextFeatures::pooled ? 1 : text.steps;
  std::vector<float> values(size_t(n * steps * width), 0.0f);
  std::vector<int64_t> samples(static_cast<size_t>(n));
  std::iota(samples.begin(), samples.end(), int64_t(0));
  Split only_text;
  only_text.modalities.push_back(std::move(text));
  Batch batch;
  std::vector<int32_t> lengths;
  for (int64_t first = 0; first < n; first += kClips) {
    const int64_t count = std::min(kClips, n - first);
    gather(only_text, std::span(samples).subspan(size_t(first), size_t(count)), batch);
    tape.reset();
    const TokenRows tokens =
        token_rows(tape, batch.modalities[0], count, kind != TextFeatures::steps);
    BertOptions frozen;
    frozen.trained = false;
    const Tensor hidden = bert(tape, parameters, config, tokens, frozen);
    const std::vector<real> states = tape.device().read(hidden.value);
    for (int64_t b = 0; b < count; ++b) {
      store(tokens, states, b, kind, width, values.data() + (first + b) * steps * width);
      lengths.push_back(int32_t(kind == TextFeatures::pooled ? 1 : tokens.rows.length(b)));
    }
  }
  text = std::move(only_text.modalities[0]);
  text.values = std::move(values);
  text.steps = steps;
  text.width = width;
  if (kind != TextFeatures::steps) text.lengths = std::move(lengths);
  if (kind == TextFeatures::pooled) text.tokens.clear();
}

}  // namespace

TextFeatures frozen_features(const Config& config) {
  return config.mask_source == "lengths" ? TextFeatures::packed : TextFeatures::steps;
}

void encode_text(Dataset& dataset, const Pretrained& pretrained, TextFeatures kind,
                 const Device& device) {
  const Safetensors file(pretrained.weights());
  check_bert(pretrained.config, file);
  Parameters parameters;
  add_bert_parameters(parameters, pretrained.config, false);
  load_bert(parameters, file);
  parameters.move_to(device);
  Tape tape(device, false);
  for (auto& [name, split] : dataset.splits)
    for (Sequences& s : split.modalities)
      if (s.name == "text" && !s.tokens.empty())
        encode_split(s, parameters, pretrained.config, kind, tape);
}

}  // namespace decalign::inline DECALIGN_REAL
