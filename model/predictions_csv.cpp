// Predictions as a CSV file: id, label, and prediction or the class scores p0, p1, ...
#include "model/predictions_csv.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

#include "data/atomic_file.h"

namespace decalign {
namespace {

using Record = std::vector<std::string>;

std::string at_line(const std::string& path, int64_t line) {
  return path + ":" + std::to_string(line) + ": ";
}

// RFC 4180 with one addition: a lone LF ends a record too.
class Reader {
 public:
  Reader(std::string path, std::string text) : path_(std::move(path)), text_(std::move(text)) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
  }

  bool done() const { return at_ >= text_.size(); }
  int64_t line() const { return first_line_; }

  Record next() {
    Record record;
    first_line_ = line_;
    do record.push_back(peek() == '"' ? quoted() : plain());
    while (take(','));
    end_of_record();
    return record;
  }

 private:
  // The character ahead, '\n' at the end of the file.
  char peek() const { return done() ? '\n' : text_[at_]; }

  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    line_ += c == '\n';
    ++at_;
    return true;
  }

  std::string plain() {
    const size_t end = std::min(text_.find_first_of(",\r\n\"", at_), text_.size());
    std::string field = text_.substr(at_, end - at_);
    at_ = end;
    if (peek() == '"')
      throw input_error(at_line(path_, line_) +
                        "a quote inside a field that does not start with one");
    return field;
  }

  std::string quoted() {
    std::string field;
    ++at_;
    while (true) {
      if (done()) throw input_error(at_line(path_, first_line_) + "a quoted field never ends");
      const char c = text_[at_];
      if (take('"')) {
        if (peek() != '"') return field;
        // A doubled quote stands for one.
      }
      take(c);
      field += c;
    }
  }

  void end_of_record() {
    const bool carriage_return = take('\r');
    if (take('\n') || done()) return;
    throw input_error(at_line(path_, line_) + (carriage_return
                                                   ? "a carriage return without a line feed"
                                                   : "text after the end of a quoted field"));
  }

  std::string path_, text_;
  size_t at_ = 0;
  int64_t line_ = 1, first_line_ = 1;
};

std::string_view trimmed(std::string_view s) {
  const size_t first = s.find_first_not_of(" \t");
  if (first == s.npos) return {};
  return s.substr(first, s.find_last_not_of(" \t") - first + 1);
}

// Nothing unless all of the text is one finite number; what is too small for a float is rounded.
std::optional<float> parse_number(std::string_view text) {
  const char* const last = text.data() + text.size();
  float x = 0;
  auto [end, error] = std::from_chars(text.data(), last, x);
  if (error == std::errc::result_out_of_range) {
    double wide = INFINITY;
    std::from_chars(text.data(), last, wide);
    x = float(wide);
    error = {};
  }
  if (error != std::errc{} || end != last || !std::isfinite(x)) return std::nullopt;
  return x;
}

// Which field of a record is which column.
struct Columns {
  int64_t id = -1, label = -1;
  std::vector<int64_t> scores;
  int64_t classes = 0;
  std::vector<std::string> names;  // of all fields
};

// k for "p<k>" as written by us (no sign, no leading zero), else -1.
int64_t class_column(std::string_view name) {
  if (name.size() < 2 || name.size() > 7 || name[0] != 'p') return -1;
  const bool digits =
      std::all_of(name.begin() + 1, name.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || (name[1] == '0' && name.size() > 2)) return -1;
  int64_t k = 0;
  std::from_chars(name.data() + 1, name.data() + name.size(), k);
  return k;
}

Columns parse_header(const std::string& path, const Record& header, Labels labels) {
  const auto fail = [&path](const std::string& what) {
    throw input_error(at_line(path, 1) + what);
  };
  Columns columns;
  int64_t prediction = -1;
  std::vector<int64_t> scores(header.size(), -1);
  for (size_t i = 0; i < header.size(); ++i) {
    const std::string& name = columns.names.emplace_back(trimmed(header[i]));
    const int64_t k = class_column(name);
    int64_t* slot = name == "id"                          ? &columns.id
                    : name == "label"                     ? &columns.label
                    : name == "prediction"                ? &prediction
                    : k >= 0 && size_t(k) < scores.size() ? &scores[size_t(k)]
                                                          : nullptr;
    if (!slot)
      fail("column " + name + " is unknown, expected id, label and prediction or p0, p1, ...");
    if (*slot >= 0) fail("column " + name + " occurs twice");
    *slot = int64_t(i);
  }
  while (!scores.empty() && scores.back() < 0) scores.pop_back();
  if (columns.id < 0) fail("column id is missing");
  if (columns.label < 0 && labels == Labels::required) fail("column label is missing");
  if (prediction >= 0 && !scores.empty()) fail("both prediction and class scores, expected one");
  if (prediction < 0 && scores.empty()) fail("column prediction (or p0, p1, ...) is missing");
  if (scores.size() == 1) fail("column p1 is missing, class scores need at least two");
  for (size_t k = 0; k < scores.size(); ++k)
    if (scores[k] < 0) fail("column p" + std::to_string(k) + " is missing");
  columns.classes = int64_t(scores.size());
  columns.scores = scores.empty() ? std::vector<int64_t>{prediction} : scores;
  return columns;
}

std::string quoted_id(const std::string& id) {
  if (id.find_first_of(",\"\r\n") == id.npos) return id;
  std::string text = "\"";
  for (const char c : id) text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + '"';
}

void append(std::string& text, float x) {
  if (!std::isfinite(x)) throw input_error("predictions: a value is NaN or infinite");
  std::array<char, 32> buffer;
  const auto end =
      std::to_chars(buffer.begin(), buffer.end(), x, std::chars_format::general, 9).ptr;
  text += ',';
  text.append(buffer.begin(), end);
}

std::string format(const Predictions& p) {
  std::string text = p.labels.empty() ? "id" : "id,label";
  if (p.classes == 0) text += ",prediction";
  for (int64_t k = 0; k < p.classes; ++k) text += ",p" + std::to_string(k);
  text += '\n';
  for (int64_t n = 0; n < p.count(); ++n) {
    text += quoted_id(p.ids[size_t(n)]);
    if (!p.labels.empty()) append(text, p.labels[size_t(n)]);
    for (int64_t k = 0; k < p.columns(); ++k) append(text, p.scores[size_t(n * p.columns() + k)]);
    text += '\n';
  }
  return text;
}

}  // namespace

void write_predictions(const std::string& path, const Predictions& p) {
  const size_t n = p.ids.size();
  if (p.classes < 0 || p.classes == 1 || p.scores.size() != n * size_t(p.columns()) ||
      (!p.labels.empty() && p.labels.size() != n))
    throw std::invalid_argument("write_predictions: ids, labels and scores disagree in size");
  const std::string text = format(p);
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

Predictions read_predictions(const std::string& path, Labels labels) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  // A folder opens, but cannot be read.
  if (!file || file.peek() == std::ifstream::traits_type::eof() || !(text << file.rdbuf()))
    throw input_error(path + ": cannot be read or is empty, a CSV file was expected");
  Reader reader(path, std::move(text).str());
  const Columns columns = parse_header(path, reader.next(), labels);

  Predictions p;
  p.classes = columns.classes;
  while (!reader.done()) {
    const Record record = reader.next();
    const std::string where = at_line(path, reader.line());
    if (record.size() != columns.names.size())
      throw input_error(where + std::to_string(record.size()) + " fields, expected " +
                        std::to_string(columns.names.size()));
    const auto number = [&](int64_t column, const std::string& name) {
      const std::string_view field = trimmed(record[size_t(column)]);
      if (const auto x = parse_number(field)) return *x;
      throw input_error(where + "column " + name + ": '" + std::string(field) +
                        "' is not a finite number");
    };
    p.ids.push_back(record[size_t(columns.id)]);
    if (columns.label >= 0) p.labels.push_back(number(columns.label, "label"));
    for (const int64_t column : columns.scores)
      p.scores.push_back(number(column, columns.names[size_t(column)]));
  }
  if (p.ids.empty()) throw input_error(at_line(path, 2) + "no row, at least one was expected");
  return p;
}

}  // namespace decalign
