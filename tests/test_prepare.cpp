// From a data set as the file has it to what the network sees.
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <functional>

#include "data/dataset_file.h"
#include "data/generated.h"
#include "model/prepare.h"
#include "temporary_folder.h"

using namespace decalign;

namespace {

/// Two samples per split: audio [2, 3, 1] with given lengths, text [2, 2, 1] without.
Dataset tiny() {
  Dataset data;
  data.labels_key = "regression_labels";
  float shift = 0;
  for (const char* name : {"train", "valid", "test"}) {
    Split split;
    split.modalities = {{"text", 2, 2, 1, {1, 0, 0, 0}, {}, 0},
                        {"audio", 2, 3, 1, {1 + shift, 2, 9, 4, 5, 6}, {2, 3}, 0}};
    split.labels = {shift, 1};
    split.ids = {std::string(name) + "_0", std::string(name) + "_1"};
    data.splits[name] = split;
    shift += 10;
  }
  return data;
}

Config by_lengths() {
  Config config;
  config.mask_source = "lengths";
  return config;
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const input_error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("prepare: lengths are found where the file gives none", "[model][prepare]") {
  Dataset data = tiny();
  data.splits["train"].modalities[0] = {"text",
                                        3,
                                        3,
                                        2,
                                        {1, 0, 0, 0, 0, 5,  // the last step has one entry
                                         0, 2, 0, 0, 0, 0,  //
                                         0, 0, 0, 0, 0, 0},
                                        {},
                                        0};
  prepare(Config{}, data);
  const Split& train = data.splits["train"];
  CHECK(train.modalities[0].lengths == std::vector<int32_t>{3, 1, 0});
  CHECK(train.modalities[1].lengths == std::vector<int32_t>{2, 3});  // the file's own stay
}

TEST_CASE("prepare: padding is cleared only where lengths are the mask", "[model][prepare]") {
  Dataset data = tiny();
  CHECK(prepare(Config{}, data).empty());
  CHECK(data.splits["train"].modalities[1].values == std::vector<float>{1, 2, 9, 4, 5, 6});
  prepare(by_lengths(), data);
  CHECK(data.splits["train"].modalities[1].values == std::vector<float>{1, 2, 0, 4, 5, 6});
  CHECK(data.splits["test"].modalities[1].values == std::vector<float>{21, 2, 0, 4, 5, 6});
}

TEST_CASE("prepare: every split is standardised with the training split's statistics",
          "[model][prepare]") {
  Config config;
  config.need_feature_standardized = true;
  config.feature_clip_percentiles = {0, 100};
  Dataset data = tiny();
  const Statistics used = prepare(config, data);
  REQUIRE(used.size() == 1);  // vision is not there, text is not asked for
  const double mean = (1 + 2 + 9 + 4 + 5 + 6) / 6.0;
  double variance = 0;
  for (double x : {1, 2, 9, 4, 5, 6}) variance += (x - mean) * (x - mean) / 6;
  const FeatureStats& audio = used.at("audio");
  CHECK(audio.low[0] == 1);
  CHECK(audio.high[0] == 9);
  CHECK(audio.mean[0] == Approx(mean));
  CHECK(audio.std[0] == Approx(std::sqrt(variance)));
  const auto& test = data.splits["test"].modalities[1].values;
  CHECK(test[0] == Approx((9 - mean) / std::sqrt(variance)));  // 21, clipped to 9
  CHECK(test[1] == Approx((2 - mean) / std::sqrt(variance)));
  CHECK(data.splits["test"].modalities[0].values == tiny().splits["test"].modalities[0].values);

  // The same from given statistics, on a test split alone.
  Dataset alone;
  alone.splits["test"] = tiny().splits["test"];
  prepare(config, alone, used);
  CHECK(alone.splits["test"].modalities[1].values == test);
  Dataset without;
  without.splits["test"] = tiny().splits["test"];
  CHECK_THAT(message([&] { prepare(config, without); }),
             Catch::Contains("needs the training split"));
}

TEST_CASE("prepare: standardised padding is cleared, not left at -mean / std", "[model][prepare]") {
  Config config = by_lengths();
  config.need_feature_standardized = true;
  Dataset data = tiny();
  prepare(config, data);
  CHECK(data.splits["train"].modalities[1].values[2] == 0);
  CHECK(data.splits["train"].modalities[1].values[1] != 0);
}

TEST_CASE("prepare: averaging over time leaves one step, with either mask", "[model][prepare]") {
  for (const char* source : {"zeros", "lengths"}) {
    INFO(source);
    Config config;
    config.mask_source = source;
    config.need_normalized = true;
    Dataset data = tiny();
    prepare(config, data);
    const Sequences& audio = data.splits["train"].modalities[1];
    CHECK(audio.steps == 1);
    CHECK(audio.values == std::vector<float>{4, 5});
    CHECK(data.splits["train"].modalities[0].steps == 2);  // text stays
  }
}

TEST_CASE("prepare: class weights", "[model][prepare]") {
  Split split;
  split.modalities = {{"text", 5, 1, 1, {1, 1, 1, 1, 1}, {}, 0}};
  split.labels = {0, 0, 0, 2, 2};
  Config config;
  CHECK(class_weights(config, split).empty());
  config.train_mode = "classification";
  config.num_classes = 3;
  CHECK(class_weights(config, split).empty());
  config.class_weight = "balanced";
  const auto balanced = class_weights(config, split);
  REQUIRE(balanced.size() == 3);
  CHECK(balanced[0] == Approx(5.0 / (3 * 3)));
  CHECK(balanced[1] == Approx(5.0 / 3));  // no sample: as if there were one
  CHECK(balanced[2] == Approx(5.0 / (2 * 3)));
  config.class_weights = {1, 2, 3};  // beats balanced
  CHECK(class_weights(config, split) == std::vector<double>{1, 2, 3});
}

TEST_CASE("prepare: class labels outside the range are named with split and sample",
          "[model][prepare]") {
  Config config;
  Dataset data = tiny();
  data.labels_key = "classification_labels";
  check_labels(config, data, "f.pkl");  // regression: anything goes
  config.train_mode = "classification";
  config.num_classes = 2;
  CHECK(message([&] { check_labels(config, data, "f.pkl"); }) ==
        "f.pkl: split test: classification_labels of sample test_0 is 20, expected a class in [0, "
        "2)");
  config.num_classes = 21;
  CHECK(message([&] { check_labels(config, data, "f.pkl"); }) == "no error");
}

TEST_CASE("prepare: names of the field's data sets and where their files lie", "[model][prepare]") {
  for (const char* name : {"ch-sims", "CH_SIMS", "chsims", "CH-SIMS-v1", "SIMS", "sims"})
    CHECK(dataset_alias(name) == "sims");
  CHECK(dataset_alias("MOSI") == "mosi");
  CHECK(dataset_alias("Data/My.pkl") == "Data/My.pkl");
  const testing::TemporaryFolder folder;
  const std::string dir = folder / "";
  CHECK(dataset_path("mosi", "/d") == "/d/MOSI/mosi_aligned_50.pkl");
  CHECK(dataset_path("mosei", "") == "data/MOSEI/mosei_aligned_50.pkl");
  CHECK(dataset_path("iemocap", "/d") == "/d/IEMOCAP/iemocap_data.pkl");
  CHECK(dataset_path("x/y.pkl", "/d") == "x/y.pkl");
  CHECK(dataset_path("sims", dir) == dir + "CH-SIMS/chsims.pkl");
  std::filesystem::create_directories(dir + "SIMS/Processed");
  std::ofstream(dir + "SIMS/Processed/unaligned_39.pkl") << "x";
  CHECK(dataset_path("sims", dir) == dir + "SIMS/Processed/unaligned_39.pkl");
  std::filesystem::create_directories(dir + "CH-SIMS");
  std::ofstream(dir + "CH-SIMS/chsims.pkl") << "x";
  CHECK(dataset_path("sims", dir) == dir + "CH-SIMS/chsims.pkl");
}

TEST_CASE("prepare: opening honours featurePath, feature files, splits and the protocol",
          "[model][prepare]") {
  const testing::TemporaryFolder folder;
  GeneratedOptions options;
  options.train = 5, options.valid = 3, options.test = 2;
  const std::string first = folder / "first.safetensors", second = folder / "second.pkl";
  save_dataset(first, generate_dataset(options));
  options.seed = 2;
  options.modalities[1].width = 3;
  save_dataset(second, generate_dataset(options));

  Config config;
  CHECK(open_dataset(config, first, "").splits.at("train").modalities[1].width == 12);
  config.featurePath = second;
  CHECK(open_dataset(config, "mosi", "/nowhere").splits.at("train").modalities[1].width == 3);
  config.featurePath.clear();
  config.feature_A = second;
  const Dataset mixed = open_dataset(config, first, "");
  CHECK(mixed.splits.at("test").modalities[1].width == 3);
  CHECK(mixed.splits.at("test").modalities[0].width == 24);
  config.feature_A.clear();
  const Dataset one = open_dataset(config, first, "", nullptr, {"test"});
  CHECK(one.splits.size() == 1);
  CHECK(one.splits.at("test").count() == 2);

  // IEMOCAP's second protocol: train on train and valid, validate on test.
  std::filesystem::create_directories(folder / "IEMOCAP");
  Dataset classes = generate_dataset(options);
  classes.labels_key = "classification_labels";
  for (auto& [name, split] : classes.splits)
    for (float& y : split.labels) y = y > 0;
  save_dataset(folder / "IEMOCAP/iemocap_data.pkl", classes);
  config.train_mode = "classification";
  config.num_classes = 2;
  CHECK(open_dataset(config, "iemocap", folder / "").splits.at("train").count() == 5);
  config.iemocap_protocol = "paper_count";
  const Dataset merged = open_dataset(config, "iemocap", folder / "");
  CHECK(merged.splits.at("train").count() == 8);
  CHECK(merged.splits.at("valid").ids == merged.splits.at("test").ids);
}
