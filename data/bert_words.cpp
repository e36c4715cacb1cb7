// A text as the words that BERT's vocabulary is made for.
#include "data/bert_words.h"

#include "data/unicode.h"

namespace decalign {
namespace {

std::u32string cleaned(std::u32string_view text) {
  std::u32string result;
  result.reserve(text.size());
  for (const char32_t code : text) {
    if (code == U'\t' || code == U'\n' || code == U'\r') {
      result += U' ';
    } else if (code != U'\ufffd' && !is_control(code)) {
      result += is_whitespace(code) ? U' ' : code;
    }
  }
  return result;
}

/// The blocks that BERT calls Chinese; 2B820 to 2B91F are left out there as well.
bool is_ideograph(char32_t code) {
  return (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) ||
         (code >= 0x20000 && code <= 0x2a6df) || (code >= 0x2a700 && code <= 0x2b73f) ||
         (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) ||
         (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f);
}

std::u32string spaced(std::u32string_view text) {
  std::u32string result;
  result.reserve(text.size());
  for (const char32_t code : text) {
    if (is_ideograph(code)) {
      result += U' ';
      result += code;
      result += U' ';
    } else {
      result += code;
    }
  }
  return result;
}

}  // namespace

std::vector<std::u32string> bert_words(std::string_view text, const BertTextOptions& options) {
  std::u32string codes = cleaned(code_points(text));
  if (options.chinese_characters) codes = spaced(codes);
  if (options.strip_accents) {
    codes = decomposed(codes);
    std::erase_if(codes, is_nonspacing_mark);
  }
  if (options.lower_case) codes = lower_cased(codes);
  std::vector<std::u32string> words;
  bool inside = false;  // the last word goes on
  for (const char32_t code : codes) {
    const bool space = is_whitespace(code);
    const bool alone = !space && is_punctuation(code);
    if (alone || (!space && !inside)) words.emplace_back();
    if (!space) words.back() += code;
    inside = !space && !alone;
  }
  return words;
}

}  // namespace decalign
