// A trainer's files: the best checkpoint, and the state after the last epoch.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/bert.h"
#include "model/checkpoint.h"
#include "model/trainer.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using json = nlohmann::json;

json parse_metadata(const Safetensors& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  const json parsed =
      found == file.metadata().end() ? json() : json::parse(found->second, nullptr, false);
  if (parsed.is_null() || parsed.is_discarded())
    throw input_error(file.file() + ": no \"" + key +
                      "\" in the metadata: not a file of decalign's");
  return parsed;
}

json sizes_json(const std::vector<ModalitySize>& sizes) {
  json list = json::array();
  for (const ModalitySize& s : sizes)
    list.push_back({{"name", s.name}, {"steps", s.steps}, {"width", s.width}});
  return list;
}

// Which text encoder the weights belong to, as entries of the details.
json encoder_json(const Checkpoint& about) {
  json entries = json::object();
  if (about.encoder) entries["encoder"] = to_json(*about.encoder);
  if (about.frozen)
    entries["frozen_encoder"] = {{"folder", about.frozen->folder},
                                 {"sha256", about.frozen->sha256}};
  return entries;
}

// Of a frozen one the contents count: its folder may have moved.
bool same_encoder(const json& details, const Checkpoint& about) {
  const json now = encoder_json(about);
  for (const char* place : {"/encoder", "/frozen_encoder/sha256"}) {
    const json::json_pointer entry(place);
    const bool had = details.contains(entry);
    if (had != now.contains(entry) || (had && details.at(entry) != now.at(entry))) return false;
  }
  return true;
}

}  // namespace

void save_checkpoint(const std::string& path, Network& network, const Checkpoint& about) {
  std::vector<TensorOut> tensors = weight_tensors(network.parameters());
  for (const auto& [name, s] : about.statistics) {
    const std::vector<int64_t> shape{std::ssize(s.low)};
    for (const auto& [part, values] :
         {std::pair{".low", &s.low}, {".high", &s.high}, {".mean", &s.mean}, {".std", &s.std}})
      tensors.push_back(tensor_out<float>("stats." + name + part, shape, *values));
  }
  nlohmann::ordered_json details = {{"modalities", sizes_json(about.sizes)},
                                    {"class_weights", about.class_weights},
                                    {"seed", about.seed},
                                    {"epoch", about.epoch}};
  details.update(encoder_json(about));
  save_safetensors(path, std::move(tensors),
                   {{"config", to_json(about.config).dump()}, {"decalign", details.dump()}});
}

std::pair<Checkpoint, Network> load_checkpoint(const std::string& path) {
  const Safetensors file(path);
  Checkpoint about;
  try {
    about.config = parse_config(parse_metadata(file, "config"), path);
    const json details = parse_metadata(file, "decalign");
    for (const json& s : details.at("modalities"))
      about.sizes.push_back({s.at("name"), s.at("steps"), s.at("width")});
    about.class_weights = details.at("class_weights").get<std::vector<real>>();
    about.seed = details.at("seed");
    about.epoch = details.at("epoch");
    if (details.contains("encoder"))
      about.encoder = parse_bert_config(details["encoder"], path + ": metadata \"encoder\"");
    if (details.contains("frozen_encoder"))
      about.frozen = {details["frozen_encoder"].at("folder"),
                      details["frozen_encoder"].at("sha256")};
  } catch (const json::exception& e) {
    throw input_error(path + ": metadata \"decalign\": " + e.what());
  }
  for (const ModalitySize& s : about.sizes) {
    const std::string stem = "stats." + s.name;
    if (!file.has(stem + ".low")) continue;
    about.statistics[s.name] = {file.floats(stem + ".low"), file.floats(stem + ".high"),
                                file.floats(stem + ".mean"), file.floats(stem + ".std")};
  }
  if (about.encoder) check_bert(*about.encoder, file, true);
  Network network(about.config, about.sizes, path, about.encoder);
  network.set_class_weights(about.class_weights);
  load_weights(network.parameters(), file);
  return {std::move(about), std::move(network)};
}

void Trainer::save_state() {
  std::vector<TensorOut> tensors = weight_tensors(network_.parameters());
  const std::vector<real> m = optimizer_.first_moment(), v = optimizer_.second_moment();
  tensors.push_back(tensor_out<real>("optimizer.m", {std::ssize(m)}, In(m)));
  tensors.push_back(tensor_out<real>("optimizer.v", {std::ssize(v)}, In(v)));
  const std::vector<real> average = optimizer_.average();
  if (optimizer_.averaging())
    tensors.push_back(tensor_out<real>("optimizer.average", {std::ssize(average)}, In(average)));
  // Numbers that must come back to the bit.
  std::vector<double> numbers{progress_.best_value, progress_.scheduler.best};
  numbers.insert(numbers.end(), rates_.begin(), rates_.end());
  tensors.push_back(tensor_out<double>("optimizer.numbers", {std::ssize(numbers)}, numbers));
  json details = {{"epoch", progress_.epoch},
                  {"best_epoch", progress_.best_epoch},
                  {"steps", optimizer_.steps()},
                  {"scheduler_started", progress_.scheduler.started},
                  {"scheduler_bad_epochs", progress_.scheduler.bad_epochs},
                  {"seed", about_.seed}};
  details.update(encoder_json(about_));
  save_safetensors(state_path(), std::move(tensors),
                   {{"config", to_json(config_).dump()}, {"decalign", details.dump()}});
}

bool Trainer::load_state() {
  if (!std::filesystem::exists(state_path())) return false;
  const Safetensors file(state_path());
  const json details = parse_metadata(file, "decalign");
  if (parse_metadata(file, "config") != json::parse(to_json(config_).dump()))
    throw input_error(state_path() +
                      ": was written with another config; resume with the run's own");
  if (!same_encoder(details, about_))
    throw input_error(state_path() +
                      ": was written with another text encoder; resume with the run's own");
  const auto moment = [&](const std::string& name) {
    const std::vector<double> values = file.doubles(name);
    if (values.size() != network_.parameters().values().size())
      throw input_error(file.file() + ": tensor \"" + name + "\" has another size");
    return std::vector<real>(values.begin(), values.end());
  };
  load_weights(network_.parameters(), file);
  const std::vector<real> m = moment("optimizer.m"), v = moment("optimizer.v"),
                          average = optimizer_.averaging() ? moment("optimizer.average")
                                                           : std::vector<real>();
  const std::vector<double> numbers = file.doubles("optimizer.numbers");
  if (numbers.size() != 2 + rates_.size())
    throw input_error(file.file() + ": tensor \"optimizer.numbers\" has another size");
  progress_.best_value = numbers[0];
  progress_.scheduler.best = numbers[1];
  std::copy(numbers.begin() + 2, numbers.end(), rates_.begin());
  try {
    progress_.epoch = details.at("epoch");
    progress_.best_epoch = about_.epoch = details.at("best_epoch");
    optimizer_.restore(m, v, average, details.at("steps"));
    progress_.scheduler.started = details.at("scheduler_started");
    progress_.scheduler.bad_epochs = details.at("scheduler_bad_epochs");
  } catch (const json::exception& e) {
    throw input_error(file.file() + ": metadata \"decalign\": " + e.what());
  }
  return true;
}

}  // namespace decalign::inline DECALIGN_REAL
