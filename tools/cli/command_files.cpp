// decalign metrics, convert and info: what needs no network.
#include <omp.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "autograd/cuda_device.h"
#include "data/dataset_file.h"
#include "data/generated.h"
#include "model/config.h"
#include "model/metrics.h"
#include "model/predictions_csv.h"
#include "model/prepare.h"
#include "tools/cli/commands.h"

namespace decalign {
namespace {

void metrics(const std::string& dataset, const std::string& path) {
  const Predictions p = read_predictions(path);
  nlohmann::ordered_json json;
  for (const auto& [name, value] :
       rounded(evaluate(dataset_alias(dataset), p.classes, p.scores, p.labels)))
    json[name] = value;
  std::cout << json.dump(2) << "\n";
}

void convert(const std::string& in, const std::string& out) {
  LoadOptions options;
  options.labels_key = "";
  options.keep_text = true;
  const Dataset data = in == "generated" ? generate_dataset() : load_dataset(in, options);
  save_dataset(out, data);
  for (const auto& [name, split] : data.splits)
    std::cout << name << ": " << split.count() << " samples\n";
}

std::string cuda_line() {
  const std::string missing = why_no_cuda();
  return missing.empty() ? CudaDevice().description() : "none (" + missing + ")";
}

void info(bool keys) {
  if (keys) {
    std::cout << config_reference();
    return;
  }
  std::cout << "decalign " << DECALIGN_VERSION << "\ncompiler " << __VERSION__ << "\nvector width "
#if defined(__AVX512F__)
            << "512 bits (AVX-512)"
#elif defined(__AVX__)
            << "256 bits (AVX)"
#else
            << "128 bits"
#endif
            << "\nthreads " << omp_get_max_threads() << "\ncuda " << cuda_line() << "\nconfigs "
            << DECALIGN_CONFIG_DIR << "\n";
}

}  // namespace

void add_metrics(CLI::App& app) {
  auto dataset = std::make_shared<std::string>(), path = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("metrics", "metrics of a CSV file of predictions, as JSON");
  command->add_option("--dataset", *dataset, "whose protocol: mosi, mosei, sims or iemocap")
      ->required();
  command
      ->add_option("file", *path, "columns id, label, and prediction or class scores p0, p1, ...")
      ->required();
  command->callback([=] { metrics(*dataset, *path); });
}

void add_convert(CLI::App& app) {
  auto in = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("convert", "between MMSA pickles and safetensors data sets");
  command->add_option("in", *in, "a data set, or `generated`")->required();
  command->add_option("out", *out, "ends in .pkl for a pickle, anything else is safetensors")
      ->required();
  command->callback([=] { convert(*in, *out); });
}

void add_info(CLI::App& app) {
  auto keys = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("info", "version and machine");
  command->add_flag("--keys", *keys, "print docs/configuration.md: every config key");
  command->callback([=] { info(*keys); });
}

}  // namespace decalign
