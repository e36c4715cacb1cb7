// Step size and decay of the network and of each part of its text encoder.
#pragma once

#include <optional>
#include <vector>

#include "model/bert_config.h"
#include "model/config.h"
#include "model/optimizer.h"

namespace decalign::inline DECALIGN_REAL {

/// Group 0 is the network, with `learning_rate`; with an encoder, group 1 its embeddings and group
/// 2 + i its layer i of L, with
///   (bert_learning_rate or learning_rate) * bert_layer_decay^(L - 1 - i), the embeddings' i = -1,
/// and bert_weight_decay, or else weight_decay.
std::vector<ParameterGroup> parameter_groups(const Config& config,
                                             const std::optional<BertConfig>& encoder,
                                             double learning_rate);

/// What the encoder's step sizes are multiplied by in step `step` of `steps`, counted from 0: they
/// rise in equal parts over the first bert_warmup * steps steps.
double warmup_factor(const Config& config, int64_t step, int64_t steps);

}  // namespace decalign::inline DECALIGN_REAL
