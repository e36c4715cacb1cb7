#include "model/bert.h"

#include <memory>
#include <set>

#include "autograd/attention.h"
#include "autograd/dropout.h"
#include "autograd/embedding.h"
#include "autograd/gelu.h"
#include "autograd/layer_norm.h"
#include "autograd/matmul.h"
#include "autograd/recomputed.h"
#include "model/checkpoint.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

/// One forward pass: parameters as inputs of the step, dense layers and norms on all rows.
struct Encoder {
  Parameters& parameters;
  const BertConfig& config;
  const TokenRows& tokens;
  bool trained;

  Tensor on(Tape& tape, const std::string& name) const {
    Tensor t = parameters.on(tape, kEncoderPrefix + name);
    if (!trained) t.node = -1;
    return t;
  }
  MatmulPart part(Tape& tape, const std::string& stem, int64_t column = 0) const {
    MatmulPart p;
    p.rows = tokens.rows.total();
    p.y_col = column;
    p.weight = on(tape, stem + ".weight");
    p.bias = on(tape, stem + ".bias");
    return p;
  }
  Tensor dense(Tape& tape, const Tensor& x, const std::string& stem) const {
    const MatmulPart p = part(tape, stem);
    return matmul(tape, x, std::span(&p, 1), x.shape[0], p.weight.shape[0]);
  }
  Tensor norm(Tape& tape, const Tensor& x, const Tensor& z, const std::string& stem,
              const Dropout& dropout) const {
    const LayerNormPart p{0, x.shape[0], on(tape, stem + ".weight"), on(tape, stem + ".bias")};
    return layer_norm(tape, x, z, std::span(&p, 1), dropout, config.layer_norm_eps);
  }

  Tensor embeddings(Tape& tape, const Dropout& dropped) const {
    const std::vector<EmbeddingPart> tables{
        {tokens.ids, on(tape, "embeddings.word_embeddings.weight"), int32_t(config.pad_token_id)},
        {tokens.segments, on(tape, "embeddings.token_type_embeddings.weight")},
        {tokens.positions, on(tape, "embeddings.position_embeddings.weight")}};
    const Tensor sum = embedding(tape, tables);
    return dropout(tape, norm(tape, sum, {}, "embeddings.LayerNorm", {}), dropped);
  }

  struct LayerDropout {
    Dropout weights, attended, dense;
  };
  Tensor layer(Tape& tape, const Tensor& x, int64_t index, const LayerDropout& dropout) const {
    const std::string stem = "encoder.layer." + std::to_string(index) + ".";
    const std::string self = stem + "attention.self.", output = stem + "attention.output.";
    const int64_t width = config.hidden_size;
    const std::vector<MatmulPart> projections{part(tape, self + "query", 0),
                                              part(tape, self + "key", width),
                                              part(tape, self + "value", 2 * width)};
    const Tensor qkv = matmul(tape, x, projections, x.shape[0], 3 * width);
    AttentionShape shape;
    shape.queries = tokens.rows;
    shape.width = width;
    shape.heads = config.num_attention_heads;
    shape.ranges = tokens.keys;
    shape.ranges_per_sequence = tokens.ranges_per_sequence;
    shape.dropout = std::span(&dropout.weights, 1);
    const Tensor attended = attention(tape, shape, qkv, qkv, width, qkv, 2 * width);
    const Tensor mixed = norm(tape, x, dense(tape, attended, output + "dense"),
                              output + "LayerNorm", dropout.attended);
    const Tensor hidden = gelu(tape, dense(tape, mixed, stem + "intermediate.dense"));
    return norm(tape, mixed, dense(tape, hidden, stem + "output.dense"), stem + "output.LayerNorm",
                dropout.dense);
  }
};

void check_ids(std::span<const int32_t> ids, int64_t entries, const char* what) {
  for (const int32_t id : ids)
    if (id < 0 || id >= entries)
      throw input_error(std::string("text encoder: ") + what + " " + std::to_string(id) +
                        " is outside [0, " + std::to_string(entries) + ")");
}

// The name that a file of pretrained weights has for a parameter of ours.
std::string stored_name(const Safetensors& file, const std::string& parameter) {
  const std::string name = parameter.substr(std::string(kEncoderPrefix).size());
  std::string older = name;
  for (const auto& [now, then] : {std::pair("LayerNorm.weight", "LayerNorm.gamma"),
                                  std::pair("LayerNorm.bias", "LayerNorm.beta")})
    if (name.ends_with(now))
      older.replace(name.size() - std::string(now).size(), std::string::npos, then);
  for (const std::string& candidate : {name, "bert." + name, older, "bert." + older})
    if (file.has(candidate)) return candidate;
  return name;
}

}  // namespace

std::vector<Parameter> bert_parameters(const BertConfig& config, bool trained) {
  // Overwritten by the pretrained weights; BERT's own start but for its normal distribution.
  constexpr double kBound = 0.02;
  int group = 1;
  std::vector<Parameter> list;
  const auto add = [&](const std::string& name, const Shape& shape, double bound, double start) {
    Parameter p{kEncoderPrefix + name, shape, 0, bound, start, trained};
    p.group = group;
    list.push_back(std::move(p));
  };
  const auto linear = [&](const std::string& stem, int64_t out, int64_t in) {
    add(stem + ".weight", {out, in}, kBound, 0);
    add(stem + ".bias", {out}, 0, 0);
  };
  const int64_t width = config.hidden_size;
  const auto norm = [&](const std::string& stem) {
    add(stem + ".weight", {width}, 0, 1);
    add(stem + ".bias", {width}, 0, 0);
  };
  add("embeddings.word_embeddings.weight", {config.vocab_size, width}, kBound, 0);
  add("embeddings.position_embeddings.weight", {config.max_position_embeddings, width}, kBound, 0);
  add("embeddings.token_type_embeddings.weight", {config.type_vocab_size, width}, kBound, 0);
  norm("embeddings.LayerNorm");
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    group = int(2 + i);
    const std::string stem = "encoder.layer." + std::to_string(i) + ".";
    for (const char* name : {"query", "key", "value"})
      linear(stem + "attention.self." + name, width, width);
    linear(stem + "attention.output.dense", width, width);
    norm(stem + "attention.output.LayerNorm");
    linear(stem + "intermediate.dense", config.intermediate_size, width);
    linear(stem + "output.dense", width, config.intermediate_size);
    norm(stem + "output.LayerNorm");
  }
  return list;
}

void add_bert_parameters(Parameters& parameters, const BertConfig& config, bool trained) {
  for (Parameter& p : bert_parameters(config, trained)) parameters.add(std::move(p));
}

Tensor bert(Tape& tape, Parameters& parameters, const BertConfig& config, const TokenRows& tokens,
            const BertOptions& options) {
  check_ids(tokens.ids, config.vocab_size, "token id");
  check_ids(tokens.segments, config.type_vocab_size, "segment id");
  check_ids(tokens.positions, config.max_position_embeddings, "position");
  const auto next = [&](double rate) {
    return options.dropout ? options.dropout(rate) : Dropout{};
  };
  const Encoder encoder{parameters, config, tokens, options.trained};
  Tensor x = encoder.embeddings(tape, next(config.hidden_dropout_prob));
  // What outlives this call for the way back.
  const auto later = options.recompute && tape.recording()
                         ? std::make_shared<const std::pair<BertConfig, TokenRows>>(config, tokens)
                         : nullptr;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const Encoder::LayerDropout dropout{next(config.attention_probs_dropout_prob),
                                        next(config.hidden_dropout_prob),
                                        next(config.hidden_dropout_prob)};
    if (!later || !options.trained) {
      x = encoder.layer(tape, x, i, dropout);
      continue;
    }
    x = recomputed(tape, x, [&parameters, later, i, dropout](Tape& inner, const Tensor& in) {
      return Encoder{parameters, later->first, later->second, true}.layer(inner, in, i, dropout);
    });
  }
  return x;
}

void check_bert(const BertConfig& config, const Safetensors& file, bool as_checkpoint) {
  for (const Parameter& p : bert_parameters(config, false))
    check_weight(p, file, as_checkpoint ? p.name : stored_name(file, p.name));
}

void load_bert(Parameters& parameters, const Safetensors& file) {
  for (const Parameter& p : parameters.list())
    if (p.name.starts_with(kEncoderPrefix))
      load_weight(parameters, p, file, stored_name(file, p.name));
}

std::vector<std::string> unused_bert_weights(const BertConfig& config, const Safetensors& file) {
  std::set<std::string> names;
  for (const auto& [name, view] : file.tensors()) names.insert(name);
  for (const Parameter& p : bert_parameters(config, false)) names.erase(stored_name(file, p.name));
  return {names.begin(), names.end()};
}

}  // namespace decalign::inline DECALIGN_REAL
