// Test helpers: what a training run leaves behind.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/safetensors.h"
#include "kernels/types.h"
#include "model/config.h"

namespace decalign::inline DECALIGN_REAL::test {

inline std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline nlohmann::json details(const std::string& file) {
  return nlohmann::json::parse(Safetensors(file).metadata().at("decalign"));
}

/// Copies a safetensors file with one entry of its metadata changed.
inline void with_metadata(const std::string& from, const std::string& to, const std::string& key,
                          const std::string& value) {
  const Safetensors file(from);
  std::vector<std::vector<double>> values;
  std::vector<TensorOut> tensors;
  for (const auto& [name, view] : file.tensors()) values.push_back(file.doubles(name));
  std::vector<std::vector<real>> narrow;
  for (const auto& v : values) narrow.emplace_back(v.begin(), v.end());
  size_t i = 0;
  for (const auto& [name, view] : file.tensors()) {
    if (name == "optimizer.numbers")
      tensors.push_back(tensor_out<double>(name, view.shape, values[i]));
    else
      tensors.push_back(tensor_out<real>(name, view.shape, In(narrow[i])));
    ++i;
  }
  auto metadata = file.metadata();
  metadata[key] = value;
  save_safetensors(to, std::move(tensors), metadata);
}

/// The run `from` as it stood after its last epoch, as if it had been asked for `config`.
inline void continue_as(const std::string& from, const std::string& to, const Config& config) {
  std::filesystem::create_directories(to);
  for (const char* name : {"/checkpoint.safetensors", "/state.safetensors"})
    with_metadata(from + name, to + name, "config", to_json(config).dump());
}

}  // namespace decalign::inline DECALIGN_REAL::test
