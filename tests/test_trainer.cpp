// The trainer: it learns, its files come back to the bit, and it stops with a clear line.
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "data/generated.h"
#include "data/safetensors.h"
#include "model/trainer.h"
#include "small_config.h"
#include "support.h"
#include "temporary_folder.h"
#include "training_files.h"

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

namespace {

Dataset tiny_data() {
  GeneratedOptions options;
  options.train = 90;
  options.valid = 31;
  options.test = 30;
  options.modalities = {{"text", 5, 6}, {"audio", 7, 4}};
  return generate_dataset(options);
}

Config tiny_config(int64_t epochs) {
  Config config = decalign::testing::small_config();
  config.batch_size = 16;  // the last batch of an epoch is smaller
  config.num_epochs = epochs;
  config.learning_rate = 3e-3;
  config.dec_loss_weight = config.alpha = config.beta = 0.01;
  config.sinkhorn = "log";
  config.scheduler_patience = 0;  // so that the learning rate changes too
  config.factor = 0.5;
  return config;
}

/// Trains into a folder, from its state if it holds one.
void train(const Config& config, const Dataset& data, const std::string& folder, int threads = 2,
           uint64_t seed = 7) {
  RunLog log("", true);
  Trainer trainer(config, data, {}, nullptr, seed, folder, Device(Cpu{threads}), log);
  trainer.run();
}

/// The message of a training that stops.
std::string train_error(const Config& config, const Dataset& data, const std::string& folder) {
  try {
    train(config, data, folder);
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("batches: every epoch is another order of all samples, by the seed alone",
          "[model][trainer]") {
  const auto a = shuffled(100, 1, 1);
  auto sorted = a;
  std::sort(sorted.begin(), sorted.end());
  std::vector<int64_t> all(100);
  std::iota(all.begin(), all.end(), int64_t(0));
  CHECK(sorted == all);
  CHECK(a != all);
  CHECK(shuffled(100, 1, 1) == a);
  CHECK(shuffled(100, 1, 2) != a);
  CHECK(shuffled(100, 2, 1) != a);
  CHECK(shuffled(1, 1, 1) == std::vector<int64_t>{0});
  CHECK(shuffled(0, 1, 1).empty());
  // Every place is equally likely: the first of 10 over 2000 epochs, 200 each, sigma 13.4.
  std::vector<int> first(10, 0);
  for (uint64_t epoch = 0; epoch < 2000; ++epoch) ++first[size_t(shuffled(10, 3, epoch)[0])];
  for (int count : first) CHECK(std::abs(count - 200) < 70);
}

TEST_CASE("batches: gather copies the samples asked for", "[model][trainer]") {
  Dataset data = tiny_data();
  Split& split = data.splits["train"];
  split.modalities[1].lengths.clear();
  Batch batch;
  gather(split, std::vector<int64_t>{0, 1, 2, 3}, batch);
  gather(split, std::vector<int64_t>{5, 2}, batch);  // memory is reused
  REQUIRE(batch.count == 2);
  REQUIRE(batch.modalities.size() == 2);
  for (size_t m = 0; m < 2; ++m) {
    const Sequences& s = split.modalities[m];
    const size_t size = size_t(s.steps * s.width);
    REQUIRE(batch.modalities[m].x.size() == 2 * size);
    for (size_t i = 0; i < size; ++i) {
      REQUIRE(batch.modalities[m].x[i] == real(s.sample(5)[i]));
      REQUIRE(batch.modalities[m].x[size + i] == real(s.sample(2)[i]));
    }
  }
  const auto& lengths = split.modalities[0].lengths;
  CHECK(batch.modalities[0].lengths == std::vector<int32_t>{lengths[5], lengths[2]});
  CHECK(batch.modalities[1].lengths == std::vector<int32_t>{7, 7});
  CHECK(batch.labels == std::vector<real>{real(split.labels[5]), real(split.labels[2])});
}

TEST_CASE("trainer: it learns, and ends with the best epoch's weights", "[model][trainer]") {
  const Dataset data = tiny_data();
  const Device device(Cpu{2});
  const TemporaryFolder folder;
  RunLog log("", true);
  Config config = tiny_config(12);
  config.embed_dropout = 0;
  Trainer trainer(config, data, {}, nullptr, 7, folder / "run", device, log);
  const double train_before =
      evaluate_split(trainer.network(), data.splits.at("train"), device).loss;
  const double valid_before =
      evaluate_split(trainer.network(), data.splits.at("valid"), device).loss;
  trainer.run();
  const double train_after =
      evaluate_split(trainer.network(), data.splits.at("train"), device).loss;
  const double valid_after =
      evaluate_split(trainer.network(), data.splits.at("valid"), device).loss;
  CHECK(train_after < 0.7 * train_before);
  CHECK(valid_after < valid_before);
  CHECK(valid_after == trainer.best_value());
  CHECK(trainer.best_epoch() >= 1);
  CHECK(details(folder / "run/checkpoint.safetensors").at("epoch") == trainer.best_epoch());
}

TEST_CASE("trainer: with an average it validates and keeps the average, and trains as without",
          "[model][trainer]") {
  const Dataset data = tiny_data();
  const Device device(Cpu{2});
  const TemporaryFolder folder;
  RunLog log("", true);
  Config config = tiny_config(3);
  config.scheduler_patience = 9;  // validation is not to change the steps
  Trainer plain(config, data, {}, nullptr, 7, folder / "plain", device, log);
  plain.run();
  config.average_decay = 0.9;
  Trainer averaged(config, data, {}, nullptr, 7, folder / "averaged", device, log);
  averaged.run();
  const Safetensors best(folder / "averaged/checkpoint.safetensors"),
      last(folder / "averaged/state.safetensors"), without(folder / "plain/state.safetensors");
  REQUIRE(averaged.best_epoch() == 3);  // so that both files are of one epoch
  CHECK(evaluate_split(averaged.network(), data.splits.at("valid"), device).loss ==
        averaged.best_value());
  const std::vector<double> average = last.doubles("optimizer.average");
  const Parameter& p = *averaged.network().parameters().find("encoder_com.weight");
  const std::vector<double> kept = best.doubles(p.name), now = last.doubles(p.name);
  CHECK(std::equal(kept.begin(), kept.end(), average.begin() + p.offset));
  CHECK(kept != now);
  CHECK(now == without.doubles(p.name));
}

TEST_CASE("trainer: a reloaded checkpoint gives the same predictions", "[model][trainer]") {
  const Dataset data = tiny_data();
  const Device device(Cpu{2});
  const TemporaryFolder folder;
  RunLog log("", true);
  const Statistics statistics{
      {"audio", {{-1, -2, -3, -4}, {1, 2, 3, 4}, {0, 0.5f, 0, 0}, {1, 1, 1, 2}}}};
  Trainer trainer(tiny_config(2), data, statistics, nullptr, 9, folder / "run", device, log);
  trainer.run();
  const Split& test = data.splits.at("test");
  const Evaluation want = evaluate_split(trainer.network(), test, device);
  auto [about, network] = load_checkpoint(folder / "run/checkpoint.safetensors");
  const Evaluation got = evaluate_split(network, test, device);
  CHECK(got.predictions.scores == want.predictions.scores);
  CHECK(got.loss == want.loss);
  CHECK(about.seed == 9);
  CHECK(about.epoch == trainer.best_epoch());
  CHECK(to_json(about.config).dump() == to_json(tiny_config(2)).dump());
  REQUIRE(about.statistics.size() == 1);
  CHECK(about.statistics.at("audio").low == statistics.at("audio").low);
  CHECK(about.statistics.at("audio").high == statistics.at("audio").high);
  CHECK(about.statistics.at("audio").mean == statistics.at("audio").mean);
  CHECK(about.statistics.at("audio").std == statistics.at("audio").std);
}

TEST_CASE("trainer: evaluation keeps order and does not depend on the batch size",
          "[model][trainer]") {
  const Dataset data = tiny_data();
  const Split& test = data.splits.at("test");
  Config config = tiny_config(1);
  std::vector<std::vector<float>> scores;
  for (int64_t batch : {1, 7, 64}) {
    config.batch_size = batch;
    Network network(config, modality_sizes(test), "config");
    network.parameters().initialize(3);
    const Evaluation e = evaluate_split(network, test, Device(Cpu{2}));
    CHECK(e.predictions.ids == test.ids);
    CHECK(e.predictions.labels == test.labels);
    CHECK(find_metric(e.metrics, "MAE"));
    scores.push_back(e.predictions.scores);
  }
  REQUIRE(scores[0].size() == 30);
  for (size_t i = 0; i < 30; ++i) {
    CHECK(scores[1][i] == Approx(scores[0][i]).margin(1e-5));
    CHECK(scores[2][i] == Approx(scores[0][i]).margin(1e-5));
  }
  Split unlabelled = test;
  unlabelled.labels.clear();
  Network network(config, modality_sizes(test), "config");
  network.parameters().initialize(3);
  const Evaluation e = evaluate_split(network, unlabelled, Device(Cpu{1}));
  CHECK(e.predictions.scores == scores[2]);
  CHECK(e.metrics.empty());
}

TEST_CASE("trainer: 1 and 2 threads write the same bits, another seed does not",
          "[model][trainer]") {
  const Dataset data = tiny_data();
  const TemporaryFolder folder;
  train(tiny_config(2), data, folder / "one", 1);
  train(tiny_config(2), data, folder / "two", 2);
  train(tiny_config(2), data, folder / "other", 2, 8);
  for (const char* name : {"/checkpoint.safetensors", "/state.safetensors"}) {
    const std::string one = content((folder / "one") + name);
    CHECK(one.size() > 10000);
    CHECK(one == content((folder / "two") + name));
    CHECK(one != content((folder / "other") + name));
  }
}

TEST_CASE("trainer: a run resumed after any epoch ends with the same bits", "[model][trainer]") {
  const Dataset data = tiny_data();
  const TemporaryFolder folder;
  Config config = tiny_config(4);
  config.average_decay = GENERATE(0.0, 0.9);
  train(config, data, folder / "whole");
  for (int64_t epochs : {1, 3}) {
    INFO("after epoch " << epochs);
    const std::string part = folder / ("part" + std::to_string(epochs));
    const std::string rest = folder / ("rest" + std::to_string(epochs));
    Config shorter = config;
    shorter.num_epochs = epochs;
    train(shorter, data, part);
    continue_as(part, rest, config);
    CHECK(details(rest + "/state.safetensors").at("epoch") == epochs);
    train(config, data, rest);
    CHECK(details(rest + "/state.safetensors").at("epoch") == 4);
    for (const char* name : {"/checkpoint.safetensors", "/state.safetensors"})
      CHECK(content(rest + name) == content((folder / "whole") + name));
  }
  // A run that is complete is left as it is.
  const std::string before = content(folder / "whole/checkpoint.safetensors");
  train(config, data, folder / "whole");
  CHECK(content(folder / "whole/checkpoint.safetensors") == before);
  CHECK_THAT(train_error(tiny_config(5), data, folder / "whole"),
             Catch::Contains("state.safetensors: was written with another config"));
}

TEST_CASE("trainer: it stops after early_stop_patience epochs without improvement",
          "[model][trainer]") {
  const TemporaryFolder folder;
  Config config = tiny_config(9);
  config.learning_rate = 0;  // every epoch is as good as the first
  config.early_stop_patience = 2;
  train(config, tiny_data(), folder / "run");
  CHECK(details(folder / "run/state.safetensors").at("epoch") == 3);
  CHECK(details(folder / "run/state.safetensors").at("best_epoch") == 1);
}

TEST_CASE("trainer: a loss that becomes NaN stops with seed, step and term", "[model][trainer]") {
  const TemporaryFolder folder;
  Config config = tiny_config(3);
  config.learning_rate = sizeof(real) == 4 ? 1e30 : 1e300;
  CHECK_THAT(train_error(config, tiny_data(), folder / "new"),
             Catch::StartsWith("seed 7, epoch 1, batch 2 (step 2): the task loss is not finite; "
                               "no epoch was completed"));
  CHECK_FALSE(std::filesystem::exists(folder / "new/checkpoint.safetensors"));

  // After a good epoch the line names its checkpoint, which stays.
  config = tiny_config(3);
  Dataset data = tiny_data();
  train(tiny_config(1), data, folder / "first");
  continue_as(folder / "first", folder / "run", config);
  const std::string before = content(folder / "run/checkpoint.safetensors");
  for (float& x : data.splits["train"].modalities[0].values) x = 3e38f;
  if (sizeof(real) == 4) {  // double has room for this
    const std::string error = train_error(config, data, folder / "run");
    CHECK_THAT(error, Catch::StartsWith("seed 7, epoch 2, batch 1 (step 7): the "));
    CHECK_THAT(error, Catch::EndsWith("the last good checkpoint is " +
                                      (folder / "run/checkpoint.safetensors of epoch 1")));
    CHECK(content(folder / "run/checkpoint.safetensors") == before);
  }
}

TEST_CASE("checkpoint: files that do not fit are named", "[model][trainer]") {
  const TemporaryFolder folder;
  const std::string path = folder / "run/checkpoint.safetensors", other = folder / "o.safetensors";
  train(tiny_config(1), tiny_data(), folder / "run");
  const auto message = [](const std::string& file) {
    try {
      load_checkpoint(file);
    } catch (const input_error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  CHECK(message(path) == "no error");
  Config wider = tiny_config(1);
  wider.dst_feature_dim_nheads = {12, 2};
  with_metadata(path, other, "config", to_json(wider).dump());
  CHECK_THAT(message(other),
             Catch::Contains("o.safetensors: tensor \"") && Catch::Contains("the network's is ["));
  Config deeper = tiny_config(1);
  deeper.nlevels = 2;
  with_metadata(path, other, "config", to_json(deeper).dump());
  CHECK_THAT(message(other), Catch::Contains("trans_l.layers.1."));
  with_metadata(path, other, "config", "{\"alpha\": \"x\"}");
  CHECK_THAT(message(other), Catch::Contains("o.safetensors: key \"alpha\""));
  with_metadata(path, other, "config", "not json");
  CHECK_THAT(message(other), Catch::Contains("o.safetensors: no \"config\" in the metadata"));
  with_metadata(path, other, "decalign", "{\"modalities\": 3}");
  CHECK_THAT(message(other), Catch::Contains("o.safetensors: metadata \"decalign\""));
  std::ofstream(other, std::ios::binary) << content(path).substr(0, 5000);
  CHECK_THAT(message(other), Catch::Contains("o.safetensors"));
  CHECK_THAT(message(folder / "none"), Catch::Contains("none"));
}

TEST_CASE("trainer: a state that was tampered with is named", "[model][trainer]") {
  const TemporaryFolder folder;
  const Config config = tiny_config(2);
  train(tiny_config(1), tiny_data(), folder / "first");
  continue_as(folder / "first", folder / "run", config);
  const std::string path = folder / "run/state.safetensors", good = folder / "good.safetensors";
  std::filesystem::copy_file(path, good);
  with_metadata(good, path, "decalign", "{\"epoch\": \"one\"}");
  CHECK_THAT(train_error(config, tiny_data(), folder / "run"),
             Catch::Contains("state.safetensors: metadata \"decalign\""));
}

TEST_CASE("checkpoint: a full disk while saving leaves the previous one", "[model][trainer]") {
  const TemporaryFolder folder;
  const std::string path = folder / "run/checkpoint.safetensors";
  train(tiny_config(1), tiny_data(), folder / "run");
  const std::string before = content(path);
  auto [about, network] = load_checkpoint(path);
  network.parameters().initialize(99);

  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{rlim_t(before.size() / 2), limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message = "no error";
  try {
    save_checkpoint(path, network, about);
  } catch (const input_error& e) {
    message = e.what();
  }
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(message, Catch::StartsWith(path + ": cannot be written"));
  CHECK(content(path) == before);
  CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
  save_checkpoint(path, network, about);
  CHECK(content(path) != before);
}
