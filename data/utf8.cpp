// UTF-8: appending code points, decoding one, and repair of ill-formed text.
#include "data/utf8.h"

namespace decalign {
namespace {

constexpr uint32_t kReplacement = 0xfffd;

bool is_scalar(uint32_t code) { return code < 0xd800 || (code > 0xdfff && code <= 0x10ffff); }

}  // namespace

void append_utf8(std::string& text, uint32_t code) {
  if (!is_scalar(code)) code = kReplacement;
  if (code < 0x80) {
    text += char(code);
  } else if (code < 0x800) {
    text += char(0xc0 | (code >> 6));
    text += char(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    text += char(0xe0 | (code >> 12));
    text += char(0x80 | ((code >> 6) & 0x3f));
    text += char(0x80 | (code & 0x3f));
  } else {
    text += char(0xf0 | (code >> 18));
    text += char(0x80 | ((code >> 12) & 0x3f));
    text += char(0x80 | ((code >> 6) & 0x3f));
    text += char(0x80 | (code & 0x3f));
  }
}

CodePoint decode_utf8(std::string_view text) {
  if (text.empty()) return {};
  const auto lead = uint8_t(text[0]);
  if (lead < 0x80) return {lead, 1};
  const int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < size_t(length)) return {};
  uint32_t code = lead & (0x7fu >> length);
  for (int i = 1; i < length; ++i) {
    const auto byte = uint8_t(text[size_t(i)]);
    if ((byte & 0xc0) != 0x80) return {};
    code = (code << 6) | (byte & 0x3f);
  }
  constexpr uint32_t kLowest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLowest[length] || !is_scalar(code)) return {};
  return {code, length};
}

std::string valid_utf8(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const CodePoint point = decode_utf8(text);
    append_utf8(result, point.length > 0 ? point.code : kReplacement);
    text.remove_prefix(size_t(point.length > 0 ? point.length : 1));
  }
  return result;
}

std::string latin1_to_utf8(std::string_view bytes) {
  std::string result;
  for (const char byte : bytes) append_utf8(result, uint8_t(byte));
  return result;
}

std::string printable(std::string_view text) {
  std::string result(text.substr(0, 80));
  for (char& c : result) {
    if (c < ' ' || c > '~') c = '?';
  }
  return text.size() > 80 ? result + "..." : result;
}

}  // namespace decalign
