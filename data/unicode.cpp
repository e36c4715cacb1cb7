// Unicode properties of code points, from libutf8proc.
#include "data/unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "data/utf8.h"

namespace decalign {
namespace {

utf8proc_category_t category(char32_t code) { return utf8proc_category(utf8proc_int32_t(code)); }

int combining_class(char32_t code) {
  return int(utf8proc_get_property(utf8proc_int32_t(code))->combining_class);
}

}  // namespace

bool is_control(char32_t code) {
  const auto kind = category(code);
  return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF ||
         kind == UTF8PROC_CATEGORY_CO;
}

bool is_whitespace(char32_t code) {
  if ((code >= 0x09 && code <= 0x0d) || code == 0x85) return true;
  const auto kind = category(code);
  return kind == UTF8PROC_CATEGORY_ZS || kind == UTF8PROC_CATEGORY_ZL ||
         kind == UTF8PROC_CATEGORY_ZP;
}

bool is_punctuation(char32_t code) {
  const bool symbol = (code >= '!' && code <= '/') || (code >= ':' && code <= '@') ||
                      (code >= '[' && code <= '`') || (code >= '{' && code <= '~');
  if (symbol) return true;
  const auto kind = category(code);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_nonspacing_mark(char32_t code) { return category(code) == UTF8PROC_CATEGORY_MN; }

std::u32string code_points(std::string_view utf8) {
  std::u32string text;
  text.reserve(utf8.size());
  while (!utf8.empty()) {
    const CodePoint point = decode_utf8(utf8);
    text += point.length > 0 ? char32_t(point.code) : U'\ufffd';
    utf8.remove_prefix(size_t(point.length > 0 ? point.length : 1));
  }
  return text;
}

std::u32string decomposed(std::u32string_view text) {
  std::u32string result;
  result.reserve(text.size());
  utf8proc_int32_t parts[32];
  for (const char32_t code : text) {
    const auto count =
        utf8proc_decompose_char(utf8proc_int32_t(code), parts, 32, UTF8PROC_DECOMPOSE, nullptr);
    if (count < 1 || count > 32) {
      result += code;
      continue;
    }
    for (auto i = 0; i < count; ++i) result += char32_t(parts[i]);
  }
  // Canonical order: runs of marks sorted by class. Not utf8proc's own, whose time is quadratic.
  for (auto first = result.begin(); first != result.end();) {
    const auto last =
        std::find_if(first, result.end(), [](char32_t code) { return combining_class(code) == 0; });
    std::stable_sort(first, last, [](char32_t a, char32_t b) {
      return combining_class(a) < combining_class(b);
    });
    first = last == result.end() ? last : last + 1;
  }
  return result;
}

std::u32string lower_cased(std::u32string_view text) {
  std::u32string result;
  result.reserve(text.size());
  for (const char32_t code : text) {
    if (code == U'\u0130') {  // the one letter whose full lower case is two
      result += U"i\u0307";
    } else {
      result += char32_t(utf8proc_tolower(utf8proc_int32_t(code)));
    }
  }
  return result;
}

std::string unicode_version() { return utf8proc_unicode_version(); }

}  // namespace decalign
