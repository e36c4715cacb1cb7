// Data set files: telling formats apart, safetensors data sets.
#include "data/dataset_file.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/mmsa.h"
#include "data/safetensors.h"
#include "data/split_source.h"
#include "data/utf8.h"

namespace decalign {
namespace {

using nlohmann::json;

class SafetensorsSplits : public SplitSource {
 public:
  explicit SafetensorsSplits(const ByteView& source) : tensors_(source) {}

  const std::string& file() const override { return tensors_.file(); }

  bool has(const std::string& split) const override {
    const auto next = tensors_.tensors().lower_bound(split + ".");
    return next != tensors_.tensors().end() && next->first.starts_with(split + ".");
  }

  SplitFields fields(const std::string& split) const override {
    SplitFields fields;
    fields.file = file();
    fields.split = split;
    fields.file_bytes = int64_t(tensors_.source().bytes.size());
    for (const auto& [name, view] : tensors_.tensors()) {
      if (!name.starts_with(split + ".")) continue;
      Field field;
      field.array = view;
      field.description = "a tensor of " + view.dtype.name() + " " + view.shape_text();
      std::string key = name.substr(split.size() + 1);
      fields.fields[key == "labels" ? labels_key() : key] = std::move(field);
    }
    for (const auto& [key, name] : {std::pair("id", ".ids"), std::pair("raw_text", ".raw_text")}) {
      const auto texts = tensors_.metadata().find(split + name);
      if (texts == tensors_.metadata().end()) continue;
      fields.fields[key] = texts_field(texts->first, texts->second);
    }
    return fields;
  }

  std::optional<double> noise_floor_mae() const override {
    const auto found = tensors_.metadata().find("noise_floor_mae");
    if (found == tensors_.metadata().end()) return std::nullopt;
    const json value = json::parse(found->second, nullptr, false);
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
      throw input_error(file() + ": metadata 'noise_floor_mae' is no number");
    }
    return value.get<double>();
  }

 private:
  std::string labels_key() const {
    const auto found = tensors_.metadata().find("labels");
    if (found == tensors_.metadata().end()) return "regression_labels";
    if (found->second != "regression_labels" && found->second != "classification_labels") {
      throw input_error(file() + ": metadata 'labels' is '" + printable(found->second) +
                        "', regression_labels or classification_labels is expected");
    }
    return found->second;
  }

  Field texts_field(const std::string& key, const std::string& text) const {
    auto texts = std::make_shared<std::vector<std::string>>();
    const json values = json::parse(text, nullptr, false);
    if (!values.is_array()) throw input_error(file() + ": metadata '" + key + "' is no JSON array");
    for (const json& value : values) {
      if (!value.is_string()) {
        throw input_error(file() + ": metadata '" + key + "' holds something that is not text");
      }
      texts->push_back(value.get<std::string>());
    }
    Field field;
    field.description = "a JSON array";
    field.count = int64_t(texts->size());
    field.cell = [texts](int64_t n) { return Cell((*texts)[size_t(n)]); };
    return field;
  }

  Safetensors tensors_;
};

void add_split(const std::string& name, const Split& split, std::vector<TensorOut>& tensors,
               std::map<std::string, std::string>& metadata) {
  const int64_t count = split.count();
  for (const Sequences& sequences : split.modalities) {
    const std::string key = name + "." + sequences.name;
    if (sequences.width > 0) {
      tensors.push_back(
          tensor_out<float>(key, {count, sequences.steps, sequences.width}, sequences.values));
    }
    if (!sequences.tokens.empty()) {
      tensors.push_back(tensor_out<int32_t>(key + "_bert", {count, 3, sequences.token_steps()},
                                            sequences.tokens));
    }
    if (sequences.lengths.empty()) continue;
    tensors.push_back(tensor_out<int32_t>(key + "_lengths", {count}, sequences.lengths));
  }
  if (!split.labels.empty()) {
    tensors.push_back(tensor_out<float>(name + ".labels", {count}, split.labels));
  }
  const auto texts = [&](const char* key, const std::vector<std::string>& values) {
    metadata[name + key] = json(values).dump(-1, ' ', false, json::error_handler_t::replace);
  };
  texts(".ids", split.ids);
  if (!split.raw_text.empty()) texts(".raw_text", split.raw_text);
}

}  // namespace

std::unique_ptr<SplitSource> open_safetensors_dataset(const ByteView& source) {
  return std::make_unique<SafetensorsSplits>(source);
}

std::unique_ptr<SplitSource> open_splits(const ByteView& source) {
  const auto byte = [&](size_t i) { return i < source.bytes.size() ? int(source.bytes[i]) : -1; };
  if (byte(0) < 0) throw input_error(source.name + ": is empty");
  // A safetensors header is shorter than 4 GB and starts with '{'; no pickle has zeros in bytes 4
  // to 7 and then '{'.
  bool small = true;
  for (size_t i = 4; i < 8; ++i) small = small && byte(i) == 0;
  if (small && byte(8) == '{') return open_safetensors_dataset(source);
  if (byte(0) == 0x80) return open_mmsa(source);
  throw input_error(source.name +
                    ": is neither a pickle of protocol 2 to 5 nor a safetensors file");
}

Dataset load_dataset(const std::string& path, const LoadOptions& options) {
  const MappedFile file(path);
  return load_dataset(view_of(file, path), options);
}

Dataset load_dataset(const ByteView& source, const LoadOptions& options) {
  return read_splits(*open_splits(source), options);
}

void save_dataset(const std::string& path, const Dataset& dataset) {
  if (path.ends_with(".pkl") || path.ends_with(".pickle")) return save_mmsa(path, dataset);
  std::vector<TensorOut> tensors;
  std::map<std::string, std::string> metadata;
  metadata["format"] = "decalign data set";
  metadata["labels"] = dataset.labels_key;
  if (dataset.noise_floor_mae) metadata["noise_floor_mae"] = json(*dataset.noise_floor_mae).dump();
  for (const auto& [name, split] : dataset.splits) add_split(name, split, tensors, metadata);
  save_safetensors(path, std::move(tensors), metadata);
}

}  // namespace decalign
