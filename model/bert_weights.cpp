// The text encoder's parameters, and the tensors of a file that they come from.
#include <set>

#include "model/bert.h"
#include "model/checkpoint.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

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

void check_bert(const BertConfig& config, const Safetensors& file, bool as_checkpoint) {
  for (const Parameter& p : bert_parameters(config, false))
    check_weight(p, file, as_checkpoint ? p.name : stored_name(file, p.name));
}

void load_bert(Parameters& parameters, const Safetensors& file) {
  for (const Parameter& p : parameters.list())
    if (p.name.starts_with(kEncoderPrefix))
      load_weight(parameters, p, file, stored_name(file, p.name));
  parameters.push();
}

std::vector<std::string> unused_bert_weights(const BertConfig& config, const Safetensors& file) {
  std::set<std::string> names;
  for (const auto& [name, view] : file.tensors()) names.insert(name);
  for (const Parameter& p : bert_parameters(config, false)) names.erase(stored_name(file, p.name));
  return {names.begin(), names.end()};
}

}  // namespace decalign::inline DECALIGN_REAL
