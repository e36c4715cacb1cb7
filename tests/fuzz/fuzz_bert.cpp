// Fuzz target: a config.json, 0xff, and a model.safetensors, as a pretrained folder has them: what
// is accepted survives being written and read again, and the weights that fit are the file's.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "model/bert.h"

namespace {

using namespace decalign;

void require(bool holds) {
  if (!holds) std::abort();
}

/// Whether the call went through; an error must be one line.
template <class F>
bool accepted(const F& call) {
  try {
    call();
    return true;
  } catch (const input_error& e) {
    require(std::string_view(e.what()).find('\n') == std::string_view::npos);
    return false;
  }
}

/// A small encoder for safetensors whose config is not one.
BertConfig tiny() {
  BertConfig config;
  config.vocab_size = 3;
  config.hidden_size = 2;
  config.num_hidden_layers = config.num_attention_heads = 1;
  config.intermediate_size = config.max_position_embeddings = 2;
  config.type_vocab_size = 1;
  return config;
}

void read_weights(const BertConfig& config, const Safetensors& file) {
  const std::vector<std::string> unused = unused_bert_weights(config, file);
  require(unused.size() <= file.tensors().size());
  if (!accepted([&] { check_bert(config, file); })) return;
  const std::vector<Parameter> list = bert_parameters(config, true);
  require(unused.size() + list.size() == file.tensors().size());
  Parameters parameters;
  add_bert_parameters(parameters, config, true);
  require(accepted([&] { load_bert(parameters, file); }));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\xff'), size);
  const auto json = nlohmann::json::parse(input.substr(0, cut), nullptr, false);
  BertConfig config = tiny();
  if (!json.is_discarded() && accepted([&] { config = parse_bert_config(json, "config.json"); })) {
    const std::string text = to_json(config).dump();
    require(to_json(parse_bert_config(nlohmann::json::parse(text), "again")).dump() == text);
  }
  if (cut == size) return 0;
  const std::string_view rest = input.substr(cut + 1);
  const ByteView source{std::as_bytes(std::span(rest)), "model.safetensors", nullptr};
  accepted([&] {
    const Safetensors file(source);
    read_weights(config, file);
    (void)accepted([&] { check_bert(config, file, true); });
  });
  return 0;
}
