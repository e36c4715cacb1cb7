// Builds pickles opcode by opcode, so that tests can make every kind of broken file.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/mapped_file.h"

namespace decalign::test {

/// The little-endian bytes of a value.
template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::string str(std::string_view text) {
  return "X" + raw(uint32_t(text.size())) + std::string(text);
}
inline std::string bytes(std::string_view text) {
  return "B" + raw(uint32_t(text.size())) + std::string(text);
}
inline std::string integer(int64_t value) { return "\x8a\x08" + raw(value); }
inline std::string real(double value) {
  std::string text = raw(value);
  return "G" + std::string(text.rbegin(), text.rend());
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string text = "(";
  for (const auto& item : items) text += item;
  return text + "t";
}
inline std::string list(const std::vector<std::string>& items) {
  std::string text = "](";
  for (const auto& item : items) text += item;
  return text + "e";
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string text = "}(";
  for (const auto& [key, value] : items) text += str(key) + value;
  return text + "u";
}
inline std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}
inline std::string dtype(std::string_view code, std::string_view order = "<") {
  return global("numpy", "dtype") + tuple({str(code), "\x89", "\x88"}) + "R" +
         tuple({integer(3), str(order), "N", "N", "N", integer(-1), integer(-1), integer(0)}) + "b";
}
/// An array of the given dtype (itself pickled) from its raw bytes (pickled too).
inline std::string array_of(const std::string& type, const std::vector<int64_t>& shape,
                            const std::string& data, bool fortran = false) {
  std::vector<std::string> extents;
  for (const int64_t extent : shape) extents.push_back(integer(extent));
  return global("numpy.core.multiarray", "_reconstruct") +
         tuple({global("numpy", "ndarray"), tuple({integer(0)}), bytes("b")}) + "R" +
         tuple({integer(1), tuple(extents), type, fortran ? "\x88" : "\x89", data}) + "b";
}
inline std::string floats(const std::vector<int64_t>& shape, const std::vector<float>& values) {
  std::string data;
  for (const float value : values) data += raw(value);
  return array_of(dtype("f4"), shape, bytes(data));
}
/// A float array of the shape with the same value everywhere.
inline std::string filled(const std::vector<int64_t>& shape, float value = 0.5f) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return floats(shape, std::vector<float>(size_t(count), value));
}
inline std::string pickled(const std::string& value) { return "\x80\x04" + value + "."; }

/// A view of a string that outlives it.
inline ByteView view_of(const std::string& text, const char* name = "file.pkl") {
  return {std::as_bytes(std::span(text)), name, nullptr};
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
inline void write_file(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// The message of the Error that `call` throws, or "no error".
template <typename Error, typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace decalign::test
