// Arrays as they lie in a file: streaming conversion in blocks.
#include "data/array_view.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "data/byte_stream.h"
#include "data/dataset.h"
#include "data/scalar_decode.h"
#include "data/utf8.h"

namespace decalign {
namespace {

constexpr int64_t kBlock = 1 << 16;  // elements converted at a time

/// Walks an array in Fortran order and gives each element's row-major place.
class FortranWalk {
 public:
  explicit FortranWalk(const std::vector<int64_t>& shape)
      : shape_(shape), index_(shape.size(), 0), stride_(shape.size(), 1) {
    for (size_t k = shape.size(); k-- > 1;) stride_[k - 1] = stride_[k] * shape[k];
  }

  int64_t place() const { return place_; }

  void next() {
    for (size_t k = 0; k < shape_.size(); ++k) {
      place_ += stride_[k];
      if (++index_[k] < shape_[k]) return;
      place_ -= stride_[k] * shape_[k];
      index_[k] = 0;
    }
  }

 private:
  const std::vector<int64_t>& shape_;
  std::vector<int64_t> index_;
  std::vector<int64_t> stride_;
  int64_t place_ = 0;
};

/// Calls `use(place, element)` for every element, `place` counting row-major.
template <typename Use>
void visit_places(const ArrayView& view, const std::string& what, Use use) {
  if (!view.fortran || view.shape.size() < 2) {
    read_doubles(view, what, [&](int64_t first, std::span<const double> block) {
      for (size_t i = 0; i < block.size(); ++i) use(first + int64_t(i), block[i]);
    });
    return;
  }
  FortranWalk walk(view.shape);
  read_doubles(view, what, [&](int64_t, std::span<const double> block) {
    for (const double value : block) {
      use(walk.place(), value);
      walk.next();
    }
  });
}

std::string decode_text_cell(const DType& dtype, const std::byte* cell) {
  std::string text;
  const int64_t unit = dtype.kind == 'U' ? 4 : 1;
  int64_t length = dtype.size / unit;
  auto code_at = [&](int64_t i) {
    if (unit == 1) return uint32_t(cell[i]);
    uint32_t code;
    std::memcpy(&code, cell + 4 * i, 4);
    return dtype.swapped ? __builtin_bswap32(code) : code;
  };
  while (length > 0 && code_at(length - 1) == 0) --length;
  for (int64_t i = 0; i < length; ++i) append_utf8(text, code_at(i));
  return text;
}

}  // namespace

std::string DType::name() const {
  const std::string bits = std::to_string(8 * size);
  switch (kind) {
    case 'f':
      return "float" + bits;
    case 'B':
      return "bfloat16";
    case 'i':
      return "int" + bits;
    case 'u':
      return "uint" + bits;
    case 'b':
      return "bool";
    case 'U':
      return "text";
    case 'S':
      return "bytes";
    case 'O':
      return "objects";
    default:
      return "an unsupported type";
  }
}

std::optional<int64_t> element_count(std::span<const int64_t> shape, int64_t limit) {
  int64_t count = 1;
  for (const int64_t extent : shape) {
    if (extent < 0) return std::nullopt;
    if (extent == 0) return 0;
  }
  for (const int64_t extent : shape) {
    if (count > limit / extent) return std::nullopt;
    count *= extent;
  }
  return count;
}

int64_t ArrayView::count() const {
  return element_count(shape, std::numeric_limits<int64_t>::max()).value_or(0);
}

std::string ArrayView::shape_text() const {
  std::string text = "[";
  for (size_t k = 0; k < shape.size(); ++k) {
    text += (k > 0 ? ", " : "") + std::to_string(shape[k]);
  }
  return text + "]";
}

void read_doubles(const ArrayView& view, const std::string& what,
                  const std::function<void(int64_t, std::span<const double>)>& sink) {
  if (!view.dtype.numeric()) {
    throw input_error(what + ": numbers are needed, the file holds " + view.dtype.name());
  }
  const int64_t count = view.count();
  ByteStream stream(view, what);
  const int64_t block = std::min(count, kBlock);
  std::vector<std::byte> raw(size_t(block * view.dtype.size));
  std::vector<double> values(static_cast<size_t>(block));
  for (int64_t first = 0; first < count; first += block) {
    const int64_t here = std::min(block, count - first);
    stream.read(std::span(raw).first(size_t(here * view.dtype.size)));
    decode_scalars(view.dtype, raw.data(), here, values.data());
    sink(first, std::span<const double>(values).first(size_t(here)));
  }
  stream.finish();
}

void visit_doubles(const ArrayView& view, const std::string& what,
                   const std::function<void(int64_t, double)>& use) {
  visit_places(view, what, use);
}

std::vector<double> read_doubles(const ArrayView& view, const std::string& what) {
  std::vector<double> values(size_t(view.count()));
  visit_places(view, what, [&](int64_t place, double value) { values[size_t(place)] = value; });
  return values;
}

float to_float(double value) {
  constexpr double kLimit = std::numeric_limits<float>::max();
  if (std::abs(value) <= kLimit || std::isnan(value)) return float(value);
  return std::copysign(std::numeric_limits<float>::infinity(), float(value > 0.0 ? 1 : -1));
}

CleanFloats read_floats(const ArrayView& view, const std::string& what) {
  CleanFloats result;
  result.values.resize(size_t(view.count()));
  visit_places(view, what, [&](int64_t place, double value) {
    // Beyond float's range a cast is undefined, so the test comes first.
    const bool fits = std::abs(value) <= double(std::numeric_limits<float>::max());
    if (!fits) ++result.cleaned;
    result.values[size_t(place)] = fits ? float(value) : 0.0f;
  });
  return result;
}

std::vector<std::string> read_texts(const ArrayView& view, const std::string& what) {
  if (!view.dtype.text()) {
    throw input_error(what + ": text is needed, the file holds " + view.dtype.name());
  }
  const int64_t count = view.count();
  ByteStream stream(view, what);
  std::vector<std::string> texts(static_cast<size_t>(count));
  std::vector<std::byte> cell(size_t(count > 0 ? view.dtype.size : 0));
  FortranWalk walk(view.shape);
  for (int64_t i = 0; i < count; ++i) {
    stream.read(cell);
    texts[size_t(view.fortran ? walk.place() : i)] = decode_text_cell(view.dtype, cell.data());
    walk.next();
  }
  stream.finish();
  return texts;
}

}  // namespace decalign
