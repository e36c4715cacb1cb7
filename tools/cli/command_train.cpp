// decalign train: one or several seeds, baselines, the final table.
#include <malloc.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "autograd/cuda_device.h"
#include "data/atomic_file.h"
#include "model/baselines.h"
#include "model/bert.h"
#include "model/frozen_text.h"
#include "model/report.h"
#include "model/trainer.h"
#include "tools/cli/commands.h"
#include "tools/cli/run.h"

namespace decalign {
namespace {

struct TrainOptions {
  std::string dataset = "generated", data_dir, model_dir, config, out, resume, device = "auto";
  std::vector<uint64_t> seeds;
  std::vector<std::string> overrides;
  int threads = 0;
};

nlohmann::ordered_json to_json(const Metrics& metrics) {
  nlohmann::ordered_json json;
  for (const auto& [name, value] : metrics) json[name] = value;
  return json;
}

void write_json(const std::string& path, const nlohmann::ordered_json& json) {
  AtomicFile file(path);
  file.write(json.dump(2) + "\n");
  file.commit();
}

std::string default_out(const std::string& dataset) {
  char stamp[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", std::localtime(&now));
  return "runs/" + std::filesystem::path(dataset).stem().string() + "-" + stamp;
}

void describe(const Dataset& data, RunLog& log) {
  for (const auto& [name, split] : data.splits) {
    std::string line = format("%-5s %6lld samples ", name.c_str(), (long long)split.count());
    for (const Sequences& s : split.modalities) {
      line += format(s.tokens.empty() ? "  %s [%lld, %lld]" : "  %s tokens [%lld] -> %lld",
                     s.name.c_str(), (long long)s.steps, (long long)s.width);
      if (s.cleaned > 0)
        line += format(" (%lld NaN or infinite entries set to 0)", (long long)s.cleaned);
    }
    log.line(line);
  }
}

void describe_encoder(const Config& config, const Dataset& data, const TextEncoder* encoder,
                      const std::string& missing, RunLog& log) {
  if (!encoder) {
    const auto& modalities = data.splits.at("train").modalities;
    const bool text = std::any_of(modalities.begin(), modalities.end(),
                                  [](const Sequences& s) { return s.name == "text"; });
    if (config.use_bert)
      log.warn(text ? "use_bert: the float features \"text\" are used instead: " + missing
                    : "use_bert: the data has no text");
    return;
  }
  const Pretrained& p = encoder->pretrained;
  std::string line = format("text encoder %s: %lld layers of %lld, ", p.folder.c_str(),
                            (long long)p.config.num_hidden_layers, (long long)p.config.hidden_size);
  line += encoder->frozen ? "frozen" : "fine-tuned";
  const auto unused = unused_bert_weights(p.config, Safetensors(p.weights()));
  for (size_t i = 0; i < unused.size(); ++i)
    line += (i ? ", " : "; not used of its file: ") + unused[i];
  log.line(line);
}

// Mean predictor and ridge regression on the test split.
std::vector<ReportRow> baselines(const Dataset& data, const Config& config) {
  const int64_t classes = config.classification() ? config.num_classes : 0;
  const Split &train = data.splits.at("train"), &valid = data.splits.at("valid"),
              &test = data.splits.at("test");
  const Ridge ridge = fit_ridge(train, valid, classes);
  return {{"mean predictor",
           {evaluate(config.dataset_name, classes, predict_mean(train, test.count(), classes),
                     test.labels)}},
          {format("ridge (lambda %.2g)", ridge.lambda),
           {evaluate(config.dataset_name, classes, predict_ridge(ridge, test), test.labels)}}};
}

void require_splits(const Dataset& data, const std::string& where) {
  for (const char* name : {"train", "valid", "test"}) {
    const auto found = data.splits.find(name);
    if (found == data.splits.end())
      throw input_error(where + ": no split \"" + name + "\"; training needs train, valid, test");
    if (found->second.count() == 0)
      throw input_error(where + ": split " + name + " has no samples");
  }
}

// Trains one seed and evaluates the test split once, with the best epoch's weights.
Metrics train_seed(const Config& config, const Dataset& data, const Statistics& statistics,
                   const TextEncoder* encoder, uint64_t seed, const std::string& folder,
                   const Device& device, RunLog& log) {
  Trainer trainer(config, data, statistics, encoder, seed, folder, device, log);
  trainer.run();
  const Evaluation test = trainer.evaluate(data.splits.at("test"));
  write_predictions(folder + "/predictions.csv", test.predictions);
  write_json(folder + "/metrics.json",
             {{"seed", seed},
              {"best_epoch", trainer.best_epoch()},
              {"valid_" + selection_choice(config).name, trainer.best_value()},
              {"test_loss", test.loss},
              {"test", to_json(rounded(test.metrics))}});
  return test.metrics;
}

void report(const std::string& run, const RunRequest& request, const Config& config,
            const Dataset& data, const std::vector<Metrics>& results, RunLog& log) {
  std::vector<ReportRow> rows = baselines(data, config);
  nlohmann::ordered_json json;
  for (const ReportRow& row : rows)
    json[row.name.starts_with("ridge") ? "ridge" : "mean_predictor"] =
        to_json(rounded(row.runs[0]));
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string name = "seed_" + std::to_string(request.seeds[i]);
    json[name] = to_json(rounded(results[i]));
    if (results.size() > 1)
      rows.push_back(
          {format("DecAlign seed %llu", (unsigned long long)request.seeds[i]), {results[i]}});
  }
  rows.push_back({"DecAlign", results});
  if (data.noise_floor_mae) {
    rows.push_back({"noise floor", {{{"MAE", *data.noise_floor_mae}}}});
    json["noise_floor_MAE"] = *data.noise_floor_mae;
  }
  for (const auto& [metric, unused] : results[0]) {
    std::vector<double> values;
    for (const Metrics& m : results) values.push_back(*find_metric(m, metric));
    json["mean"][metric] = mean_std(values).mean;
    json["std"][metric] = mean_std(values).std;
  }
  write_json(run + "/metrics.json", json);
  log.line(format("\ntest split, %lld samples:", (long long)data.splits.at("test").count()));
  log.line(report_table(rows, table_metrics(config.dataset_name, config.classification())));
  log.line("written to " + run);
}

void train(TrainOptions options) {
  RunRequest request;
  Config config;
  std::string run = options.resume;
  if (run.empty()) {
    request = {dataset_alias(options.dataset), options.data_dir, options.model_dir, options.seeds};
    if (request.seeds.empty()) request.seeds = {1111};
    config = resolve_config(options.dataset, options.config, options.overrides);
    run = options.out.empty() ? default_out(options.dataset) : options.out;
    if (std::filesystem::exists(run + "/run.json"))
      throw input_error(run + ": holds a run already; go on with --resume " + run +
                        " or name another --out");
  } else {
    if (!options.config.empty() || !options.overrides.empty() || !options.seeds.empty())
      throw input_error("--resume takes config and seeds from " + run +
                        "; leave out --config, --seeds and key=value");
    request = load_request(run);
    config = parse_config(read_json(run + "/config.json"), run + "/config.json");
  }
  std::string missing;
  std::optional<TextEncoder> encoder = find_text_encoder(config, request.model_dir, missing);
  Dataset data = open_dataset(config, request.dataset, request.data_dir,
                              encoder ? &encoder->pretrained : nullptr, {}, false, missing);
  if (encoder && !has_tokens(data)) {
    encoder.reset();
    missing = "the data has neither token ids (\"text_bert\") nor \"raw_text\"";
  }
  const std::string where = config.featurePath.empty()
                                ? dataset_path(request.dataset, request.data_dir)
                                : config.featurePath;
  require_splits(data, where);
  check_labels(config, data, where);
  // Before anything is written.
  if (encoder) check_bert(encoder->pretrained.config, Safetensors(encoder->pretrained.weights()));
  Network(config, modality_sizes(data.splits.at("train")), where);
  const OpenDevice opened = open_device(options.device, options.threads, config.precision);
  const Device& device = opened.device;
  malloc_trim(0);

  if (options.resume.empty()) save_request(run, request, config);
  RunLog log(run + "/log.txt");
  log.line("device " + opened.description);
  describe(data, log);
  describe_encoder(config, data, encoder ? &*encoder : nullptr, missing, log);
  if (encoder && encoder->frozen)
    encode_text(data, encoder->pretrained, frozen_features(config), device);
  const Statistics statistics = prepare(config, data);
  std::vector<Metrics> results;
  for (uint64_t seed : request.seeds)
    results.push_back(train_seed(config, data, statistics, encoder ? &*encoder : nullptr, seed,
                                 seed_folder(run, seed), device, log));
  if (encoder && !encoder->frozen)  // what the ridge regression sees of the text
    encode_text(data, encoder->pretrained, TextFeatures::pooled, device);
  report(run, request, config, data, results, log);
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command =
      app.add_subcommand("train", "train on a data set and report on its test split");
  command
      ->add_option("--dataset", options->dataset,
                   "mosi, mosei, sims, iemocap (their files below --data_dir), generated, or a "
                   "path to a pickle or "
                   "safetensors data set")
      ->capture_default_str();
  command->add_option("--data_dir", options->data_dir,
                      "folder that holds MOSI/, MOSEI/, CH-SIMS/, IEMOCAP/ (data)");
  command->add_option("--model_dir", options->model_dir,
                      "folder that holds pretrained text encoders, by their names");
  command->add_option("--config,--config_file", options->config,
                      "JSON config (the data set's own in tools/configs/)");
  command
      ->add_option("--seeds", options->seeds,
                   "one training per seed, mean and deviation over them (1111)")
      ->allow_extra_args(false)  // the next word may be key=value; main() repeats the option's name
      ->take_all();
  command
      ->add_option("--threads", options->threads,
                   "threads (all cores); the result does not depend on it")
      ->check(CLI::Range(0, 4096));
  command->add_option("--device", options->device, "cpu, cuda, or auto: a GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--out", options->out,
                      "folder for config, log, checkpoints, predictions, metrics (runs/...)");
  command->add_option("--resume", options->resume,
                      "go on with the run in this folder, to the same bits");
  command->add_option("overrides", options->overrides,
                      "key=value: any config key, see docs/configuration.md");
  command->callback([options] { train(*options); });
}

}  // namespace decalign
