// Unicode properties of code points, from libutf8proc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace decalign {

/// General category Cc, Cf or Co. Unassigned code points are none of these.
bool is_control(char32_t code);
/// The property White_Space.
bool is_whitespace(char32_t code);
/// General category P*, and every ASCII character that is no letter, digit, space or control.
bool is_punctuation(char32_t code);
/// General category Mn.
bool is_nonspacing_mark(char32_t code);

/// Valid UTF-8 as code points; every ill-formed byte becomes U+FFFD.
std::u32string code_points(std::string_view utf8);

/// Canonical decomposition (NFD), Hangul included, in canonical order.
std::u32string decomposed(std::u32string_view text);

/// Each code point's own lower case, without context: a final capital sigma becomes the common
/// small one, U+0130 becomes i and U+0307.
std::u32string lower_cased(std::u32string_view text);

/// The Unicode version of the library, "14.0.0".
std::string unicode_version();

}  // namespace decalign
