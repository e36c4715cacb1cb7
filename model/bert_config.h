// The sizes of a BERT, as its config.json has them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/dataset.h"

namespace decalign {

/// Fields carry Hugging Face's names and defaults (transformers.BertConfig).
struct BertConfig {
  int64_t vocab_size = 30522, hidden_size = 768, num_hidden_layers = 12, num_attention_heads = 12,
          intermediate_size = 3072, max_position_embeddings = 512, type_vocab_size = 2,
          pad_token_id = 0;
  double hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1, layer_norm_eps = 1e-12;
};

/// Reads config.json's object; other keys are left alone. Throws input_error that starts with
/// `where` and names the key for a wrong type, a value out of range, heads that do not divide the
/// width, and for what this encoder is not: another activation than gelu, relative positions,
/// another model_type.
BertConfig parse_bert_config(const nlohmann::json& json, const std::string& where);

nlohmann::ordered_json to_json(const BertConfig& config);

}  // namespace decalign
