// Tests of token ids in data sets: rows, lengths, checks, reading from every kind of text.
#include <catch2/catch.hpp>
#include <stdexcept>

#include "data/dataset_file.h"
#include "data/standardize.h"
#include "data/tokens.h"
#include "pickle_bytes.h"
#include "temporary_folder.h"

namespace {

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

using Keys = std::vector<std::pair<std::string, std::string>>;
using Ids = std::vector<int32_t>;

const char* const kAt = "file.pkl: split train: ";
const std::string kVocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\n";
// Two clips of four steps: ids, attention, segments.
const Ids kTokens{2, 4, 3, 0, 1, 1, 1, 0, 0, 0, 0, 0, 2, 3, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0};

template <typename T>
std::string whole(const char* type, const std::vector<int64_t>& shape, const Ids& values,
                  bool fortran = false) {
  std::string data;
  for (const int32_t value : values) data += raw(T(value));
  return array_of(dtype(type), shape, bytes(data), fortran);
}

std::string token_array(const Ids& values = kTokens) {
  return whole<int64_t>("i8", {2, 3, 4}, values);
}

/// Two samples with everything but float text; `changes` replace or add keys, an empty value
/// removes one.
std::string file_with(const Keys& changes = {}) {
  Keys keys{{"audio", filled({2, 5, 2})},
            {"vision", filled({2, 4, 3})},
            {"raw_text", list({str("Good film"), str("")})},
            {"text_bert", token_array()},
            {"regression_labels", list({real(1.5), real(-2)})},
            {"id", list({str("x"), str("y")})}};
  for (const auto& change : changes) {
    std::erase_if(keys, [&](const auto& key) { return key.first == change.first; });
    if (!change.second.empty()) keys.push_back(change);
  }
  return pickled(dict({{"train", dict(keys)}}));
}

LoadOptions with_tokens(const WordPiece* tokenizer = nullptr, int64_t steps = 50) {
  LoadOptions options;
  options.token_ids = true;
  options.tokenizer = tokenizer;
  options.token_steps = steps;
  return options;
}

Sequences text_of(const Keys& changes, const LoadOptions& options = with_tokens()) {
  const std::string file = file_with(changes);
  const Dataset data = load_dataset(view_of(file), options);
  return data.splits.at("train").modalities.at(0);
}

std::string error_of(const Keys& changes, const LoadOptions& options = with_tokens()) {
  return message_of<input_error>([&] { text_of(changes, options); });
}

TEST_CASE("tokens: the attention mask is row 1 unless row 2 sums to more", "[data][tokens]") {
  CHECK(attention_row(kTokens, 4) == 1);
  CHECK(attention_row(Ids{7, 7, 0, 0, 1, 1}, 2) == 2);
  CHECK(attention_row(Ids{7, 7, 1, 1, 1, 1}, 2) == 1);
  CHECK(attention_row(Ids{7, 7, 0, 1, 1, 1}, 2) == 2);
  CHECK(attention_row(Ids{7, 7, 0, 0, 0, 0}, 2) == 1);
  // One clip alone would say otherwise: the sums are over all clips.
  CHECK(attention_row(Ids{7, 7, 0, 0, 1, 1, 7, 7, 1, 1, 0, 0, 7, 7, 1, 1, 0, 0}, 2) == 1);
  CHECK(attention_row(Ids{}, 2) == 1);
  CHECK_THROWS_AS(attention_row(Ids{1, 2, 3, 4}, 1), std::invalid_argument);
  CHECK_THROWS_AS(attention_row(Ids{}, 0), std::invalid_argument);
}

TEST_CASE("tokens: lengths end at the last attended token", "[data][tokens]") {
  CHECK(token_lengths(kTokens, 4) == Ids{3, 2});
  CHECK(token_lengths(Ids{7, 7, 7, 0, 0, 0, 1, 0, 1}, 3) == Ids{3});  // row 2, a hole inside
  CHECK(token_lengths(Ids{7, 7, 0, 0, 0, 0}, 2) == Ids{0});
}

TEST_CASE("tokens: text_bert of every integer type and both formats", "[data][tokens]") {
  const auto same = [](const Sequences& text) {
    CHECK(text.name == "text");
    CHECK((text.count == 2 && text.steps == 4 && text.width == 0 && text.token_steps() == 4));
    CHECK(text.values.empty());
    CHECK(text.tokens == kTokens);
    CHECK(text.lengths == Ids{3, 2});
  };
  same(text_of({}));
  same(text_of({{"text", filled({2, 9, 7})}, {"text_lengths", list({integer(9), integer(9)})}}));
  same(text_of({{"text_bert", whole<int32_t>("i4", {2, 3, 4}, kTokens)}}));
  same(text_of({{"text_bert", whole<uint8_t>("u1", {2, 3, 4}, kTokens)}}));
  same(text_of({{"text_bert", whole<double>("f8", {2, 3, 4}, kTokens)}}));
  Ids turned;  // Fortran order
  for (size_t t = 0; t < 4; ++t)
    for (size_t r = 0; r < 3; ++r)
      for (size_t n = 0; n < 2; ++n) turned.push_back(kTokens[(n * 3 + r) * 4 + t]);
  same(text_of({{"text_bert", whole<int64_t>("i8", {2, 3, 4}, turned, true)}}));
}

TEST_CASE("tokens: files that Python wrote", "[data][tokens]") {
  const std::string seeds = DECALIGN_TEST_SEEDS;
  LoadOptions keep;
  keep.keep_text = true;
  for (const std::string name :
       {"/pickle/tokens_numpy1_protocol4.pkl", "/pickle/tokens_numpy2_protocol4.pkl",
        "/safetensors/tokens.safetensors"}) {
    INFO(name);
    const Dataset data = load_dataset(seeds + name, with_tokens());
    for (const char* split : {"train", "valid", "test"}) {
      const Sequences& text = data.splits.at(split).modalities.at(0);
      CHECK((text.width == 0 && text.steps == 4));
      CHECK(Ids(text.tokens.begin(), text.tokens.begin() + 4) == Ids{2, 4, 3, 0});
      CHECK(text.lengths == Ids{3, 2});
      const bool turned = name[1] == 'p' && std::string(split) == "valid";
      CHECK(attention_row(text.tokens, 4) == (turned ? 2 : 1));
    }
    const Dataset kept = load_dataset(seeds + name, keep);
    CHECK(kept.splits.at("train").raw_text == std::vector<std::string>{"Good", ""});
    if (name[1] != 'p') continue;
    CHECK(kept.splits.at("valid").raw_text == std::vector<std::string>{"caf\u00e9", "\u4f60"});
    CHECK(kept.splits.at("test").raw_text == std::vector<std::string>{"a", "b"});
  }
}

TEST_CASE("tokens: without token ids to be had float text is read", "[data][tokens]") {
  for (const Keys& changes :
       {Keys{{"text_bert", ""}, {"text", filled({2, 9, 7})}},
        Keys{{"text_bert", filled({2, 9, 7})}, {"text", filled({2, 2, 2})}},
        Keys{{"text_bert", ""}, {"raw_text", ""}, {"text", filled({2, 9, 7})}}}) {
    const Sequences text = text_of(changes);
    CHECK(text.tokens.empty());
    CHECK((text.steps == 9 && text.width == 7));
  }
  CHECK(text_of({{"text_bert", filled({2, 3, 7})}}).width == 7);  // halves: features
  CHECK(error_of({{"text_bert", ""}},
                 [] {
                   LoadOptions options = with_tokens();
                   options.modalities = {"text", "audio"};
                   return options;
                 }()) ==
        std::string(kAt) +
            "has only raw_text; a vocabulary, 'text_bert' or float 'text' is needed");
  // Not asked for: as ever.
  CHECK(error_of({}, {}) ==
        std::string(kAt) + "has only text_bert (token ids); float 'text' [N, T, d] is needed");
  CHECK(text_of({{"text", filled({2, 9, 7})}}, {}).tokens.empty());
}

TEST_CASE("tokens: raw_text through a tokenizer", "[data][tokens]") {
  const WordPiece tokenizer(kVocabulary, "v");
  const Ids expected{2, 4, 5, 3, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0,
                     2, 3, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  const Keys changes{{"text_bert", ""}, {"text", filled({2, 9, 7})}};
  const Sequences text = text_of(changes, with_tokens(&tokenizer, 5));
  CHECK((text.count == 2 && text.steps == 5 && text.width == 0));
  CHECK(text.tokens == expected);
  CHECK(text.lengths == Ids{4, 2});
  CHECK(text_of(changes, with_tokens(&tokenizer, 3)).tokens ==
        Ids{2, 4, 3, 1, 1, 1, 0, 0, 0, 2, 3, 0, 1, 1, 0, 0, 0, 0});
  CHECK(text_of({{"text_bert", filled({2, 9, 7})}}, with_tokens(&tokenizer)).width == 7);
  CHECK(text_of({}, with_tokens(&tokenizer)).tokens == kTokens);  // the file's own come first
  CHECK(error_of({{"text_bert", ""}, {"raw_text", list({str("a")})}}, with_tokens(&tokenizer)) ==
        std::string(kAt) + "audio has 2 samples, text has 1");
  CHECK(
      error_of({{"text_bert", ""}, {"raw_text", list({str("a"), "N"})}}, with_tokens(&tokenizer)) ==
      std::string(kAt) + "raw_text: entry 1 is neither text nor a number");
  const WordPiece other("[CLS]\n[SEP]\n[UNK]\n[PAD]\n", "v");
  CHECK(tokenize(other, std::vector<std::string>{"a"}, 4) ==
        Ids{0, 2, 1, 3, 1, 1, 1, 0, 0, 0, 0, 0});
  CHECK_THROWS_AS(tokenize(other, {}, 1), std::invalid_argument);
}

TEST_CASE("tokens: wrong arrays name file, split, key, clip and position",
          "[data][tokens][errors]") {
  const std::string at = std::string(kAt) + "text_bert: ";
  CHECK(error_of({{"text_bert", whole<int64_t>("i8", {2, 4, 3}, kTokens)}}) ==
        at + "token ids [N, 3, T] are expected, the file has an array of int64 [2, 4, 3]");
  CHECK(error_of({{"text_bert", whole<int64_t>("i8", {6, 4}, kTokens)}}).find("[6, 4]") !=
        std::string::npos);
  CHECK(error_of({{"text_bert", list({integer(1), integer(2)})}}) ==
        at + "token ids [N, 3, T] are expected, the file has a list");
  CHECK(error_of({{"text_bert", whole<int64_t>("i8", {2, 3, 0}, {})}}).find("is empty") !=
        std::string::npos);
  CHECK(error_of({{"text_bert", whole<int8_t>("b1", {2, 3, 4}, kTokens)}}).find("are expected") !=
        std::string::npos);
  Ids values = kTokens;
  values[14] = -1;
  CHECK(error_of({{"text_bert", token_array(values)}}) ==
        at + "clip 1, row 0, position 2 is -1, a whole number from 0 to 2147483647 is expected");
  std::string data;
  for (size_t i = 0; i < kTokens.size(); ++i) data += raw(i == 7 ? int64_t(1) << 31 : int64_t(0));
  CHECK(error_of({{"text_bert", array_of(dtype("i8"), {2, 3, 4}, bytes(data))}})
            .find("clip 0, row 1, position 3 is 2147483648,") != std::string::npos);
  CHECK(error_of({{"audio", filled({3, 5, 2})}}) ==
        std::string(kAt) + "audio has 3 samples, text has 2");
  const std::string two =
      pickled(dict({{"train", dict({{"audio", filled({1, 2, 2})},
                                    {"text_bert", whole<int64_t>("i8", {1, 3, 1}, {1, 1, 0})},
                                    {"regression_labels", list({real(1)})}})},
                    {"test", dict({{"audio", filled({1, 2, 2})},
                                   {"text", filled({1, 2, 2})},
                                   {"regression_labels", list({real(1)})}})}}));
  CHECK(message_of<input_error>([&] { load_dataset(view_of(two), with_tokens()); }) ==
        "file.pkl: splits test and train: text is token ids in one and features in the other");
}

TEST_CASE("tokens: ids outside the vocabulary name clip and position", "[data][tokens][errors]") {
  Split split;
  split.ids = {"first", "second"};
  split.modalities.push_back({"text", 2, 4, 0, {}, {3, 2}, 0, kTokens});
  const auto error = [&](int64_t vocabulary, int64_t segments) {
    return message_of<input_error>(
        [&] { check_token_ids(split, vocabulary, segments, "f.pkl: split train"); });
  };
  Ids& tokens = split.modalities[0].tokens;
  CHECK(error(5, 1) == "no error");
  CHECK(error(4, 1) ==
        "f.pkl: split train: text_bert: clip 0 (first), position 1: token id 4 is outside the "
        "vocabulary [0, 4)");
  tokens[20] = 1;
  CHECK(error(5, 2) == "no error");
  CHECK(error(5, 1) ==
        "f.pkl: split train: text_bert: clip 1 (second), position 0: segment id 1 is outside the "
        "model's segments [0, 1)");
  tokens[18] = 2;
  CHECK(error(5, 2).find("clip 1 (second), position 2: the attention mask's entry 2") !=
        std::string::npos);
  // The same with the mask in row 2.
  tokens = {2, 4, 3, 0, 0, 0, 0, 2, 1, 1, 1, 0, 2, 3, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0};
  CHECK(error(5, 2).find("clip 0 (first), position 3: segment id 2") != std::string::npos);
  split.modalities[0].tokens.clear();
  CHECK(error(1, 1) == "no error");
}

TEST_CASE("tokens: float text, token ids and raw text survive both formats",
          "[data][tokens][file]") {
  TemporaryFolder folder;
  LoadOptions keep;
  keep.keep_text = true;
  const Keys both{{"text", filled({2, 9, 7})}, {"text_lengths", list({integer(9), integer(4)})}};
  const WordPiece tokenizer(kVocabulary, "v");
  for (const Keys& changes : {both, Keys{}, Keys{{"text_bert", ""}, {"text", filled({2, 9, 7})}}}) {
    for (const bool again : {false, true}) {
      keep.tokenizer = again ? &tokenizer : nullptr;
      const std::string file = file_with(changes);
      const Dataset data = load_dataset(view_of(file), keep);
      const Split& first = data.splits.at("train");
      const Sequences& text = first.modalities[0];
      CHECK(first.raw_text == std::vector<std::string>{"Good film", ""});
      CHECK((text.width == 7) == !changes.empty());
      CHECK(text.lengths ==
            (changes.size() == 2 && changes[0].first == "text" ? Ids{9, 4} : Ids{}));
      if (again) CHECK(text.tokens == tokenize(tokenizer, first.raw_text, 50));
      if (!again)
        CHECK(text.tokens ==
              (changes.size() == 2 && changes[0].first == "text_bert" ? Ids{} : kTokens));
      for (const char* name : {"d.pkl", "d.safetensors"}) {
        save_dataset(folder / name, data);
        LoadOptions plain = keep;
        plain.tokenizer = nullptr;
        const Dataset saved = load_dataset(folder / name, plain);
        const Sequences& back = saved.splits.at("train").modalities[0];
        CHECK(back.tokens == text.tokens);
        CHECK(back.values == text.values);
        CHECK(back.lengths == text.lengths);
        CHECK(saved.splits.at("train").raw_text == first.raw_text);
      }
    }
  }
  CHECK(error_of({{"raw_text", list({str("a")})}, {"text_bert", ""}, {"text", filled({2, 9, 7})}},
                 [] {
                   LoadOptions options;
                   options.keep_text = true;
                   return options;
                 }()) == std::string(kAt) + "raw_text has 1 entries, the features have 2 samples");
  keep.tokenizer = &tokenizer;
  CHECK(error_of({{"raw_text", ""}}, keep) == std::string(kAt) + "has no raw_text");
  CHECK(error_of({{"raw_text", list({str("a")})}, {"text", filled({2, 9, 7})}}, keep) ==
        std::string(kAt) + "raw_text has 1 samples, text has 2");
}

TEST_CASE("tokens: a feature file may hold them", "[data][tokens]") {
  TemporaryFolder folder;
  write_file(folder / "t.pkl", pickled(dict({{"train", dict({{"text_bert", token_array()}})}})));
  LoadOptions options = with_tokens();
  options.feature_files["text"] = folder / "t.pkl";
  const Keys changes{{"text_bert", ""}, {"raw_text", ""}};
  CHECK(text_of(changes, options).tokens == kTokens);
  CHECK(text_of({{"text", filled({2, 9, 7})}}, options).tokens == kTokens);
  options.token_ids = false;
  CHECK(error_of(changes, options) ==
        folder /
            "t.pkl: split train: has only text_bert (token ids); float 'text' [N, T, d] is needed");
}

TEST_CASE("tokens: train and valid are merged with them", "[data][tokens]") {
  Dataset data;
  for (const char* name : {"train", "valid", "test"}) {
    Split& split = data.splits[name];
    split.modalities.push_back({"text", 2, 4, 0, {}, {3, 2}, 0, kTokens});
    split.ids = {"x", "y"};
    split.raw_text = {"a", "b"};
  }
  merge_train_and_valid(data);
  const Split& train = data.splits.at("train");
  CHECK(train.modalities[0].tokens.size() == 2 * kTokens.size());
  CHECK(train.modalities[0].token_steps() == 4);
  CHECK(train.modalities[0].lengths == Ids{3, 2, 3, 2});
  CHECK(train.raw_text.size() == 4);
}

}  // namespace
