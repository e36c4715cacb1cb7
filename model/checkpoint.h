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

/// Copies every parameter from the file, whatever its float dtype. Tensors of other parts
/// (text_model.*, stats.*, optimizer.*) are left alone. Throws input_error naming file and tensor
/// for one that is missing, of another shape than the network's, or unknown.
void load_weights(Parameters& parameters, const Safetensors& file);

}  // namespace decalign::inline DECALIGN_REAL
