// Weights in and out of safetensors files, under the release's state_dict names.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data/safetensors.h"
#include "model/network.h"

namespace decalign::inline DECALIGN_REAL {

/// One TensorOut per parameter, over the parameters' own memory.
std::vector<TensorOut> weight_tensors(Parameters& parameters);

/// Throws input_error naming file and tensor if the parameter is missing as `name` or of another
/// shape.
void check_weight(const Parameter& p, const Safetensors& file, const std::string& name);

/// Copies one parameter from the file's tensor `name`. Throws input_error if it is missing or of
/// another shape.
void load_weight(Parameters& parameters, const Parameter& p, const Safetensors& file,
                 const std::string& name);

/// Copies every parameter from the file, whatever its float dtype; those of the text encoder only
/// `with_encoder`. Tensors of other parts (an encoder that the network does not have, stats.*,
/// optimizer.*) are left alone. Throws input_error naming file and tensor for one that is missing,
/// of another shape than the network's, or unknown.
void load_weights(Parameters& parameters, const Safetensors& file, bool with_encoder = true);

}  // namespace decalign::inline DECALIGN_REAL
