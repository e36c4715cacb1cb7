// Tests of MMSA files: what is read, what is cleaned, what each kind of bad input says.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdio>
#include <limits>

#include "data/mmsa.h"
#include "pickle_bytes.h"

namespace {

using namespace decalign;
using namespace decalign::test;

using Keys = std::vector<std::pair<std::string, std::string>>;

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInf = std::numeric_limits<float>::infinity();

/// A well-formed split of two samples; `changes` replace or add keys, an empty value removes one.
std::string split_with(const Keys& changes = {}) {
  Keys keys{{"text", filled({2, 3, 4})},
            {"audio", filled({2, 5, 2})},
            {"vision", filled({2, 4, 3})},
            {"regression_labels", list({real(1.5), real(-2)})},
            {"id", list({str("x"), str("y")})}};
  for (const auto& change : changes) {
    std::erase_if(keys, [&](const auto& key) { return key.first == change.first; });
    if (!change.second.empty()) keys.push_back(change);
  }
  return dict(keys);
}

std::string file_with(const Keys& changes) {
  return pickled(dict({{"train", split_with(changes)}}));
}

Dataset load(const std::string& text, const LoadOptions& options = {}) {
  return load_mmsa(view_of(text), options);
}

std::string error_of(const std::string& text, const LoadOptions& options = {}) {
  return message_of<input_error>([&] { load(text, options); });
}

std::string error_with(const Keys& changes, const LoadOptions& options = {}) {
  return error_of(file_with(changes), options);
}

TEST_CASE("data: MMSA files of numpy 1 and 2, protocols 2 to 5, give the same data",
          "[data][mmsa]") {
  const int numpy = GENERATE(1, 2);
  const int protocol = GENERATE(2, 3, 4, 5);
  const Dataset data =
      load_mmsa(std::string(DECALIGN_TEST_SEEDS) + "/pickle/mmsa_numpy" + std::to_string(numpy) +
                "_protocol" + std::to_string(protocol) + ".pkl");
  REQUIRE(data.splits.size() == 3);
  CHECK(data.splits.at("valid").count() == 2);
  const Split& train = data.splits.at("train");
  REQUIRE(train.modalities.size() == 3);
  const Sequences& text = train.modalities[0];
  const Sequences& audio = train.modalities[1];
  const Sequences& vision = train.modalities[2];
  CHECK((text.name == "text" && audio.name == "audio" && vision.name == "vision"));
  CHECK((text.count == 4 && text.steps == 4 && text.width == 3));
  CHECK((audio.count == 4 && audio.steps == 5 && audio.width == 2));
  for (size_t i = 0; i < text.values.size(); ++i) CHECK(text.values[i] == (float(i) - 2) / 8);
  for (size_t i = 0; i < vision.values.size(); ++i) CHECK(vision.values[i] == (float(i) - 2) / 2);
  // NaN, +inf, -inf and 1e300 stood in the first four places of a Fortran array of doubles.
  CHECK(audio.cleaned == 4);
  for (size_t i = 0; i < audio.values.size(); ++i) {
    CHECK(audio.values[i] == (i < 4 ? 0.0f : (float(i) - 2) / 4));
  }
  CHECK(text.lengths.empty());
  CHECK(audio.lengths == std::vector<int32_t>{5, 4, 3, 5});
  CHECK(vision.lengths == std::vector<int32_t>{3, 2, 3, 2});
  CHECK(train.labels == std::vector<float>{-1.5f, -0.5f, 0.5f, 1.5f});
  CHECK(train.ids[3] == "train$_$3");
  CHECK(data.splits.at("test").labels == std::vector<float>{-1.5f, -0.5f, 0.5f});
}

TEST_CASE("data: the options choose splits, modalities and labels", "[data][mmsa]") {
  LoadOptions options;
  options.splits = {"test"};
  options.modalities = {"vision", "text"};
  options.labels_key = "classification_labels";
  const Dataset data =
      load_mmsa(std::string(DECALIGN_TEST_SEEDS) + "/pickle/mmsa_numpy2_protocol4.pkl", options);
  REQUIRE(data.splits.size() == 1);
  const Split& test = data.splits.at("test");
  REQUIRE(test.modalities.size() == 2);
  CHECK(test.modalities[0].name == "text");
  CHECK(test.modalities[1].name == "vision");
  CHECK(test.labels == std::vector<float>{0, 1, 2});
  CHECK(data.labels_key == "classification_labels");
}

TEST_CASE("data: other modalities are found by their shape, after text, audio, vision",
          "[data][mmsa]") {
  const Dataset data = load(file_with({{"thermal", filled({2, 2, 6})},
                                       {"depth", filled({2, 1, 1})},
                                       {"text_bert", filled({2, 3, 9})},
                                       {"video", filled({2, 7})},
                                       {"audio", filled({2, 8})}}));
  const auto& modalities = data.splits.at("train").modalities;
  REQUIRE(modalities.size() == 5);
  CHECK(modalities[1].name == "audio");
  CHECK((modalities[1].steps == 1 && modalities[1].width == 8));
  CHECK(modalities[3].name == "depth");
  CHECK(modalities[4].name == "thermal");
}

TEST_CASE("data: labels and ids come in every shape the field uses", "[data][mmsa]") {
  const auto labels = [](const std::string& value) {
    return load(file_with({{"regression_labels", value}})).splits.at("train").labels;
  };
  const std::vector<float> expected{1.5f, -2.0f};
  CHECK(labels(floats({2}, {1.5f, -2})) == expected);
  CHECK(labels(floats({2, 1}, {1.5f, -2})) == expected);
  CHECK(labels(list({str("1.5"), str(" -2 ")})) == expected);
  CHECK(labels(list({list({real(1.5)}), floats({1}, {-2})})) == expected);
  CHECK(labels(array_of(dtype("O8"), {2}, list({real(1.5), integer(-2)}))) == expected);
  CHECK(labels(array_of(dtype("S4"), {2}, bytes(std::string("+1.5-2\0\0", 8)))) == expected);
  const auto ids = [](const std::string& value) {
    return load(file_with({{"id", value}})).splits.at("train").ids;
  };
  CHECK(ids("") == std::vector<std::string>{"train_0", "train_1"});
  CHECK(ids(list({integer(12), bytes("a\xe9")})) == std::vector<std::string>{"12", "a\xc3\xa9"});
  CHECK(ids(floats({2}, {3, 0.5f})) == std::vector<std::string>{"3", "0.5"});
  CHECK(ids(array_of(dtype("S2"), {2}, bytes("abcd"))) == std::vector<std::string>{"ab", "cd"});
  CHECK(ids(list({str("\xff"), str("b")}))[0] == "\xef\xbf\xbd");
}

TEST_CASE("data: labels and ids in the other forms Python gives them", "[data][mmsa]") {
  const int numpy = GENERATE(1, 2);
  const Dataset data = load_mmsa(std::string(DECALIGN_TEST_SEEDS) + "/pickle/labels_numpy" +
                                 std::to_string(numpy) + "_protocol4.pkl");
  for (const char* name : {"train", "valid", "test"}) {
    CHECK(data.splits.at(name).labels == std::vector<float>{1.5f, -2.0f});
  }
  CHECK(data.splits.at("train").ids == std::vector<std::string>{"a", "b"});
  CHECK(data.splits.at("valid").ids == std::vector<std::string>{"1", "b"});
  CHECK(data.splits.at("test").ids == std::vector<std::string>{"0", "1"});
  const Sequences& audio = data.splits.at("test").modalities[1];
  CHECK(audio.values == std::vector<float>{-2, -1, 0, 1, 2, 3});
  CHECK(audio.lengths == std::vector<int32_t>{1, 0});
}

TEST_CASE("data: NaN and infinity in features become 0 and are counted", "[data][mmsa]") {
  const Dataset data =
      load(file_with({{"vision", floats({2, 1, 3}, {1, kNan, kInf, -kInf, 2, 3})}}));
  const Sequences& vision = data.splits.at("train").modalities[2];
  CHECK(vision.values == std::vector<float>{1, 0, 0, 0, 2, 3});
  CHECK(vision.cleaned == 3);
}

TEST_CASE("data: bad input names file, split and key", "[data][mmsa]") {
  const std::string at = "file.pkl: split train: ";
  CHECK(error_with({{"audio", filled({3, 5, 2})}}) == at + "audio has 3 samples, text has 2");
  CHECK(error_with({{"thermal", filled({3, 5, 2})}}) == at + "thermal has 3 samples, text has 2");
  CHECK(error_with({{"regression_labels", ""}}) == at + "has no labels 'regression_labels'");
  CHECK(error_with({{"regression_labels", list({real(1)})}}) ==
        at + "regression_labels has 1 entries, the features have 2 samples");
  CHECK(error_with({{"regression_labels", floats({2}, {1, kNan})}}) ==
        at + "regression_labels: entry 1 is nan, a finite number is expected");
  CHECK(error_with({{"regression_labels", floats({2}, {kInf, 1})}}).find("entry 0 is inf") !=
        std::string::npos);
  CHECK(error_with({{"regression_labels", list({str("good"), str("bad")})}}) ==
        at + "regression_labels: entry 0 is 'good', a number is expected");
  CHECK(error_with({{"regression_labels", list({"N", "N"})}}).find("is no number") !=
        std::string::npos);
  CHECK(error_with({{"regression_labels", filled({2, 3})}}).find("[N] or [N, 1], is expected") !=
        std::string::npos);
  CHECK(error_with({{"regression_labels", real(1)}}).find("the file has a float") !=
        std::string::npos);
  CHECK(error_with({{"audio_lengths", list({integer(5), integer(6)})}}) ==
        at + "audio_lengths: entry 1 is 6, a whole number from 0 to 5 is expected");
  CHECK(error_with({{"audio_lengths", list({integer(-1), integer(1)})}}).find("entry 0 is -1") !=
        std::string::npos);
  CHECK(error_with({{"audio_lengths", list({real(0.5), integer(1)})}}).find("entry 0 is 0.5") !=
        std::string::npos);
  CHECK(error_with({{"audio_lengths", floats({2}, {kNan, 1})}}).find("entry 0 is nan") !=
        std::string::npos);
  CHECK(error_with({{"audio_lengths", list({integer(1)})}}) ==
        at + "audio_lengths has 1 entries, audio has 2 samples");
  CHECK(error_with({{"id", list({str("x")})}}).find("id has 1 entries") != std::string::npos);
  CHECK(error_with({{"id", list({"N", "N"})}}).find("neither text nor a number") !=
        std::string::npos);
  CHECK(error_with({{"id", integer(1)}}).find("a list or an array is expected") !=
        std::string::npos);
  CHECK(error_with(
            {{"text", ""}, {"text_bert", array_of(dtype("i1"), {2, 3, 1}, bytes("111111"))}}) ==
        at + "has only text_bert (token ids); float 'text' [N, T, d] is needed");
  CHECK(error_with({{"text", ""}, {"audio", ""}}) ==
        at + "at least 2 modalities are needed, 1 found");
  CHECK(error_with({{"text", list({real(1)})}}) ==
        at + "text: a numeric array [N, T, d] or [N, d] is expected, the file has a list");
  CHECK(error_with({{"text", filled({2, 1, 1, 1})}}).find("[2, 1, 1, 1]") != std::string::npos);
  CHECK(error_with({{"text", filled({2, 0, 3})}}).find("[2, 0, 3] is empty") != std::string::npos);
}

TEST_CASE("data: float text_bert stands in for absent text", "[data][mmsa]") {
  const Dataset data = load(file_with({{"text", ""}, {"text_bert", filled({2, 3, 9})}}));
  CHECK(data.splits.at("train").modalities[0].name == "text");
  CHECK(data.splits.at("train").modalities[0].width == 9);
}

TEST_CASE("data: bad options and files that are no data set are named", "[data][mmsa]") {
  LoadOptions options;
  options.splits = {"valid"};
  CHECK(error_with({}, options) == "file.pkl: has no split 'valid'");
  options = {};
  options.modalities = {"text", "smell"};
  CHECK(error_with({}, options) == "file.pkl: split train: has no array 'smell'");
  CHECK(error_of(pickled(dict({{"dev", split_with()}}))) ==
        "file.pkl: has none of the splits train, valid, test");
  CHECK(error_of(pickled(list({}))) == "file.pkl: a dict of splits is expected, it holds a list");
  CHECK(error_of(pickled(dict({{"train", "N"}}))) ==
        "file.pkl: split train: a dict of arrays is expected, it is None");
  CHECK(message_of<input_error>([] { load_mmsa("/nonexistent/a.pkl"); }) ==
        "/nonexistent/a.pkl: cannot be opened: No such file or directory");
  CHECK(message_of<input_error>([] { load_mmsa("/"); }) == "/: is not a regular file");
  options = {};
  options.labels_key = "classification_labels";
  const std::string classes = "classification_labels";
  CHECK(error_with({{classes, list({integer(0), integer(-1)})}}, options).find("a class index") !=
        std::string::npos);
  CHECK(error_with({{classes, list({real(0.5), integer(1)})}}, options).find("a class index") !=
        std::string::npos);
}

TEST_CASE("data: unlabelled data only where it is allowed", "[data][mmsa]") {
  LoadOptions options;
  options.allow_unlabelled = true;
  const Dataset data = load(file_with({{"regression_labels", ""}}), options);
  CHECK(data.splits.at("train").labels.empty());
  CHECK(data.splits.at("train").count() == 2);
}

TEST_CASE("data: splits must have the same modalities and widths", "[data][mmsa]") {
  const auto two = [](const Keys& changes) {
    return error_of(pickled(dict({{"train", split_with()}, {"test", split_with(changes)}})));
  };
  CHECK(two({{"audio", filled({2, 9, 2})}}) == "no error");
  CHECK(two({{"audio", filled({2, 5, 3})}}) ==
        "file.pkl: splits test and train: audio is 3 and 2 wide, equal widths are expected");
  CHECK(two({{"audio", ""}}) == "file.pkl: splits test and train have different modalities");
  CHECK(two({{"audio", ""}, {"thermal", filled({2, 5, 3})}}).find("different modalities") !=
        std::string::npos);
}

TEST_CASE("data: one array under many names cannot multiply a small file", "[data][mmsa]") {
  // The array is stored once and memoized; each further name costs a few bytes.
  std::string split = "}(" + str("text") + filled({50, 10, 10}) + "\x94";
  for (int i = 0; i < 30; ++i) split += str("m" + std::to_string(i)) + "h" + std::string(1, '\0');
  CHECK(error_of(pickled(dict({{"train", split + "u"}}))) ==
        "file.pkl: split train: its arrays have more entries than the file has bytes");
  const std::string id = str(std::string(5000, 'x')) + "\x94";
  std::string ids = "](" + id;
  for (int i = 1; i < 2; ++i) ids += "h" + std::string(1, '\0');
  CHECK(error_with({{"id", ids + "e"}}).find("more text than the file") != std::string::npos);
}

TEST_CASE("data: a feature file replaces a modality and its lengths", "[data][mmsa]") {
  const std::string path = "test_features.pkl";
  write_file(path,
             pickled(dict({{"train", dict({{"audio", filled({2, 9, 7})},
                                           {"audio_lengths", list({integer(9), integer(1)})}})}})));
  LoadOptions options;
  options.feature_files["audio"] = path;
  const Dataset data = load(file_with({}), options);
  const Sequences& audio = data.splits.at("train").modalities[1];
  CHECK((audio.name == "audio" && audio.steps == 9 && audio.width == 7));
  CHECK(audio.lengths == std::vector<int32_t>{9, 1});
  write_file(path, pickled(dict({{"train", dict({{"audio", filled({3, 9, 7})}})}})));
  CHECK(error_with({}, options) == path + ": split train: audio has 3 samples, text has 2");
  write_file(path, pickled(dict({{"test", "N"}})));
  CHECK(error_with({}, options) == path + ": has no split 'train'");
  std::remove(path.c_str());
}

}  // namespace
