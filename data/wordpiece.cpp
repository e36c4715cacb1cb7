// BERT's WordPiece tokenizer.
#include "data/wordpiece.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "data/dataset.h"
#include "data/mapped_file.h"
#include "data/unicode.h"
#include "data/utf8.h"

namespace decalign {
namespace {

constexpr size_t kLongestWord = 100;  // characters

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

std::string in_folder(const std::string& folder, const char* name) {
  return (std::filesystem::path(folder) / name).string();
}

/// A key's boolean; nothing if it is absent or null.
std::optional<bool> boolean(const nlohmann::json& config, const char* key,
                            const std::string& path) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (!found->is_boolean()) {
    throw input_error(path + ": key '" + key + "' must be true or false");
  }
  return found->get<bool>();
}

WordPieceOptions read_options(const std::string& path) {
  WordPieceOptions options;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return options;
  const MappedFile file(path);
  const nlohmann::json config = nlohmann::json::parse(text_of(file), nullptr, false);
  if (!config.is_object()) throw input_error(path + ": is no JSON object");
  options.lower_case = boolean(config, "do_lower_case", path).value_or(true);
  options.strip_accents = boolean(config, "strip_accents", path);
  options.chinese_characters = boolean(config, "tokenize_chinese_chars", path).value_or(true);
  return options;
}

std::string_view without_trailing_space(std::string_view line, const std::string& what) {
  size_t end = 0, position = 0;
  while (position < line.size()) {
    const CodePoint point = decode_utf8(line.substr(position));
    if (point.length == 0) throw input_error(what + " is not valid UTF-8");
    position += size_t(point.length);
    if (!is_whitespace(point.code)) end = position;
  }
  return line.substr(0, end);
}

}  // namespace

WordPiece::WordPiece(const std::string& folder)
    : WordPiece(text_of(MappedFile(in_folder(folder, "vocab.txt"))), in_folder(folder, "vocab.txt"),
                read_options(in_folder(folder, "tokenizer_config.json"))) {}

WordPiece::WordPiece(std::string_view vocabulary, const std::string& name,
                     const WordPieceOptions& options)
    : text_{options.lower_case, options.strip_accents.value_or(options.lower_case),
            options.chinese_characters} {
  read_vocabulary(vocabulary, name);
  const auto needed = [&](const char* token) {
    const int32_t id = find(token);
    if (id < 0) {
      throw input_error(name + ": has no token " + token +
                        "; a WordPiece vocabulary has [PAD], [UNK], [CLS] and [SEP]");
    }
    return id;
  };
  padding_ = needed("[PAD]");
  unknown_ = needed("[UNK]");
  first_ = needed("[CLS]");
  last_ = needed("[SEP]");
  for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) {
    if (const int32_t id = find(token); id >= 0) special_.emplace_back(token, id);
  }
}

void WordPiece::read_vocabulary(std::string_view vocabulary, const std::string& name) {
  if (vocabulary.empty()) throw input_error(name + ": is empty");
  while (!vocabulary.empty()) {
    const size_t end = std::min(vocabulary.find('\n'), vocabulary.size());
    const std::string what = name + ": line " + std::to_string(size_ + 1);
    if (size_ == INT32_MAX) throw input_error(what + ": too many tokens");
    ids_[std::string(without_trailing_space(vocabulary.substr(0, end), what))] = int32_t(size_++);
    vocabulary.remove_prefix(std::min(end + 1, vocabulary.size()));
  }
}

int32_t WordPiece::find(const std::string& token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

void WordPiece::append_word(std::u32string_view word, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  std::string piece;
  for (size_t start = 0; start < word.size() && word.size() <= kLongestWord;) {
    piece = start > 0 ? "##" : "";
    std::vector<size_t> ends;  // piece's size with one, two, ... characters
    for (const char32_t code : word.substr(start)) {
      append_utf8(piece, code);
      ends.push_back(piece.size());
    }
    int32_t id = -1;
    while (id < 0 && !ends.empty()) {
      piece.resize(ends.back());
      id = find(piece);
      if (id < 0) ends.pop_back();
    }
    if (id < 0) break;
    ids.push_back(id);
    start += ends.size();
    if (start == word.size()) return;
  }
  ids.resize(before);
  ids.push_back(unknown_);
}

void WordPiece::append_plain(std::string_view text, std::vector<int32_t>& ids) const {
  for (const std::u32string& word : bert_words(text, text_)) append_word(word, ids);
}

std::vector<int32_t> WordPiece::pieces(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t plain = 0;  // where the text not yet cut starts
  for (size_t at = text.find('['); at != std::string_view::npos; at = text.find('[', at)) {
    const auto token = std::find_if(special_.begin(), special_.end(), [&](const auto& special) {
      return text.substr(at).starts_with(special.first);
    });
    if (token == special_.end()) {
      ++at;
      continue;
    }
    append_plain(text.substr(plain, at - plain), ids);
    ids.push_back(token->second);
    plain = at += token->first.size();
  }
  append_plain(text.substr(plain), ids);
  return ids;
}

std::vector<int32_t> WordPiece::ids(std::string_view text, int64_t steps) const {
  if (steps < 2) throw std::invalid_argument("WordPiece::ids: at least two steps are needed");
  std::vector<int32_t> ids = pieces(text);
  if (int64_t(ids.size()) > steps - 2) ids.resize(size_t(steps - 2));
  ids.insert(ids.begin(), first_);
  ids.push_back(last_);
  return ids;
}

}  // namespace decalign
