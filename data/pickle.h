// A restricted reader of Python pickles (protocols 2 to 5): plain values and numpy arrays, nothing
// is ever executed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/array_view.h"
#include "data/mapped_file.h"

namespace decalign {

/// What a pickled value is.
enum class PickleKind : uint8_t {
  kNone,
  kBoolean,
  kInteger,
  kReal,
  kText,   ///< str
  kBytes,  ///< bytes, bytearray, Python 2 str
  kList,   ///< list, tuple, set
  kDict,
  kArray,       ///< numpy array or scalar
  kBlankArray,  ///< an array whose contents have not come yet
  kDType,
  kCallable,  ///< one of the few that are known
  kOther      ///< harmless but unreadable: an integer beyond 64 bits, a scalar object
};

/// A parsed pickle. Arrays, text and bytes stay views into the source, which must outlive the
/// document; no byte of an array is touched before it is asked for. Values refer to each other by
/// index, so shared and even self-containing values are as harmless as deep ones.
///
/// Limits: 2^24 values, 1024 open marks, memo indices below the file offset; memory grows only with
/// the opcodes read.
class PickleDocument {
 public:
  using Handle = uint32_t;

  /// Parses `source`. Throws input_error "NAME: ..." with the byte offset for a truncated or
  /// malformed pickle, and naming the callable for one that refers to anything but numpy's array
  /// constructors and _codecs.encode.
  explicit PickleDocument(ByteView source);

  const ByteView& source() const { return source_; }
  Handle root() const { return root_; }
  PickleKind kind(Handle handle) const { return nodes_[handle].kind; }
  /// "a dict", "an array of float32 [3, 4]": for messages.
  std::string describe(Handle handle) const;

  /// The value of a text key (str or bytes) of a dict, the last one if it is there twice.
  std::optional<Handle> find(Handle dict, std::string_view key) const;
  /// A dict's entries with text keys, in the file's order.
  std::vector<std::pair<std::string, Handle>> entries(Handle dict) const;
  /// The items of a list or of an array of objects (row-major).
  std::optional<std::span<const Handle>> items(Handle handle) const;
  /// A numpy array or scalar, except one of objects.
  std::optional<ArrayView> array(Handle handle) const;
  /// A boolean, integer, real or numeric numpy scalar.
  std::optional<double> number(Handle handle) const;
  /// str as UTF-8, bytes as Latin-1, a numpy text scalar.
  std::optional<std::string> text(Handle handle) const;
  /// The integer of a kInteger or kBoolean.
  std::optional<int64_t> integer(Handle handle) const;

 private:
  friend class PickleMachine;

  struct Node {
    PickleKind kind = PickleKind::kNone;
    bool latin1 = false;  // bytes: stored as text
    uint32_t index = 0;   // into lists_, arrays_ or dtypes_; a callable's number
    uint64_t first = 0;   // text, bytes: offset; otherwise the value's bits
    uint64_t length = 0;  // text, bytes
  };
  struct Array {
    DType dtype;
    std::vector<int64_t> shape;
    bool fortran = false;
    Handle data = 0;  // bytes, or the list of an array of objects
  };

  std::string_view raw(const Node& node) const;

  ByteView source_;
  std::vector<Node> nodes_;
  std::vector<std::vector<Handle>> lists_;  // lists; dicts as key, value, key, value
  std::vector<Array> arrays_;
  std::vector<DType> dtypes_;
  Handle root_ = 0;
};

}  // namespace decalign
