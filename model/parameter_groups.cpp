#include "model/parameter_groups.h"

#include <algorithm>
#include <cmath>

namespace decalign::inline DECALIGN_REAL {

std::vector<ParameterGroup> parameter_groups(const Config& config,
                                             const std::optional<BertConfig>& encoder,
                                             double learning_rate) {
  ParameterGroup network;
  network.options.weight_decay = config.weight_decay;
  network.options.clip = config.clip;
  network.learning_rate = learning_rate;
  std::vector<ParameterGroup> groups{network};
  if (!encoder) return groups;
  ParameterGroup part = network;
  part.options.weight_decay = config.bert_weight_decay.value_or(config.weight_decay);
  for (int64_t below = encoder->num_hidden_layers; below >= 0; --below) {
    part.learning_rate = config.bert_learning_rate.value_or(learning_rate) *
                         std::pow(config.bert_layer_decay, double(below));
    groups.push_back(part);
  }
  return groups;
}

double warmup_factor(const Config& config, int64_t step, int64_t steps) {
  const double rise = std::floor(config.bert_warmup * double(steps));
  return rise > 0 ? std::min(1.0, double(step + 1) / rise) : 1.0;
}

}  // namespace decalign::inline DECALIGN_REAL
