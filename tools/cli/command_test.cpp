// decalign test and decalign predict: a checkpoint on a split, with and without labels.
#include <iostream>

#include "autograd/cuda_device.h"
#include "model/frozen_text.h"
#include "model/report.h"
#include "model/trainer.h"
#include "tools/cli/commands.h"
#include "tools/cli/run.h"

namespace decalign {
namespace {

struct TestOptions {
  std::string checkpoint, dataset, data_dir, model_dir, split = "test", out, device = "auto";
  int threads = 0;
};

// What reads the data's tokens for a checkpoint: the frozen encoder it was trained with; for a
// fine-tuned one, whose weights the checkpoint holds, its sizes, and the vocabulary where
// `pretrained` is to be had.
std::optional<TextEncoder> encoder_of(const Checkpoint& about, const std::string& path,
                                      const TestOptions& options) {
  if (about.frozen)
    return frozen_text_encoder(about.config, *about.frozen, options.model_dir, path);
  if (!about.encoder) return std::nullopt;
  TextEncoder encoder;
  const std::string folder =
      find_pretrained(pretrained_places(about.config.pretrained, options.model_dir));
  if (!folder.empty()) encoder.pretrained = open_pretrained(folder);
  encoder.pretrained.config = *about.encoder;
  return encoder;
}

// The checkpoint's network on a split prepared with the training's statistics.
Evaluation run_checkpoint(const std::string& path, const TestOptions& options, bool unlabelled) {
  auto [about, network] = load_checkpoint(path);
  const std::string dataset =
      dataset_alias(options.dataset.empty() ? about.config.dataset_name : options.dataset);
  Config config = about.config;
  if (!options.dataset.empty()) config.featurePath.clear();
  std::vector<std::string> splits{options.split};
  if (config.iemocap_protocol == "paper_count") splits = {};
  const std::optional<TextEncoder> encoder = encoder_of(about, path, options);
  Dataset data = open_dataset(config, dataset, options.data_dir,
                              encoder ? &encoder->pretrained : nullptr, splits, unlabelled);
  if (encoder && !has_tokens(data))
    throw input_error(dataset + ": holds neither token ids nor raw text that could be split; the " +
                      "checkpoint " + path + " reads text by its encoder");
  const auto found = data.splits.find(options.split);
  if (found == data.splits.end())
    throw input_error(dataset + ": no split \"" + options.split + "\"");
  Dataset one;
  one.labels_key = data.labels_key;
  one.splits[options.split] = std::move(found->second);
  Split& split = one.splits[options.split];
  for (size_t m = 0; m < about.sizes.size(); ++m) {
    const ModalitySize& size = about.sizes[m];
    if (m >= split.modalities.size() || split.modalities[m].name != size.name ||
        split.modalities[m].width != size.width)
      throw input_error(dataset + ": split " + options.split + ": the checkpoint " + path +
                        " expects modality " + size.name + " of width " +
                        std::to_string(size.width));
  }
  if (split.modalities.size() != about.sizes.size())
    throw input_error(dataset + ": has more modalities than the checkpoint " + path);
  if (unlabelled) split.labels.clear();
  check_labels(config, one, dataset);
  if (config.need_feature_standardized && about.statistics.empty())
    throw input_error(path + ": holds no statistics for standardising");
  const OpenDevice opened = open_device(options.device, options.threads, config.precision);
  const Device& device = opened.device;
  if (about.frozen) encode_text(one, encoder->pretrained, frozen_features(config), device);
  prepare(config, one, about.statistics);
  return evaluate_split(network, split, device);
}

void test(const TestOptions& options) {
  std::vector<ReportRow> rows;
  std::vector<Metrics> all;
  std::vector<std::string> metrics;
  for (const std::string& path : find_checkpoints(options.checkpoint)) {
    const Evaluation e = run_checkpoint(path, options, false);
    if (metrics.empty())
      for (const auto& [name, value] : e.metrics) metrics.push_back(name);
    rows.push_back({path, {e.metrics}});
    all.push_back(e.metrics);
    if (!options.out.empty()) write_predictions(options.out, e.predictions);
  }
  if (all.size() > 1) rows.push_back({"mean", all});
  std::cout << report_table(rows, metrics);
}

void predict(const TestOptions& options) {
  const std::vector<std::string> paths = find_checkpoints(options.checkpoint);
  if (paths.size() > 1)
    throw input_error(options.checkpoint + ": holds several seeds; name one checkpoint, such as " +
                      paths[0]);
  write_predictions(options.out, run_checkpoint(paths[0], options, true).predictions);
  std::cout << "written to " << options.out << "\n";
}

CLI::App* add(CLI::App& app, const char* name, const char* purpose, TestOptions& options) {
  CLI::App* command = app.add_subcommand(name, purpose);
  command->add_option("--checkpoint", options.checkpoint, "a run's folder or a checkpoint file")
      ->required();
  command->add_option("--dataset", options.dataset, "as in train (the one it was trained on)");
  command->add_option("--data_dir", options.data_dir, "as in train");
  command->add_option("--model_dir", options.model_dir, "as in train");
  command->add_option("--split", options.split, "which split")->capture_default_str();
  command->add_option("--device", options.device, "cpu, cuda, or auto: a GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--threads", options.threads, "threads (all cores)")
      ->check(CLI::Range(0, 4096));
  return command;
}

}  // namespace

void add_test(CLI::App& app) {
  auto options = std::make_shared<TestOptions>();
  CLI::App* command = add(app, "test", "evaluate a trained network on a labelled split", *options);
  command->add_option("--out", options->out, "write the predictions to this CSV file");
  command->callback([options] { test(*options); });
}

void add_predict(CLI::App& app) {
  auto options = std::make_shared<TestOptions>();
  options->out = "predictions.csv";
  CLI::App* command = add(app, "predict", "predictions for data without labels, as CSV", *options);
  command->add_option("--out", options->out, "CSV file to write")->capture_default_str();
  command->callback([options] { predict(*options); });
}

}  // namespace decalign
