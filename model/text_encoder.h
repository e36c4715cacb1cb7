// The pretrained encoder of a run: found, checked, applied once where it is frozen.
#pragma once

#include <optional>
#include <string>

#include "model/config.h"
#include "model/pretrained.h"

namespace decalign {

/// Which file a frozen encoder's features came from.
struct FrozenEncoder {
  std::string folder;
  std::string sha256;  ///< of its model.safetensors
};

struct TextEncoder {
  Pretrained pretrained;
  std::optional<FrozenEncoder> frozen;  ///< use_finetune false
};

/// The encoder that the config asks for, or nothing: use_bert is off, or `pretrained` names one
/// that is not to be had; then `warning` says where it was looked for. Throws input_error if it is
/// there and malformed, or is named by a path that does not exist.
std::optional<TextEncoder> find_text_encoder(const Config& config, const std::string& model_dir,
                                             std::string& warning);

/// The frozen encoder of a checkpoint: the config's, else the recorded folder. Throws input_error
/// if there is none or its weights are not the recorded ones.
TextEncoder frozen_text_encoder(const Config& config, const FrozenEncoder& recorded,
                                const std::string& model_dir, const std::string& where);

}  // namespace decalign
