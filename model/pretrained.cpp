#include "model/pretrained.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/config.h"

namespace decalign {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::vector<std::string> hub_caches() {
  std::vector<std::string> caches;
  const auto add = [&](const std::string& root, const char* below) {
    if (root.empty()) return;
    const std::string cache = root + below;
    if (std::find(caches.begin(), caches.end(), cache) == caches.end()) caches.push_back(cache);
  };
  add(environment("HF_HUB_CACHE"), "");
  add(environment("HF_HOME"), "/hub");
  add(environment("XDG_CACHE_HOME"), "/huggingface/hub");
  add(environment("HOME"), "/.cache/huggingface/hub");
  return caches;
}

// models--<owner>--<name>
std::string cache_folder(const std::string& name) {
  std::string folder = "models--";
  for (char c : name) folder += c == '/' ? std::string("--") : std::string(1, c);
  return folder;
}

// The revision's folder below a cached model: the one of refs/main, else the last by name.
std::string snapshot(const fs::path& model) {
  std::string revision;
  std::ifstream(model / "refs" / "main") >> revision;
  std::error_code error;
  const fs::path all = model / "snapshots";
  if (!revision.empty() && fs::is_directory(all / revision, error)) return all / revision;
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(all, error)) found.push_back(entry.path());
  return found.empty() ? std::string(all) : *std::max_element(found.begin(), found.end());
}

}  // namespace

bool is_path(const std::string& pretrained) {
  return pretrained.starts_with('/') || pretrained.starts_with('.') ||
         std::count(pretrained.begin(), pretrained.end(), '/') > 1;
}

std::vector<std::string> pretrained_places(const std::string& pretrained,
                                           const std::string& model_dir,
                                           const std::string& beside) {
  std::vector<std::string> places;
  if (!beside.empty() && !pretrained.starts_with('/')) places.push_back(beside + "/" + pretrained);
  places.push_back(pretrained);
  if (is_path(pretrained)) return places;
  if (!model_dir.empty()) places.push_back(model_dir + "/" + pretrained);
  for (const std::string& cache : hub_caches()) {
    places.push_back(snapshot(fs::path(cache) / cache_folder(pretrained)));
    if (pretrained.find('/') == std::string::npos)
      places.push_back(snapshot(fs::path(cache) / cache_folder("google-bert/" + pretrained)));
  }
  return places;
}

std::string find_pretrained(const std::vector<std::string>& places) {
  std::error_code error;
  for (const std::string& place : places)
    if (fs::is_regular_file(place + "/config.json", error)) return place;
  return {};
}

std::string not_found(const std::string& pretrained, const std::vector<std::string>& places) {
  std::string line =
      "key \"pretrained\": \"" + pretrained + "\" was not found; looked for " + "config.json in ";
  for (size_t i = 0; i < places.size(); ++i) line += (i ? ", " : "") + places[i];
  return line + "; download it elsewhere (hf download NAME --local-dir FOLDER) and set " +
         "pretrained=FOLDER";
}

Pretrained open_pretrained(const std::string& folder) {
  Pretrained encoder;
  encoder.folder = folder;
  const std::string path = folder + "/config.json";
  encoder.config = parse_bert_config(read_json(path), path);
  std::error_code error;
  if (!fs::is_regular_file(encoder.weights(), error))
    throw input_error(encoder.weights() + ": is missing; the encoder's weights are read from it");
  if (fs::is_regular_file(folder + "/vocab.txt", error))
    encoder.tokenizer = std::make_shared<const WordPiece>(folder);
  return encoder;
}

}  // namespace decalign
