#include "tools/cli/run.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/atomic_file.h"
#include "data/dataset.h"
#include "model/prepare.h"

namespace decalign {
namespace {

namespace fs = std::filesystem;

void write_text(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string config_folder() {
  const char* given = std::getenv("DECALIGN_CONFIGS");
  return given ? given : DECALIGN_CONFIG_DIR;
}

}  // namespace

Config resolve_config(const std::string& dataset, const std::string& config_file,
                      const std::vector<std::string>& overrides) {
  const std::string name = dataset_alias(dataset);
  std::string path = config_file;
  if (path.empty()) {
    path = config_folder() + "/" + name + ".json";
    if (name.find('/') != std::string::npos || !fs::exists(path))
      path = config_folder() + "/default.json";
  }
  nlohmann::json json = read_json(path);
  if (!json.is_object()) throw input_error(path + ": a config is a JSON object of keys and values");
  json["dataset_name"] = name;
  if (name == "iemocap") {  // the data set's task, whatever the file says of the model
    if (!json.contains("train_mode")) json["train_mode"] = "classification";
    if (!json.contains("num_classes")) json["num_classes"] = 6;
  }
  for (const std::string& assignment : overrides) apply_override(json, assignment);
  return parse_config(json, overrides.empty() ? path : path + " with the command line's keys");
}

std::string seed_folder(const std::string& run, uint64_t seed) {
  return run + "/seed_" + std::to_string(seed);
}

std::vector<std::string> find_checkpoints(const std::string& path) {
  if (fs::is_regular_file(path)) return {path};
  std::vector<std::string> found;
  if (fs::is_regular_file(path + "/checkpoint.safetensors"))
    found.push_back(path + "/checkpoint.safetensors");
  if (fs::is_directory(path))
    for (const auto& entry : fs::directory_iterator(path))
      if (entry.path().filename().string().starts_with("seed_") &&
          fs::exists(entry.path() / "checkpoint.safetensors"))
        found.push_back(entry.path() / "checkpoint.safetensors");
  std::sort(found.begin(), found.end());
  if (found.empty()) throw input_error(path + ": no checkpoint file, and no run's folder with one");
  return found;
}

void save_request(const std::string& run, const RunRequest& request, const Config& config) {
  std::error_code error;
  fs::create_directories(run, error);
  if (error) throw input_error(run + ": cannot be created: " + error.message());
  const nlohmann::ordered_json json = {{"dataset", request.dataset},
                                       {"data_dir", request.data_dir},
                                       {"model_dir", request.model_dir},
                                       {"seeds", request.seeds}};
  write_text(run + "/config.json", to_json(config).dump(2) + "\n");
  write_text(run + "/run.json", json.dump(2) + "\n");
}

RunRequest load_request(const std::string& run) {
  const std::string path = run + "/run.json";
  const nlohmann::json json = read_json(path);
  try {
    return {json.at("dataset"), json.at("data_dir"), json.value("model_dir", ""), json.at("seeds")};
  } catch (const nlohmann::json::exception& e) {
    throw input_error(path + ": " + e.what());
  }
}

}  // namespace decalign
