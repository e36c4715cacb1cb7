// A run's folder: what was asked for, where the seeds' files lie, which config applies.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/config.h"

namespace decalign {

/// What `decalign train` was asked for; run.json in the run's folder.
struct RunRequest {
  std::string dataset = "generated", data_dir, model_dir;
  std::vector<uint64_t> seeds;
};

/// The config of a data set: `config_file`, or else the one shipped in tools/configs/, with the
/// overrides applied.
Config resolve_config(const std::string& dataset, const std::string& config_file,
                      const std::vector<std::string>& overrides);

std::string seed_folder(const std::string& run, uint64_t seed);
/// The checkpoint file itself, or those of all seeds below a run's folder. Throws input_error if
/// there is none.
std::vector<std::string> find_checkpoints(const std::string& path);

void save_request(const std::string& run, const RunRequest& request, const Config& config);
/// Throws input_error if `run` is no run's folder.
RunRequest load_request(const std::string& run);

}  // namespace decalign
