// The text encoder: BERT (Devlin et al. 2019) as Hugging Face's BertModel computes it, without its
// pooler.
#pragma once

#include <functional>

#include "data/safetensors.h"
#include "model/bert_config.h"
#include "model/parameters.h"
#include "model/tokens.h"

namespace decalign::inline DECALIGN_REAL {

/// What the release puts before the encoder's own parameter names.
inline constexpr const char* kEncoderPrefix = "text_model.model.";

/// The encoder's parameters: group 1 holds the embeddings, group 2 + i layer i.
std::vector<Parameter> bert_parameters(const BertConfig&, bool trained);
void add_bert_parameters(Parameters&, const BertConfig&, bool trained);

struct BertOptions {
  bool trained = true;     ///< false: no gradient is computed
  bool recompute = false;  ///< keep a layer's input only, compute the layer again on the way back
  std::function<Dropout(double rate)> dropout;  ///< the next dropout op; empty: none
};

/// Hidden states of the last layer, [R, hidden_size]:
///   x = drop(LN(word[id] + type[segment] + position[t])); per layer
///   x = LN(x + drop(W_o MHA(x) + b_o));  x = LN(x + drop(W_2 gelu(W_1 x + b_1) + b_2)).
/// Throws input_error for an id, segment or position outside its table.
Tensor bert(Tape&, Parameters&, const BertConfig&, const TokenRows&, const BertOptions&);

/// Throws input_error naming file and tensor if a weight is missing or of another shape: before
/// memory is taken for whatever sizes a config.json claims. `as_checkpoint`: under the release's
/// names, as a checkpoint has them.
void check_bert(const BertConfig&, const Safetensors& file, bool as_checkpoint = false);

/// Copies the weights of a BertModel's file, whatever its float type: names with or without
/// `bert.`, layer norms as weight / bias or gamma / beta. Throws input_error naming file and tensor
/// for one that is missing or of another shape.
void load_bert(Parameters&, const Safetensors& file);

/// The file's tensors that the encoder does not use: pooler, heads.
std::vector<std::string> unused_bert_weights(const BertConfig&, const Safetensors& file);

}  // namespace decalign::inline DECALIGN_REAL
