// BERT's WordPiece tokenizer: text to the ids of a vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/bert_words.h"

namespace decalign {

/// The keys of tokenizer_config.json that matter here.
struct WordPieceOptions {
  bool lower_case = true;             ///< `do_lower_case`
  std::optional<bool> strip_accents;  ///< `strip_accents`; absent or null: as lower_case
  bool chinese_characters = true;     ///< `tokenize_chinese_chars`
};

/// Gives the ids of Hugging Face's BertTokenizer (docs/formats.md lists the code points where the
/// Unicode versions differ).
///
/// [PAD], [UNK], [CLS], [SEP] and [MASK], as far as the vocabulary has them, are found in the raw
/// text and kept whole. What lies between is split into words (bert_words); a word is cut
/// greedily into the longest pieces of the vocabulary, those after the first with "##" before
/// them. A word that cannot be cut, or of more than 100 characters, is [UNK].
class WordPiece {
 public:
  /// Reads FOLDER/vocab.txt and, if it is there, FOLDER/tokenizer_config.json. Throws input_error
  /// naming the file.
  explicit WordPiece(const std::string& folder);

  /// From the text of a vocab.txt: one token a line, its id the number of the line from 0; the
  /// last one counts where a token comes twice; trailing whitespace (CR too) is no part of a
  /// token. `name` stands for the file in messages. Throws input_error if it is empty, is not
  /// UTF-8, or lacks [PAD], [UNK], [CLS] or [SEP].
  WordPiece(std::string_view vocabulary, const std::string& name,
            const WordPieceOptions& options = {});

  /// The number of ids: lines of the vocabulary.
  int64_t size() const { return size_; }
  int32_t padding() const { return padding_; }  ///< the id of [PAD]

  /// The ids of a UTF-8 text without [CLS] and [SEP]. Never fails: ill-formed bytes are dropped,
  /// as U+FFFD is.
  std::vector<int32_t> pieces(std::string_view text) const;

  /// [CLS], the pieces, [SEP]. If that is longer than `steps` >= 2, the last pieces go and [SEP]
  /// stays. Throws std::invalid_argument for fewer steps.
  std::vector<int32_t> ids(std::string_view text, int64_t steps = INT64_MAX) const;

 private:
  void read_vocabulary(std::string_view vocabulary, const std::string& name);
  void append_word(std::u32string_view word, std::vector<int32_t>& ids) const;
  void append_plain(std::string_view text, std::vector<int32_t>& ids) const;
  int32_t find(const std::string& token) const;  // -1 if there is none

  BertTextOptions text_;
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<std::pair<std::string, int32_t>> special_;
  int64_t size_ = 0;
  int32_t padding_ = 0, unknown_ = 0, first_ = 0, last_ = 0;
};

}  // namespace decalign
