#include "model/bert_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "data/utf8.h"

namespace decalign {
namespace {

using json = nlohmann::json;

// v(key, field, lowest, highest) for every key.
template <class C, class V>
void visit_bert_keys(C& c, V&& v) {
  constexpr double kMost = 1 << 24;
  v("vocab_size", c.vocab_size, 1, kMost);
  v("hidden_size", c.hidden_size, 1, kMost);
  v("num_hidden_layers", c.num_hidden_layers, 0, 1000);
  v("num_attention_heads", c.num_attention_heads, 1, kMost);
  v("intermediate_size", c.intermediate_size, 1, kMost);
  v("max_position_embeddings", c.max_position_embeddings, 1, kMost);
  v("type_vocab_size", c.type_vocab_size, 1, kMost);
  v("pad_token_id", c.pad_token_id, 0, kMost);
  v("hidden_dropout_prob", c.hidden_dropout_prob, 0, 0.999);
  v("attention_probs_dropout_prob", c.attention_probs_dropout_prob, 0, 0.999);
  v("layer_norm_eps", c.layer_norm_eps, 0, 1);
}

}  // namespace

BertConfig parse_bert_config(const json& source, const std::string& where) {
  if (!source.is_object()) throw input_error(where + ": a BERT's config is a JSON object");
  const auto wrong = [&](const std::string& key, const std::string& expected) {
    throw input_error(where + ": key \"" + key + "\" is " +
                      printable(source.at(key).dump().substr(0, 80)) + ", expected " + expected);
  };
  const auto must_be = [&](const char* key, const char* value) {
    const auto found = source.find(key);
    if (found != source.end() && !found->is_null() && *found != value)
      wrong(key, std::string("\"") + value + "\"");
  };
  must_be("model_type", "bert");
  must_be("hidden_act", "gelu");
  must_be("position_embedding_type", "absolute");
  BertConfig config;
  visit_bert_keys(config, [&]<class T>(const char* key, T& field, double lowest, double highest) {
    const auto found = source.find(key);
    if (found == source.end() || found->is_null()) return;
    const double value = found->is_number() ? found->template get<double>() : NAN;
    const bool whole = std::is_same_v<T, double> || value == std::floor(value);
    if (!(value >= lowest && value <= highest) || !whole)
      wrong(key, (std::is_same_v<T, double> ? "a number in [" : "a whole number in [") +
                     json(lowest).dump() + ", " + json(highest).dump() + "]");
    field = T(value);
  });
  if (config.hidden_size % config.num_attention_heads != 0)
    throw input_error(where + ": " + std::to_string(config.num_attention_heads) +
                      " num_attention_heads do not divide hidden_size " +
                      std::to_string(config.hidden_size));
  return config;
}

nlohmann::ordered_json to_json(const BertConfig& config) {
  nlohmann::ordered_json out;
  visit_bert_keys(config,
                  [&](const char* key, const auto& field, double, double) { out[key] = field; });
  return out;
}

}  // namespace decalign
