// safetensors files: a strict reader over mapped bytes and a writer that replaces the file
// atomically.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "data/array_view.h"
#include "data/dataset.h"
#include "data/mapped_file.h"

namespace decalign {

/// A parsed file. Tensors stay views until read.
///
/// Strict: the header is a JSON object of at most 100 MB without duplicate names; every tensor has
/// exactly dtype, shape and data_offsets; the tensors' bytes tile the data without gap or overlap;
/// sizes agree; metadata are strings. F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8 and
/// BOOL are read. Any violation is an input_error that names the file and the tensor.
class Safetensors {
 public:
  /// Maps a file for the life of the object.
  explicit Safetensors(const std::string& path);
  /// Reads from bytes that outlive the object.
  explicit Safetensors(const ByteView& source);

  const std::string& file() const { return source_.name; }
  const ByteView& source() const { return source_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::map<std::string, ArrayView>& tensors() const { return tensors_; }
  bool has(const std::string& name) const { return tensors_.contains(name); }

  /// Throws input_error naming file and tensor if it is missing.
  const ArrayView& view(const std::string& name) const;
  /// A tensor's values, row-major, NaN and infinity as they are.
  std::vector<float> floats(const std::string& name) const;
  std::vector<double> doubles(const std::string& name) const;
  /// Throws input_error if the tensor is not of integers or bool, or a value exceeds int64.
  std::vector<int64_t> integers(const std::string& name) const;

 private:
  void parse();

  std::shared_ptr<const MappedFile> file_;
  ByteView source_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, ArrayView> tensors_;
};

/// One tensor to write: its bytes stay the caller's.
struct TensorOut {
  std::string name;
  std::string dtype;  ///< "F32", "F64", "I64", "I32", "U8"
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// A tensor of float, double, int64_t, int32_t or uint8_t values.
template <typename T>
TensorOut tensor_out(std::string name, std::vector<int64_t> shape, std::span<const T> values) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> ||
                std::is_same_v<T, int64_t> || std::is_same_v<T, int32_t> ||
                std::is_same_v<T, uint8_t>);
  const char* dtype = std::is_same_v<T, float>     ? "F32"
                      : std::is_same_v<T, double>  ? "F64"
                      : std::is_same_v<T, int64_t> ? "I64"
                      : std::is_same_v<T, int32_t> ? "I32"
                                                   : "U8";
  return {std::move(name), dtype, std::move(shape), std::as_bytes(values)};
}

/// Writes a safetensors file; the data starts at a multiple of 8 bytes and each tensor at a
/// multiple of its element's size. The file appears whole or not at all: on any failure an
/// input_error names the path, and what was there stays. Throws std::invalid_argument if a shape
/// and its bytes disagree or a name comes twice.
void save_safetensors(const std::string& path, std::vector<TensorOut> tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace decalign
