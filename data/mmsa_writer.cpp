// MMSA feature files out: a pickle of protocol 4.
#include <cstring>
#include <limits>

#include "data/atomic_file.h"
#include "data/mmsa.h"

namespace decalign {
namespace {

/// Writes opcodes. Small pieces gather in a buffer, arrays go straight to the file.
class PickleWriter {
 public:
  explicit PickleWriter(const std::string& path) : file_(path) { buffer_ = "\x80\x04"; }

  void op(std::string_view code) { buffer_ += code; }

  void text(std::string_view text) {
    op("X");  // BINUNICODE
    fixed(uint32_t(text.size()));
    buffer_ += text;
    if (buffer_.size() > kBuffer) flush();
  }

  void integer(int64_t value) {
    op("\x8a\x08");  // LONG1 of 8 bytes
    fixed(value);
  }

  template <typename T>
  void array(const char* dtype, const std::vector<int64_t>& shape, std::span<const T> values) {
    global("numpy.core.multiarray", "_reconstruct");
    global("numpy", "ndarray");
    op("K\x01\x85");  // (1,)
    op("C\x01"
       "b");  // b'b'
    op("\x87R(K\x01");
    op("(");
    for (const int64_t extent : shape) integer(extent);
    op("t");
    global("numpy", "dtype");
    text(dtype);
    op("\x89\x88\x87R(K\x03");
    text("<");
    op("NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff");
    op(std::string_view("K\x00tb\x89", 5));  // not Fortran
    op("\x8e");                              // BINBYTES8
    fixed(uint64_t(values.size_bytes()));
    flush();
    file_.write(std::as_bytes(values));
    op("tb");
  }

  void finish() {
    op(".");
    flush();
    file_.commit();
  }

 private:
  static constexpr size_t kBuffer = 1 << 16;

  template <typename T>
  void fixed(T value) {
    buffer_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  void global(const char* module, const char* name) {
    text(module);
    text(name);
    op("\x93");  // STACK_GLOBAL
  }

  void flush() {
    file_.write(buffer_);
    buffer_.clear();
  }

  AtomicFile file_;
  std::string buffer_;
};

void write_texts(PickleWriter& writer, const char* key, const std::vector<std::string>& texts) {
  writer.text(key);
  writer.op("](");
  for (const std::string& text : texts) writer.text(text);
  writer.op("e");
}

void write_split(PickleWriter& writer, const Split& split, const std::string& labels_key) {
  const int64_t count = split.count();
  for (const Sequences& sequences : split.modalities) {
    if (sequences.width > 0) {
      writer.text(sequences.name);
      writer.array<float>("f4", {count, sequences.steps, sequences.width}, sequences.values);
    }
    if (!sequences.tokens.empty()) {
      const std::vector<int64_t> tokens(sequences.tokens.begin(), sequences.tokens.end());
      writer.text(sequences.name + "_bert");
      writer.array<int64_t>("i8", {count, 3, sequences.token_steps()}, tokens);
    }
    if (sequences.lengths.empty()) continue;
    const std::vector<int64_t> lengths(sequences.lengths.begin(), sequences.lengths.end());
    writer.text(sequences.name + "_lengths");
    writer.array<int64_t>("i8", {count}, lengths);
  }
  if (!split.labels.empty()) {
    writer.text(labels_key);
    if (labels_key == "classification_labels") {
      const std::vector<int64_t> classes(split.labels.begin(), split.labels.end());
      writer.array<int64_t>("i8", {count}, classes);
    } else {
      writer.array<float>("f4", {count}, split.labels);
    }
  }
  write_texts(writer, "id", split.ids);
  if (!split.raw_text.empty()) write_texts(writer, "raw_text", split.raw_text);
}

}  // namespace

void save_mmsa(const std::string& path, const Dataset& dataset) {
  PickleWriter writer(path);
  writer.op("}(");
  for (const auto& [name, split] : dataset.splits) {
    writer.text(name);
    writer.op("}(");
    write_split(writer, split, dataset.labels_key);
    writer.op("u");
  }
  writer.op("u");
  writer.finish();
}

}  // namespace decalign
