// Tests of the WordPiece tokenizer: Hugging Face's ids, words, vocabularies that are wrong.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "data/dataset.h"
#include "data/unicode.h"
#include "data/wordpiece.h"
#include "pickle_bytes.h"
#include "temporary_folder.h"

namespace {

using namespace decalign;
using namespace decalign::test;
using decalign::testing::TemporaryFolder;

using Ids = std::vector<int32_t>;

const std::string kGolden = std::string(DECALIGN_GOLDEN) + "/../wordpiece";
const std::string kSmall = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##able\nable\n##a\na\n!\ni\n";

Ids small(std::string_view text, const WordPieceOptions& options = {}) {
  return WordPiece(kSmall, "v", options).pieces(text);
}

std::string refused(std::string_view vocabulary) {
  return message_of<input_error>([&] { WordPiece(vocabulary, "v"); });
}

TEST_CASE("wordpiece: the ids that Hugging Face's tokenizer gives", "[data][wordpiece]") {
  const auto file = nlohmann::json::parse(read_file(kGolden + "/lines.json"));
  const std::string vocabulary = read_file(kGolden + "/vocab.txt");
  int lines = 0;
  for (const auto& part : file["cases"]) {
    TemporaryFolder folder;
    write_file(folder / "vocab.txt", vocabulary);
    write_file(folder / "tokenizer_config.json", part["options"].dump());
    const WordPiece tokenizer(folder / "");
    for (const auto& line : part["lines"]) {
      INFO(part["options"].dump() << " " << line["text"].dump(-1, ' ', true));
      CHECK(tokenizer.ids(line["text"].get<std::string>()) == line["ids"].get<Ids>());
      ++lines;
    }
  }
  CHECK(lines == 300);
}

TEST_CASE("wordpiece: words are cut greedily, and whole words are unknown", "[data][wordpiece]") {
  CHECK(small("unable able") == Ids{4, 5, 6});
  CHECK(small("unablea") == Ids{4, 5, 7});
  CHECK(small("unx able") == Ids{1, 6});
  CHECK(small("a!a") == Ids{8, 9, 8});
  CHECK(small("") == Ids{});
  CHECK(small(" \t\r\n\u3000") == Ids{});
  CHECK(small(std::string(100, 'a')).size() == 100);
  CHECK(small(std::string(101, 'a')) == Ids{1});
  std::string marked;  // 100 characters stay when the accents are gone
  for (int i = 0; i < 100; ++i) marked += "a\u0301";
  CHECK(small(marked).size() == 100);
}

TEST_CASE("wordpiece: special tokens are kept whole where they are written as such",
          "[data][wordpiece]") {
  CHECK(small("[SEP]a[PAD][UNK] [CLS]") == Ids{3, 8, 0, 1, 2});
  CHECK(small("a[sep]") == Ids{8, 1, 1, 1});
  CHECK(small("[[SEP]") == Ids{1, 3});
  CHECK(small("[MASK]") == Ids{1, 1, 1});  // not in this vocabulary
  CHECK(WordPiece(kSmall + "[MASK]", "v").pieces("a[MASK]") == Ids{8, 11});
}

TEST_CASE("wordpiece: what is no text is dropped", "[data][wordpiece]") {
  CHECK(small(std::string("u\0n\x01 \x7f", 6)) == Ids{4});
  CHECK(small("u\ufffdn\u00adable\ufeff") == Ids{4, 5});
  CHECK(small("\xff\xfeun\xc3 \xed\xa0\x80") == Ids{4});  // ill-formed: as U+FFFD
  CHECK(small("\u212b \u00c0") == Ids{8, 8});
}

TEST_CASE("wordpiece: case and accents as the options say", "[data][wordpiece]") {
  CHECK(small("UN \u00c1") == Ids{4, 8});
  CHECK(small("UN \u00e1", {.lower_case = false, .strip_accents = {}}) == Ids{1, 1});
  CHECK(small("un \u00e1", {.lower_case = false, .strip_accents = true}) == Ids{4, 8});
  CHECK(small("A \u00e1", {.lower_case = true, .strip_accents = false}) == Ids{8, 1});
  CHECK(small("\u0130") == Ids{10});
  CHECK(lower_cased(U"\u0130\u03a3") == U"i\u0307\u03c3");
  CHECK(decomposed(U"\ud55c\u1e69") ==
        U"\u1112\u1161\u11ab"
        U"s\u0323\u0307");
  CHECK(decomposed(U"a\u0301\u0323") == U"a\u0323\u0301");
}

TEST_CASE("wordpiece: Chinese characters are words", "[data][wordpiece]") {
  const std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n\u4f60\n\u4f60\u597d\n\u597d\n";
  CHECK(WordPiece(vocabulary, "v").pieces("\u4f60\u597d") == Ids{4, 6});
  // The first 256 of extension E are not, as in the model's own definition.
  const std::string rare = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n\U0002b820\U0002b820\n\U0002b920\n";
  CHECK(WordPiece(rare, "v").pieces("\U0002b820\U0002b820\U0002b920") == Ids{4, 5});
  WordPieceOptions together;
  together.chinese_characters = false;
  CHECK(WordPiece(vocabulary, "v", together).pieces("\u4f60\u597d") == Ids{5});
}

TEST_CASE("wordpiece: ids end with [SEP] however short", "[data][wordpiece]") {
  const WordPiece tokenizer(kSmall, "v");
  CHECK(tokenizer.ids("a a a") == Ids{2, 8, 8, 8, 3});
  CHECK(tokenizer.ids("a a a", 5) == Ids{2, 8, 8, 8, 3});
  CHECK(tokenizer.ids("a ! a", 4) == Ids{2, 8, 9, 3});
  CHECK(tokenizer.ids("a a a", 2) == Ids{2, 3});
  CHECK_THROWS_AS(tokenizer.ids("a", 1), std::invalid_argument);
}

TEST_CASE("wordpiece: a vocabulary's lines are its ids", "[data][wordpiece]") {
  CHECK(WordPiece(kSmall, "v").size() == 11);
  CHECK(WordPiece(kSmall + "last", "v").size() == 12);
  // An empty line keeps its number, the last of two equal tokens counts, CR ends a line with LF.
  const WordPiece tokenizer("[PAD]\r\n\r\na\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\na \r\n", "v");
  CHECK(tokenizer.size() == 7);
  CHECK(tokenizer.ids("a b") == Ids{4, 6, 3, 5});
  CHECK(WordPiece("[CLS]\n[SEP]\n[UNK]\n[PAD]\n", "v").padding() == 3);
}

TEST_CASE("wordpiece: wrong vocabularies and configurations are named",
          "[data][wordpiece][errors]") {
  CHECK(refused("") == "v: is empty");
  CHECK(refused("\n\n").starts_with("v: has no token [PAD]"));
  for (const std::string token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}) {
    std::string rest = kSmall;
    rest.erase(rest.find(token), token.size());
    CHECK(refused(rest) == "v: has no token " + token +
                               "; a WordPiece vocabulary has [PAD], [UNK], [CLS] and [SEP]");
  }
  CHECK(refused(kSmall + "\xc3\x28\n") == "v: line 12 is not valid UTF-8");
  TemporaryFolder folder;
  const auto opened = [&] { return message_of<input_error>([&] { WordPiece(folder / ""); }); };
  CHECK(opened() == folder / "vocab.txt: cannot be opened: No such file or directory");
  write_file(folder / "vocab.txt", kSmall);
  CHECK(opened() == "no error");
  const std::string config = folder / "tokenizer_config.json";
  for (const char* text : {"", "{", "[]", "3"}) {
    write_file(config, text);
    CHECK(opened() == config + ": is no JSON object");
  }
  write_file(config, R"({"do_lower_case": 1})");
  CHECK(opened() == config + ": key 'do_lower_case' must be true or false");
  write_file(config, R"({"strip_accents": null, "do_lower_case": false, "other": 1})");
  CHECK(WordPiece(folder / "").pieces("A a") == Ids{1, 8});
}

}  // namespace
