// UTF-8: appending code points, decoding one, and repair of ill-formed text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace decalign {

/// Appends a code point as UTF-8; U+FFFD for what is none.
void append_utf8(std::string& text, uint32_t code);

/// One decoded code point: its value and its length in bytes; length 0 if the bytes are ill-formed.
struct CodePoint {
  uint32_t code = 0;
  int length = 0;
};
CodePoint decode_utf8(std::string_view text);

/// Valid UTF-8: every ill-formed byte becomes U+FFFD.
std::string valid_utf8(std::string_view text);

/// Latin-1 bytes as UTF-8.
std::string latin1_to_utf8(std::string_view bytes);

/// `text` cut to 80 characters, anything but printable ASCII replaced by '?': safe to print in a
/// one-line message.
std::string printable(std::string_view text);

}  // namespace decalign
