// Tests of data set files: formats told apart, safetensors layout, round trips between the formats.
#include <catch2/catch.hpp>
#include <cstdio>

#include "data/dataset_file.h"
#include "data/generated.h"
#include "data/safetensors.h"
#include "pickle_bytes.h"

namespace {

using namespace decalign;
using namespace decalign::test;

GeneratedOptions small() {
  GeneratedOptions options;
  options.train = 7;
  options.valid = 1;
  options.test = 3;
  return options;
}

void check_equal(const Dataset& a, const Dataset& b) {
  CHECK(a.labels_key == b.labels_key);
  REQUIRE(a.splits.size() == b.splits.size());
  for (const auto& [name, split] : a.splits) {
    INFO(name);
    const Split& other = b.splits.at(name);
    CHECK(split.labels == other.labels);
    CHECK(split.ids == other.ids);
    REQUIRE(split.modalities.size() == other.modalities.size());
    for (size_t m = 0; m < split.modalities.size(); ++m) {
      const Sequences& x = split.modalities[m];
      const Sequences& y = other.modalities[m];
      CHECK(x.name == y.name);
      CHECK((x.count == y.count && x.steps == y.steps && x.width == y.width));
      CHECK(x.values == y.values);
      CHECK(x.lengths == y.lengths);
    }
  }
}

std::string error_of(const std::string& text) {
  return message_of<input_error>([&] { load_dataset(view_of(text, "f")); });
}

/// A safetensors data set of one split with two samples; `metadata` replaces entries.
std::string saved_with(std::map<std::string, std::string> metadata) {
  const std::vector<float> values{1, 2, 3, 4};
  const std::vector<float> labels{0, 1};
  const std::string path = "test_saved.safetensors";
  save_safetensors(path,
                   {tensor_out<float>("train.text", {2, 1, 2}, values),
                    tensor_out<float>("train.audio", {2, 2, 1}, values),
                    tensor_out<float>("train.labels", {2}, labels)},
                   metadata);
  std::string text = read_file(path);
  std::remove(path.c_str());
  return text;
}

TEST_CASE("data: data sets survive the round trip through both formats", "[data][file]") {
  for (const std::string labels : {"regression_labels", "classification_labels"}) {
    Dataset data = generate_dataset(small());
    data.labels_key = labels;
    for (auto& [name, split] : data.splits) {
      split.modalities[1].lengths.clear();
      split.ids[0] = "quote \" and \xe4\xb8\xad";
      if (labels == "classification_labels") split.labels.assign(split.labels.size(), 2.0f);
    }
    LoadOptions options;
    options.labels_key.clear();
    for (const char* path : {"test_data.safetensors", "test_data.pkl", "test_data.pickle"}) {
      INFO(path);
      save_dataset(path, data);
      const Dataset back = load_dataset(path, options);
      check_equal(data, back);
      if (std::string(path).ends_with("safetensors")) {
        REQUIRE(back.noise_floor_mae);
        CHECK(*back.noise_floor_mae == *data.noise_floor_mae);
      }
      std::remove(path);
    }
  }
}

TEST_CASE("data: unlabelled data sets can be saved and read", "[data][file]") {
  Dataset data = generate_dataset(small());
  for (auto& [name, split] : data.splits) split.labels.clear();
  LoadOptions options;
  options.allow_unlabelled = true;
  for (const char* path : {"test_data.safetensors", "test_data.pkl"}) {
    save_dataset(path, data);
    check_equal(data, load_dataset(path, options));
    CHECK(message_of<input_error>([&] { load_dataset(path); }) ==
          std::string(path) + ": split train: has no labels 'regression_labels'");
    std::remove(path);
  }
}

TEST_CASE("data: the safetensors layout is as documented", "[data][file]") {
  const Dataset data =
      load_dataset(std::string(DECALIGN_TEST_SEEDS) + "/safetensors/dataset.safetensors");
  const Split& train = data.splits.at("train");
  REQUIRE(train.modalities.size() == 3);
  CHECK(train.modalities[2].name == "thermal");
  const Sequences& audio = train.modalities[1];
  CHECK(audio.cleaned == 1);
  CHECK(audio.values[0] == 0.0f);
  CHECK(audio.values[3] == 1.5f);
  CHECK(audio.lengths == std::vector<int32_t>{3, 3, 3});
  CHECK(train.labels == std::vector<float>{-1, 0, 1});
  CHECK(train.ids == std::vector<std::string>{"train-0", "train-1", "train-2"});
  CHECK(data.noise_floor_mae == 0.25);
}

TEST_CASE("data: files of other kinds and broken metadata are named", "[data][file]") {
  CHECK(error_of("") == "f: is empty");
  CHECK(error_of("\x89PNG\r\n\x1a\n....") ==
        "f: is neither a pickle of protocol 2 to 5 nor a safetensors file");
  CHECK(error_of("(dp0\n.").find("neither") != std::string::npos);
  CHECK(error_of(saved_with({})) == "no error");
  CHECK(error_of(saved_with({{"labels", "emotions"}})).find("'emotions'") != std::string::npos);
  CHECK(error_of(saved_with({{"labels", "classification_labels"}})) ==
        "f: split train: has no labels 'regression_labels'");
  CHECK(error_of(saved_with({{"train.ids", "[\"a\"]"}})) ==
        "f: split train: id has 1 entries, the features have 2 samples");
  CHECK(error_of(saved_with({{"train.ids", "[1, 2]"}})).find("not text") != std::string::npos);
  CHECK(error_of(saved_with({{"train.ids", "x"}})).find("no JSON array") != std::string::npos);
  CHECK(error_of(saved_with({{"noise_floor_mae", "x"}})).find("no number") != std::string::npos);
}

TEST_CASE("data: a file that cannot be written is named and leaves nothing", "[data][file]") {
  const Dataset data = generate_dataset(small());
  for (const char* path : {"/nonexistent/d.pkl", "/nonexistent/d.safetensors"}) {
    CHECK(message_of<input_error>([&] { save_dataset(path, data); }).starts_with(path));
  }
}

}  // namespace
