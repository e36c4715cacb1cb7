// MMSA feature files in.
#include "data/mmsa.h"

#include <memory>
#include <utility>

#include "data/pickle.h"
#include "data/split_source.h"

namespace decalign {
namespace {

using Handle = PickleDocument::Handle;

/// An entry of a list: a number, text, or a list of one number as in [[1.0], [0.5]].
Cell cell_of(const PickleDocument& document, Handle handle) {
  if (const auto items = document.items(handle); items && items->size() == 1) {
    handle = items->front();
  }
  if (const auto number = document.number(handle)) return *number;
  if (auto text = document.text(handle)) return std::move(*text);
  return {};
}

Field field_of(const PickleDocument& document, Handle handle) {
  Field field;
  field.description = document.describe(handle);
  field.array = document.array(handle);
  if (field.array) return field;
  if (const auto items = document.items(handle)) {
    field.count = int64_t(items->size());
    field.cell = [&document, items = *items](int64_t n) {
      return cell_of(document, items[size_t(n)]);
    };
  }
  return field;
}

class MmsaSplits : public SplitSource {
 public:
  explicit MmsaSplits(const ByteView& source) : document_(source) {
    if (document_.kind(document_.root()) != PickleKind::kDict) {
      throw input_error(file() + ": a dict of splits is expected, it holds " +
                        document_.describe(document_.root()));
    }
  }

  const std::string& file() const override { return document_.source().name; }

  bool has(const std::string& split) const override {
    return document_.find(document_.root(), split).has_value();
  }

  SplitFields fields(const std::string& split) const override {
    SplitFields fields;
    fields.file = file();
    fields.split = split;
    fields.file_bytes = int64_t(document_.source().bytes.size());
    const Handle handle = document_.find(document_.root(), split).value();
    if (document_.kind(handle) != PickleKind::kDict) {
      throw input_error(file() + ": split " + split + ": a dict of arrays is expected, it is " +
                        document_.describe(handle));
    }
    for (auto& [key, value] : document_.entries(handle)) {
      fields.fields.insert_or_assign(std::move(key), field_of(document_, value));
    }
    return fields;
  }

 private:
  PickleDocument document_;
};

}  // namespace

std::unique_ptr<SplitSource> open_mmsa(const ByteView& source) {
  return std::make_unique<MmsaSplits>(source);
}

Dataset load_mmsa(const std::string& path, const LoadOptions& options) {
  const MappedFile file(path);
  return load_mmsa(view_of(file, path), options);
}

Dataset load_mmsa(const ByteView& source, const LoadOptions& options) {
  return read_splits(MmsaSplits(source), options);
}

}  // namespace decalign
