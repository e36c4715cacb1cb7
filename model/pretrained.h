// A pretrained text encoder on disk: where it lies, its sizes, its vocabulary.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/wordpiece.h"
#include "model/bert_config.h"

namespace decalign {

/// A Hugging Face folder with config.json and model.safetensors, and vocab.txt where text is to be
/// split.
struct Pretrained {
  std::string folder;
  BertConfig config;
  std::shared_ptr<const WordPiece> tokenizer;  ///< null without vocab.txt

  std::string weights() const { return folder + "/model.safetensors"; }
};

/// Where `pretrained` may lie: itself if it is a folder; below `beside` and `model_dir`, where they
/// are not empty; in the Hugging Face cache ($HF_HUB_CACHE, $HF_HOME/hub,
/// $XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub) as models--NAME or
/// models--google-bert--NAME, the revision that refs/main names or else the last by name.
/// Nothing is ever downloaded.
std::vector<std::string> pretrained_places(const std::string& pretrained,
                                           const std::string& model_dir,
                                           const std::string& beside = {});

/// The first place that has a config.json, or an empty string.
std::string find_pretrained(const std::vector<std::string>& places);

/// One line: which encoder was not found, where it was looked for, how to get it.
std::string not_found(const std::string& pretrained, const std::vector<std::string>& places);

/// Whether `pretrained` can only be meant as a folder: then it is a mistake if there is none.
bool is_path(const std::string& pretrained);

/// Reads config.json and vocab.txt. Throws input_error naming the file.
Pretrained open_pretrained(const std::string& folder);

}  // namespace decalign
