// safetensors files: the reader.
#include "data/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "data/safetensors_types.h"
#include "data/utf8.h"

namespace decalign {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxDimensions = 64;

/// Stops the parser early at what no header has: duplicate names, deep nesting, long arrays.
class HeaderGuard {
 public:
  explicit HeaderGuard(const std::string& file) : file_(file) {}

  bool operator()(int depth, json::parse_event_t event, json& value) {
    using Event = json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth > 2) throw input_error(file_ + ": its header is nested too deeply");
      if (event == Event::object_start) keys_.resize(size_t(depth) + 1);
      if (event == Event::object_start) keys_[size_t(depth)].clear();
      entries_ = 0;
    } else if (event == Event::key) {
      auto& keys = keys_.at(size_t(depth) - 1);
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.insert(key).second) {
        throw input_error(file_ + ": its header has '" + printable(key) + "' twice");
      }
    } else if (event == Event::value && depth == 3 && ++entries_ > kMaxDimensions) {
      throw input_error(file_ + ": its header has a tensor of more than 64 dimensions");
    }
    return true;
  }

 private:
  const std::string& file_;
  std::vector<std::set<std::string>> keys_;  // of the open objects, by depth
  size_t entries_ = 0;                       // of the open array
};

json parse_header(std::string_view text, const std::string& file) {
  try {
    HeaderGuard guard(file);
    return json::parse(text, [&](int depth, json::parse_event_t event, json& value) {
      return guard(depth, event, value);
    });
  } catch (const json::exception&) {
    throw input_error(file + ": its header is not valid JSON");
  }
}

std::vector<int64_t> whole_numbers(const json& array, const std::string& what) {
  std::vector<int64_t> numbers;
  if (!array.is_array()) throw input_error(what + " must be an array");
  for (const json& item : array) {
    // From 2^63 on nothing can be in range.
    if (!item.is_number_unsigned() || item.get<uint64_t>() > uint64_t(INT64_MAX)) {
      throw input_error(what + " must hold whole numbers of at least 0");
    }
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

/// A tensor's view; `data` are the bytes after the header.
ArrayView parse_tensor(const json& entry, const std::string& what, const ByteView& source,
                       std::span<const std::byte> data) {
  const bool complete = entry.is_object() && entry.size() == 3 && entry.contains("dtype") &&
                        entry.contains("shape") && entry.contains("data_offsets");
  if (!complete) throw input_error(what + ": exactly dtype, shape and data_offsets are expected");
  if (!entry["dtype"].is_string()) throw input_error(what + ": dtype must be text");
  ArrayView view;
  const auto& dtype = entry["dtype"].get_ref<const std::string&>();
  view.dtype = safetensors_dtype(dtype);
  if (view.dtype.size == 0) {
    throw input_error(what + ": the type '" + printable(dtype) + "' is not read");
  }
  view.shape = whole_numbers(entry["shape"], what + ": shape");
  view.source = source;
  const std::vector<int64_t> offsets =
      whole_numbers(entry["data_offsets"], what + ": data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > int64_t(data.size())) {
    throw input_error(what + ": its data_offsets are not within the file (truncated?)");
  }
  const auto count = element_count(view.shape, int64_t(data.size()));
  const int64_t length = offsets[1] - offsets[0];
  if (!count || *count != length / view.dtype.size || length % view.dtype.size != 0) {
    throw input_error(what + ": its shape and data_offsets disagree");
  }
  view.bytes = data.subspan(size_t(offsets[0]), size_t(length));
  return view;
}

void check_tiling(const std::map<std::string, ArrayView>& tensors, const std::string& file,
                  std::span<const std::byte> data) {
  std::vector<std::span<const std::byte>> parts;
  for (const auto& [name, view] : tensors) parts.push_back(view.bytes);
  std::sort(parts.begin(), parts.end(), [](auto a, auto b) {
    return std::pair(a.data(), a.size()) < std::pair(b.data(), b.size());
  });
  const std::byte* next = data.data();
  for (const auto part : parts) {
    if (part.data() != next) throw input_error(file + ": its tensors overlap or leave a gap");
    next += part.size();
  }
  if (next != data.data() + data.size()) {
    throw input_error(file + ": has bytes that belong to no tensor");
  }
}

template <typename T>
std::vector<int64_t> integers_as(const ArrayView& view, const std::string& what) {
  std::vector<int64_t> values;
  values.reserve(view.bytes.size() / sizeof(T));
  for (size_t i = 0; i + sizeof(T) <= view.bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, view.bytes.data() + i, sizeof(T));
    if (!std::in_range<int64_t>(value)) throw input_error(what + ": exceeds 64-bit integers");
    values.push_back(int64_t(value));
  }
  return values;
}

}  // namespace

Safetensors::Safetensors(const std::string& path)
    : file_(std::make_shared<MappedFile>(path)), source_(view_of(*file_, path)) {
  parse();
}

Safetensors::Safetensors(const ByteView& source) : source_(source) { parse(); }

void Safetensors::parse() {
  const std::string& file = source_.name;
  uint64_t length = 0;
  if (source_.bytes.size() < 8) throw input_error(file + ": is truncated before its header");
  std::memcpy(&length, source_.bytes.data(), 8);
  if (length > kMaxHeader)
    throw input_error(file + ": its header exceeds 100 MB (no safetensors?)");
  if (length > source_.bytes.size() - 8) throw input_error(file + ": is truncated in its header");
  const std::string_view text(reinterpret_cast<const char*>(source_.bytes.data()) + 8, length);
  if (!text.starts_with('{')) throw input_error(file + ": its header is no JSON object");
  const std::span<const std::byte> data = source_.bytes.subspan(8 + size_t(length));
  const json header = parse_header(text, file);
  for (const auto& [name, entry] : header.items()) {
    const std::string what = file + ": tensor '" + printable(name) + "'";
    if (name != "__metadata__") {
      tensors_.emplace(name, parse_tensor(entry, what, source_, data));
      continue;
    }
    if (!entry.is_object()) throw input_error(file + ": __metadata__ must be an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) {
        throw input_error(file + ": __metadata__ '" + printable(key) + "' must be text");
      }
      metadata_[key] = value.get<std::string>();
    }
  }
  check_tiling(tensors_, file, data);
}

const ArrayView& Safetensors::view(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw input_error(file() + ": has no tensor '" + printable(name) + "'");
  }
  return found->second;
}

std::vector<float> Safetensors::floats(const std::string& name) const {
  std::vector<float> values;
  const ArrayView& array = view(name);
  values.reserve(size_t(array.count()));
  read_doubles(array, file() + ": tensor '" + printable(name) + "'",
               [&](int64_t, std::span<const double> block) {
                 for (const double value : block) values.push_back(to_float(value));
               });
  return values;
}

std::vector<double> Safetensors::doubles(const std::string& name) const {
  return read_doubles(view(name), file() + ": tensor '" + printable(name) + "'");
}

std::vector<int64_t> Safetensors::integers(const std::string& name) const {
  const ArrayView& array = view(name);
  const std::string what = file() + ": tensor '" + printable(name) + "'";
  const bool sign = array.dtype.kind == 'i';
  if (array.dtype.kind == 'b') return integers_as<uint8_t>(array, what);
  if (!sign && array.dtype.kind != 'u') {
    throw input_error(what + ": integers are needed, the file holds " + array.dtype.name());
  }
  switch (array.dtype.size) {
    case 1:
      return sign ? integers_as<int8_t>(array, what) : integers_as<uint8_t>(array, what);
    case 2:
      return sign ? integers_as<int16_t>(array, what) : integers_as<uint16_t>(array, what);
    case 4:
      return sign ? integers_as<int32_t>(array, what) : integers_as<uint32_t>(array, what);
    default:
      return sign ? integers_as<int64_t>(array, what) : integers_as<uint64_t>(array, what);
  }
}

}  // namespace decalign
