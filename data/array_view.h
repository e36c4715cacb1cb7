// Arrays as they lie in a file: element type, shape, order and a span of bytes, read only when
// asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/mapped_file.h"

namespace decalign {

/// Element type of a stored array.
struct DType {
  char kind = 'V';   ///< f float, B bfloat16, i int, u unsigned, b bool, U UCS-4 text, S bytes, O
                     ///< objects, V other
  int64_t size = 0;  ///< bytes per element
  bool swapped = false;  ///< big-endian

  bool numeric() const {
    return kind == 'f' || kind == 'B' || kind == 'i' || kind == 'u' || kind == 'b';
  }
  bool text() const { return kind == 'U' || kind == 'S'; }
  std::string name() const;  ///< "float32", "int64", "<U", ...
};

/// A view of an array in a file.
struct ArrayView {
  DType dtype;
  std::vector<int64_t> shape;  ///< empty for a scalar
  bool fortran = false;        ///< first index fastest
  bool latin1 = false;  ///< the bytes are stored as UTF-8 text whose code points are the bytes
  ByteView source;      ///< the file
  std::span<const std::byte> bytes;  ///< this array's part of it

  int64_t count() const;           ///< number of elements
  std::string shape_text() const;  ///< "[16, 50, 768]"
};

/// Product of a shape, or nothing if a dimension is negative or the product exceeds `limit`.
std::optional<int64_t> element_count(std::span<const int64_t> shape, int64_t limit);

/// Hands all elements of a numeric array to `sink(first, block)` in the order in which the file
/// holds them, as doubles, block by block; pages already read are released. `what` names the array
/// in messages. Throws input_error if the type is not numeric or the stored bytes do not fit the
/// shape.
void read_doubles(const ArrayView& view, const std::string& what,
                  const std::function<void(int64_t first, std::span<const double> block)>& sink);

/// Calls `use(place, element)` for every element in the file's order; `place` counts row-major.
void visit_doubles(const ArrayView& view, const std::string& what,
                   const std::function<void(int64_t place, double element)>& use);

/// All elements in row-major order. Only for arrays small enough to hold twice.
std::vector<double> read_doubles(const ArrayView& view, const std::string& what);

/// A double as float: NaN stays, beyond float's range it becomes infinite (a plain cast would be
/// undefined).
float to_float(double value);

/// Result of read_floats.
struct CleanFloats {
  std::vector<float> values;  ///< row-major
  int64_t cleaned = 0;        ///< NaN, infinite or beyond float: set to 0
};

/// All elements in row-major order as float, cleaned in double before the cast. Needs no memory
/// beyond the result and a block.
CleanFloats read_floats(const ArrayView& view, const std::string& what);

/// The cells of a U or S array in row-major order as UTF-8 text (S cells as Latin-1), trailing
/// zeros removed.
std::vector<std::string> read_texts(const ArrayView& view, const std::string& what);

}  // namespace decalign
