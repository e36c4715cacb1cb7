// The parsed pickle: looking values up and reading the small ones.
#include "data/pickle.h"

#include <bit>

#include "data/pickle_machine.h"
#include "data/utf8.h"

namespace decalign {

PickleDocument::PickleDocument(ByteView source) : source_(std::move(source)) {
  PickleMachine(*this).run();
}

std::string_view PickleDocument::raw(const Node& node) const {
  const auto part = source_.bytes.subspan(node.first, node.length);
  return {reinterpret_cast<const char*>(part.data()), part.size()};
}

std::string PickleDocument::describe(Handle handle) const {
  switch (kind(handle)) {
    case PickleKind::kNone:
      return "None";
    case PickleKind::kBoolean:
      return "a bool";
    case PickleKind::kInteger:
      return "an int";
    case PickleKind::kReal:
      return "a float";
    case PickleKind::kText:
      return "text";
    case PickleKind::kBytes:
      return "bytes";
    case PickleKind::kList:
      return "a list";
    case PickleKind::kDict:
      return "a dict";
    case PickleKind::kArray: {
      const Array& array = arrays_[nodes_[handle].index];
      ArrayView view;
      view.shape = array.shape;
      return "an array of " + array.dtype.name() + " " + view.shape_text();
    }
    default:
      return "an object of another kind";
  }
}

std::optional<PickleDocument::Handle> PickleDocument::find(Handle dict,
                                                           std::string_view key) const {
  if (kind(dict) != PickleKind::kDict) return std::nullopt;
  const auto& pairs = lists_[nodes_[dict].index];
  for (size_t i = pairs.size(); i >= 2; i -= 2) {
    const Node& name = nodes_[pairs[i - 2]];
    const bool is_text = name.kind == PickleKind::kText || name.kind == PickleKind::kBytes;
    if (is_text && raw(name) == key) return pairs[i - 1];
  }
  return std::nullopt;
}

std::vector<std::pair<std::string, PickleDocument::Handle>> PickleDocument::entries(
    Handle dict) const {
  std::vector<std::pair<std::string, Handle>> result;
  if (kind(dict) != PickleKind::kDict) return result;
  const auto& pairs = lists_[nodes_[dict].index];
  constexpr uint64_t kLongestKey = 256;
  for (size_t i = 0; i + 1 < pairs.size(); i += 2) {
    const Node& name = nodes_[pairs[i]];
    const bool is_text = name.kind == PickleKind::kText || name.kind == PickleKind::kBytes;
    if (is_text && name.length <= kLongestKey) result.emplace_back(raw(name), pairs[i + 1]);
  }
  return result;
}

std::optional<std::span<const PickleDocument::Handle>> PickleDocument::items(Handle handle) const {
  const Node& node = nodes_[handle];
  if (node.kind == PickleKind::kList) return lists_[node.index];
  if (node.kind != PickleKind::kArray) return std::nullopt;
  const Array& array = arrays_[node.index];
  if (array.dtype.kind != 'O') return std::nullopt;
  return lists_[nodes_[array.data].index];
}

std::optional<ArrayView> PickleDocument::array(Handle handle) const {
  const Node& node = nodes_[handle];
  if (node.kind != PickleKind::kArray) return std::nullopt;
  const Array& array = arrays_[node.index];
  if (array.dtype.kind == 'O') return std::nullopt;
  const Node& data = nodes_[array.data];
  ArrayView view;
  view.dtype = array.dtype;
  view.shape = array.shape;
  view.fortran = array.fortran;
  view.latin1 = data.latin1;
  view.source = source_;
  view.bytes = source_.bytes.subspan(data.first, data.length);
  return view;
}

std::optional<int64_t> PickleDocument::integer(Handle handle) const {
  const Node& node = nodes_[handle];
  if (node.kind != PickleKind::kInteger && node.kind != PickleKind::kBoolean) return std::nullopt;
  return std::bit_cast<int64_t>(node.first);
}

std::optional<double> PickleDocument::number(Handle handle) const {
  const Node& node = nodes_[handle];
  if (node.kind == PickleKind::kReal) return std::bit_cast<double>(node.first);
  if (const auto whole = integer(handle)) return double(*whole);
  const auto view = array(handle);
  if (!view || view->count() != 1 || !view->dtype.numeric()) return std::nullopt;
  return read_doubles(*view, source_.name).front();
}

std::optional<std::string> PickleDocument::text(Handle handle) const {
  const Node& node = nodes_[handle];
  if (node.kind == PickleKind::kText) return valid_utf8(raw(node));
  if (node.kind == PickleKind::kBytes) {
    return node.latin1 ? valid_utf8(raw(node)) : latin1_to_utf8(raw(node));
  }
  const auto view = array(handle);
  if (!view || view->count() != 1 || !view->dtype.text()) return std::nullopt;
  return read_texts(*view, source_.name).front();
}

}  // namespace decalign
