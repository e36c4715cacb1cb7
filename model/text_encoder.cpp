#include "model/text_encoder.h"

#include "data/file_hash.h"

namespace decalign {

std::optional<TextEncoder> find_text_encoder(const Config& config, const std::string& model_dir,
                                             std::string& warning) {
  if (!config.use_bert) return std::nullopt;
  if (config.pretrained.empty()) {
    warning = "key \"pretrained\" names no text encoder";
    return std::nullopt;
  }
  const auto places = pretrained_places(config.pretrained, model_dir);
  const std::string folder = find_pretrained(places);
  if (folder.empty()) {
    warning = not_found(config.pretrained, places);
    if (is_path(config.pretrained)) throw input_error(warning);
    return std::nullopt;
  }
  TextEncoder encoder{open_pretrained(folder), {}};
  if (!config.use_finetune)
    encoder.frozen = FrozenEncoder{folder, sha256_of(encoder.pretrained.weights())};
  return encoder;
}

TextEncoder frozen_text_encoder(const Config& config, const FrozenEncoder& recorded,
                                const std::string& model_dir, const std::string& where) {
  auto places = pretrained_places(config.pretrained, model_dir);
  places.push_back(recorded.folder);
  const std::string folder = find_pretrained(places);
  if (folder.empty()) throw input_error(where + ": " + not_found(config.pretrained, places));
  TextEncoder encoder{open_pretrained(folder), recorded};
  if (sha256_of(encoder.pretrained.weights()) != recorded.sha256)
    throw input_error(encoder.pretrained.weights() + ": is not the encoder that " + where +
                      " was trained with (its sha256 is " + recorded.sha256 + ")");
  return encoder;
}

}  // namespace decalign
