// numpy's constructors in a pickle, understood as data: the only callables that are known.
#include <algorithm>
#include <charconv>

#include "data/dataset.h"
#include "data/pickle_machine.h"
#include "data/scalar_decode.h"
#include "data/utf8.h"

namespace decalign {
namespace {

constexpr size_t kMaxDimensions = 64;

/// Parses "f4", "<U12", "|S5", "b1", "O8", "?"; what is not known gets kind V.
DType parse_dtype(std::string_view text) {
  DType dtype;
  if (!text.empty() && std::string_view("<>|=").find(text[0]) != std::string_view::npos) {
    dtype.swapped = text[0] == '>';
    text.remove_prefix(1);
  }
  if (text == "?") text = "b1";
  if (text == "O") text = "O8";
  if (text.empty()) return dtype;
  const char* end = text.data() + text.size();
  int64_t size = 0;
  const auto [stop, error] = std::from_chars(text.data() + 1, end, size);
  if (error != std::errc() || stop != end || size < 0 || size > (int64_t(1) << 31)) return dtype;
  dtype.kind = text[0];
  dtype.size = text[0] == 'U' ? 4 * size : size;
  if (dtype.kind == 'a') dtype.kind = 'S';
  const bool readable =
      dtype.kind == 'O' || dtype.text() || (dtype.kind != 'B' && decodable(dtype));
  if (!readable) dtype.kind = 'V';
  return dtype;
}

}  // namespace

void PickleMachine::refuse(std::string_view module, std::string_view name) const {
  throw input_error(document_.source_.name + ": names the callable " +
                    printable(std::string(module) + "." + std::string(name)) +
                    "; only numpy arrays are read");
}

void PickleMachine::push_callable(std::string_view module, std::string_view name) {
  const bool multiarray = module == "numpy.core.multiarray" || module == "numpy._core.multiarray";
  const bool numeric = module == "numpy.core.numeric" || module == "numpy._core.numeric";
  uint32_t callable = 0;
  if (multiarray && name == "_reconstruct") {
    callable = kReconstruct;
  } else if (multiarray && name == "scalar") {
    callable = kScalar;
  } else if (numeric && name == "_frombuffer") {
    callable = kFromBuffer;
  } else if (module == "numpy" && name == "ndarray") {
    callable = kNdarray;
  } else if (module == "numpy" && name == "dtype") {
    callable = kDTypeClass;
  } else if (module == "_codecs" && name == "encode") {
    callable = kEncode;
  } else {
    refuse(module, name);
  }
  push({PickleKind::kCallable, false, callable, 0, 0});
}

bool PickleMachine::run_object(int op) {
  switch (op) {
    case 'c': {  // GLOBAL
      const std::string_view module = line();
      push_callable(module, line());
      return true;
    }
    case 'i': {  // INST
      const std::string_view module = line();
      refuse(module, line());
    }
    case 0x93: {  // STACK_GLOBAL
      const Handle name = pop();
      const Handle module = pop();
      push_callable(text_of(module, "a module"), text_of(name, "a callable"));
      return true;
    }
    case 'R':  // REDUCE
      reduce();
      return true;
    case 'b':  // BUILD
      build();
      return true;
    default:
      return false;
  }
}

const std::vector<PickleMachine::Handle>& PickleMachine::list_of(Handle handle,
                                                                 const char* what) const {
  const Node& node = document_.nodes_[handle];
  if (node.kind != PickleKind::kList) fail(std::string("has no tuple for ") + what);
  return document_.lists_[node.index];
}

std::string_view PickleMachine::text_of(Handle handle, const char* what) const {
  const Node& node = document_.nodes_[handle];
  if (node.kind != PickleKind::kText && node.kind != PickleKind::kBytes) {
    fail(std::string("has no text for ") + what);
  }
  return document_.raw(node);
}

bool PickleMachine::is_callable(Handle handle, Callable callable) const {
  const Node& node = document_.nodes_[handle];
  return node.kind == PickleKind::kCallable && node.index == callable;
}

const DType& PickleMachine::dtype_of(Handle handle) const {
  const Node& node = document_.nodes_[handle];
  if (node.kind != PickleKind::kDType) fail("has an array without a dtype");
  return document_.dtypes_[node.index];
}

std::vector<int64_t> PickleMachine::shape_of(Handle handle) const {
  // A single integer stands for a shape of one dimension.
  if (const auto single = document_.integer(handle)) return {*single};
  const auto& items = list_of(handle, "a shape");
  if (items.size() > kMaxDimensions) fail("has an array of more than 64 dimensions");
  std::vector<int64_t> shape;
  for (const Handle item : items) {
    const auto extent = document_.integer(item);
    if (!extent) fail("has a shape that is not of integers");
    shape.push_back(*extent);
  }
  return shape;
}

void PickleMachine::reduce() {
  const Handle arguments_handle = pop();
  const Handle callable = pop();
  const Node& node = document_.nodes_[callable];
  if (node.kind != PickleKind::kCallable) fail("calls something that is no callable");
  const std::vector<Handle>& arguments = list_of(arguments_handle, "arguments");
  switch (Callable(node.index)) {
    case kReconstruct:
      if (arguments.size() != 3 || !is_callable(arguments[0], kNdarray)) {
        fail("reconstructs something other than numpy.ndarray");
      }
      return push({PickleKind::kBlankArray, false, 0, 0, 0});
    case kDTypeClass:
      return make_dtype(arguments);
    case kScalar:
      return make_scalar(arguments);
    case kFromBuffer:
      return make_from_buffer(arguments);
    case kEncode:
      return make_encoded(arguments);
    case kNdarray:
      refuse("numpy", "ndarray(...)");
  }
}

void PickleMachine::make_dtype(const std::vector<Handle>& arguments) {
  if (arguments.empty()) fail("has a dtype without a name");
  const PickleKind kind = document_.kind(arguments[0]);
  DType dtype;
  if (kind == PickleKind::kText || kind == PickleKind::kBytes) {
    dtype = parse_dtype(text_of(arguments[0], "a dtype"));
  }
  document_.dtypes_.push_back(dtype);
  push({PickleKind::kDType, false, uint32_t(document_.dtypes_.size() - 1), 0, 0});
}

void PickleMachine::make_scalar(const std::vector<Handle>& arguments) {
  if (arguments.size() != 2) fail("has a numpy scalar without dtype and bytes");
  const DType dtype = dtype_of(arguments[0]);
  if (dtype.kind == 'O' || dtype.kind == 'V') return push({PickleKind::kOther, false, 0, 0, 0});
  push_array(dtype, {}, false, arguments[1]);
}

void PickleMachine::make_from_buffer(const std::vector<Handle>& arguments) {
  if (arguments.size() != 4) fail("has an array buffer without dtype, shape and order");
  const std::string_view order = text_of(arguments[3], "an order");
  if (order != "C" && order != "F") fail("has an array of unknown order");
  push_array(dtype_of(arguments[1]), shape_of(arguments[2]), order == "F", arguments[0]);
}

void PickleMachine::make_encoded(const std::vector<Handle>& arguments) {
  const bool complete = arguments.size() == 2 && document_.kind(arguments[0]) == PickleKind::kText;
  if (!complete) fail("encodes something that is not text");
  const std::string_view codec = text_of(arguments[1], "a codec");
  if (codec != "latin1" && codec != "latin-1") {
    fail("encodes with the codec " + printable(codec) + "; only latin1 is read");
  }
  Node node = document_.nodes_[arguments[0]];
  node.kind = PickleKind::kBytes;
  node.latin1 = true;
  push(node);
}

void PickleMachine::push_array(DType dtype, std::vector<int64_t> shape, bool fortran, Handle data) {
  PickleDocument::Array array{dtype, std::move(shape), fortran, data};
  check_data(array);
  document_.arrays_.push_back(std::move(array));
  push({PickleKind::kArray, false, uint32_t(document_.arrays_.size() - 1), 0, 0});
}

void PickleMachine::check_data(const PickleDocument::Array& array) const {
  const Node& data = document_.nodes_[array.data];
  const auto size = int64_t(document_.source_.bytes.size());
  // No element is smaller than a byte of the file (an object takes an opcode), so this bounds every
  // allocation.
  const auto count = element_count(array.shape, size);
  if (!count) fail("has an array whose shape exceeds the file");
  if (array.dtype.kind == 'O') {
    const auto& items = list_of(array.data, "an array of objects");
    if (int64_t(items.size()) != *count) fail("has an array of objects that lacks some");
    return;
  }
  if (data.kind != PickleKind::kBytes) fail("has an array without bytes");
  if (array.dtype.kind == 'V') return;
  if (array.dtype.size == 0 && *count > 0) fail("has an array of empty elements");
  const auto length = int64_t(data.length);
  const bool bounded = array.dtype.size == 0 || *count <= length / array.dtype.size;
  const int64_t needed = bounded ? *count * array.dtype.size : length + 1;
  const int64_t most = data.latin1 ? 2 * needed : needed;
  if (length < needed || length > most) {
    fail("has an array whose bytes do not fit its shape");
  }
}

void PickleMachine::build() {
  const Handle state = pop();
  const Handle object = top();
  const PickleKind kind = document_.kind(object);
  if (kind == PickleKind::kBlankArray) {
    build_array(object, list_of(state, "the state of an array"));
  } else if (kind == PickleKind::kDType) {
    build_dtype(object, list_of(state, "the state of a dtype"));
  } else {
    fail("sets the state of something other than an array");
  }
}

void PickleMachine::build_array(Handle object, const std::vector<Handle>& state) {
  // (version, shape, dtype, is_fortran, data); very old files lack the version.
  if (state.size() != 4 && state.size() != 5) fail("has an array with an unknown state");
  const size_t base = state.size() - 4;
  const auto fortran = document_.integer(state[base + 2]);
  if (!fortran) fail("has an array of unknown order");
  PickleDocument::Array array{dtype_of(state[base + 1]), shape_of(state[base]), *fortran != 0,
                              state[base + 3]};
  check_data(array);
  document_.arrays_.push_back(std::move(array));
  Node& node = document_.nodes_[object];
  node.kind = PickleKind::kArray;
  node.index = uint32_t(document_.arrays_.size() - 1);
}

void PickleMachine::build_dtype(Handle object, const std::vector<Handle>& state) {
  // (version, byte order, subdtype, names, fields, size, alignment, flags[, metadata])
  if (state.size() < 7) fail("has a dtype with an unknown state");
  DType& dtype = document_.dtypes_[document_.nodes_[object].index];
  dtype.swapped = text_of(state[1], "a byte order") == ">";
  const auto none = [&](size_t i) { return document_.kind(state[i]) == PickleKind::kNone; };
  if (!none(2) || !none(3) || !none(4)) dtype.kind = 'V';  // records and sub-arrays
  const auto size = document_.integer(state[5]);
  if (!size) fail("has a dtype of unknown size");
  if (dtype.text() && *size >= 0) {
    if (*size > (int64_t(1) << 33) || (dtype.kind == 'U' && *size % 4 != 0)) {
      fail("has a text dtype of impossible size");
    }
    dtype.size = *size;
  }
}

}  // namespace decalign
