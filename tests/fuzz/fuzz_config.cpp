// Fuzz target: any bytes as a JSON config; what is accepted must survive being written and read
// again; the first line also as key=value of a command line.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "data/dataset.h"
#include "model/config.h"

using namespace decalign;

namespace {

/// Aborts if an accepted config does not come back from its own JSON.
void parse(const nlohmann::json& json) {
  Config config;
  try {
    config = parse_config(json, "fuzz.json");
  } catch (const input_error& e) {
    if (std::string_view(e.what()).find('\n') != std::string_view::npos) std::abort();
    return;
  }
  const std::string text = to_json(config).dump();
  if (to_json(parse_config(nlohmann::json::parse(text), "again")).dump() != text) std::abort();
  (void)config.kernel_size("thermal");
  (void)config.attention_dropout("audio");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) {
    json = nlohmann::json::object();
    try {
      for (size_t begin = 0; begin < size;) {
        const size_t end = std::min(text.find('\n', begin), size);
        apply_override(json, std::string(text.substr(begin, end - begin)));
        begin = end + 1;
      }
    } catch (const input_error&) {
      return 0;
    }
  }
  parse(json);
  return 0;
}
