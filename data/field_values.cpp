// Small fields (labels, lengths, ids) as numbers or text.
#include "data/field_values.h"

#include <charconv>

#include "data/utf8.h"

namespace decalign {
namespace {

double parse_number(std::string_view text, const std::string& what, int64_t entry) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0.0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || stop != text.data() + text.size()) {
    throw input_error(what + ": entry " + std::to_string(entry) + " is '" + printable(text) +
                      "', a number is expected");
  }
  return value;
}

void check_column(const ArrayView& array, const std::string& what) {
  const bool column = array.shape.size() == 1 || (array.shape.size() == 2 && array.shape[1] == 1);
  if (!column) {
    throw input_error(what + ": one entry per sample, [N] or [N, 1], is expected, the array is " +
                      array.shape_text());
  }
}

}  // namespace

std::string short_number(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return error == std::errc() ? std::string(buffer, end) : "?";
}

std::vector<double> field_numbers(const Field& field, const std::string& what) {
  std::vector<double> numbers;
  if (field.array) {
    check_column(*field.array, what);
    if (!field.array->dtype.text()) return read_doubles(*field.array, what);
    int64_t entry = 0;
    for (const std::string& text : read_texts(*field.array, what)) {
      numbers.push_back(parse_number(text, what, entry++));
    }
    return numbers;
  }
  if (!field.cell) {
    throw input_error(what + ": a list or an array is expected, the file has " + field.description);
  }
  for (int64_t n = 0; n < field.count; ++n) {
    const Cell cell = field.cell(n);
    if (const auto* number = std::get_if<double>(&cell)) {
      numbers.push_back(*number);
    } else if (const auto* text = std::get_if<std::string>(&cell)) {
      numbers.push_back(parse_number(*text, what, n));
    } else {
      throw input_error(what + ": entry " + std::to_string(n) + " is no number");
    }
  }
  return numbers;
}

std::vector<std::string> field_texts(const Field& field, const std::string& what, int64_t limit) {
  std::vector<std::string> texts;
  if (field.array) {
    check_column(*field.array, what);
    if (field.array->dtype.text()) return read_texts(*field.array, what);
    for (const double value : read_doubles(*field.array, what))
      texts.push_back(short_number(value));
    return texts;
  }
  if (!field.cell) {
    throw input_error(what + ": a list or an array is expected, the file has " + field.description);
  }
  int64_t total = 0;
  for (int64_t n = 0; n < field.count; ++n) {
    Cell cell = field.cell(n);
    if (const auto* number = std::get_if<double>(&cell)) {
      texts.push_back(short_number(*number));
    } else if (auto* text = std::get_if<std::string>(&cell)) {
      texts.push_back(std::move(*text));
    } else {
      throw input_error(what + ": entry " + std::to_string(n) + " is neither text nor a number");
    }
    // Shared items could multiply a small file without bound.
    total += int64_t(texts.back().size());
    if (total > limit + 32 * field.count) throw input_error(what + ": has more text than the file");
  }
  return texts;
}

}  // namespace decalign
