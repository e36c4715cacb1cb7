// A text as the words that BERT's vocabulary is made for: cleaned, lower-cased, split.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace decalign {

/// What is done to a text before it is split.
struct BertTextOptions {
  bool lower_case = true;
  bool strip_accents = true;       ///< decompose (NFD) and drop nonspacing marks
  bool chinese_characters = true;  ///< every CJK ideograph is a word of its own
};

/// The words of a UTF-8 text, in this order: NUL, U+FFFD and control characters go, whitespace
/// becomes a space, CJK ideographs are spaced, accents stripped, letters lower-cased; then it is
/// split at spaces, and every punctuation character is a word of its own. Ill-formed bytes count
/// as U+FFFD, so they go too. The definition is that of the normalizer and pre-tokenizer that
/// Hugging Face's BertTokenizer uses.
std::vector<std::u32string> bert_words(std::string_view text, const BertTextOptions& options);

}  // namespace decalign
