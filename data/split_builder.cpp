// From a split's fields to checked and cleaned host arrays.
#include "data/split_builder.h"

#include <algorithm>
#include <utility>

#include "data/field_values.h"
#include "data/text_modality.h"
#include "data/utf8.h"

namespace decalign {
namespace {

constexpr size_t kMaxModalities = 64;

bool is_reserved(const std::string& name) {
  return name == "text_bert" || name == "raw_text" || name == "id" || name == "ids" ||
         name.starts_with("annotations") || name.ends_with("_lengths") ||
         name.find("labels") != std::string::npos;
}

/// Aliases of one array could multiply a small file without bound; an honest file has a byte for
/// every entry.
void check_total(const SplitFields& fields, int64_t kept, int64_t more) {
  if (more > fields.file_bytes - kept) {
    throw input_error(fields.place() + "its arrays have more entries than the file has bytes");
  }
}

/// The keys that are read for a modality.
std::vector<std::string> arrays_of(const std::string& modality, const LoadOptions& options) {
  if (modality == "text" && (options.token_ids || options.keep_text)) return {"text", "text_bert"};
  return {modality};
}

std::vector<std::string> wanted_modalities(const SplitFields& fields, const LoadOptions& options) {
  std::vector<std::string> names =
      options.modalities.empty() ? modality_names(fields, options) : options.modalities;
  if (options.modalities.empty()) {
    for (const auto& [name, file] : options.feature_files) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    // Token ids that were not asked for, or raw text that cannot be read: say so instead of
    // training without text.
    const bool text = std::find(names.begin(), names.end(), "text") != names.end();
    const bool raw = !options.no_tokens.empty() && fields.find("raw_text") != nullptr;
    if (!text && (raw || fields.find("text_bert") != nullptr)) names.emplace_back("text");
  }
  if (names.size() > kMaxModalities) {
    throw input_error(fields.place() + "has more than " + std::to_string(kMaxModalities) +
                      " modalities; name those to use");
  }
  std::sort(names.begin(), names.end(), modality_before);
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace

const Field* SplitFields::find(const std::string& key) const {
  const auto found = fields.find(key);
  return found == fields.end() ? nullptr : &found->second;
}

std::string SplitFields::place() const { return file + ": split " + printable(split) + ": "; }

std::vector<std::string> modality_names(const SplitFields& fields, const LoadOptions& options) {
  std::vector<std::string> names;
  if (offers_text(fields, options)) names.emplace_back("text");
  for (const auto& [name, field] : fields.fields) {
    if (name == "audio" || name == "vision") {
      names.push_back(name);
    } else if (name != "text" && !is_reserved(name) && field.array &&
               field.array->dtype.numeric() && field.array->shape.size() == 3) {
      names.push_back(name);
    }
  }
  return names;
}

std::vector<int32_t> read_lengths(const SplitFields& fields, const Sequences& sequences) {
  const std::string key = sequences.name + "_lengths";
  const Field* field = fields.find(key);
  if (field == nullptr) return {};
  const std::string what = fields.place() + printable(key);
  const std::vector<double> numbers = field_numbers(*field, what);
  if (int64_t(numbers.size()) != sequences.count) {
    throw input_error(what + " has " + std::to_string(numbers.size()) + " entries, " +
                      sequences.name + " has " + std::to_string(sequences.count) + " samples");
  }
  std::vector<int32_t> lengths;
  for (size_t n = 0; n < numbers.size(); ++n) {
    const bool fits = numbers[n] >= 0.0 && numbers[n] <= double(sequences.steps);
    if (!fits || numbers[n] != double(int64_t(numbers[n]))) {
      throw input_error(what + ": entry " + std::to_string(n) + " is " + short_number(numbers[n]) +
                        ", a whole number from 0 to " + std::to_string(sequences.steps) +
                        " is expected");
    }
    lengths.push_back(int32_t(numbers[n]));
  }
  return lengths;
}

Sequences read_features(const SplitFields& fields, const std::string& key,
                        const std::string& name) {
  const Field* found = fields.find(key);
  if (found == nullptr) throw input_error(fields.place() + "has no array '" + printable(key) + "'");
  const Field& field = *found;
  const std::string what = fields.place() + printable(key);
  const bool fits = field.array && field.array->dtype.numeric() &&
                    (field.array->shape.size() == 2 || field.array->shape.size() == 3);
  if (!fits) {
    throw input_error(what + ": a numeric array [N, T, d] or [N, d] is expected, the file has " +
                      field.description);
  }
  const ArrayView& array = *field.array;
  const auto& shape = array.shape;
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
    throw input_error(what + ": the array " + array.shape_text() + " is empty");
  }
  if (std::any_of(shape.begin() + 1, shape.end(), [](int64_t n) { return n > INT32_MAX; })) {
    throw input_error(what + ": the array " + array.shape_text() + " is too long or too wide");
  }
  Sequences sequences;
  sequences.name = name;
  sequences.count = shape[0];
  sequences.steps = shape.size() == 3 ? shape[1] : 1;
  sequences.width = shape.back();
  CleanFloats floats = read_floats(array, what);
  sequences.values = std::move(floats.values);
  sequences.cleaned = floats.cleaned;
  return sequences;
}

Sequences read_modality(const SplitFields& fields, const std::string& name,
                        const LoadOptions& options) {
  if (name == "text") return read_text(fields, options);
  Sequences sequences = read_features(fields, name, name);
  sequences.lengths = read_lengths(fields, sequences);
  return sequences;
}

std::vector<float> read_labels(const SplitFields& fields, const std::string& key, int64_t count) {
  const Field* field = fields.find(key);
  const std::string what = fields.place() + printable(key);
  if (field == nullptr)
    throw input_error(fields.place() + "has no labels '" + printable(key) + "'");
  const std::vector<double> numbers = field_numbers(*field, what);
  if (int64_t(numbers.size()) != count) {
    throw input_error(what + " has " + std::to_string(numbers.size()) +
                      " entries, the features have " + std::to_string(count) + " samples");
  }
  const bool classes = key == "classification_labels";
  std::vector<float> labels;
  for (size_t n = 0; n < numbers.size(); ++n) {
    const double value = numbers[n];
    const bool finite = value >= -1e30 && value <= 1e30;
    const bool is_class = finite && value >= 0.0 && value <= 1e6 && value == double(int64_t(value));
    if (!finite || (classes && !is_class)) {
      throw input_error(
          what + ": entry " + std::to_string(n) + " is " + short_number(value) +
          (classes ? ", a class index is expected" : ", a finite number is expected"));
    }
    labels.push_back(float(value));
  }
  return labels;
}

std::vector<std::string> read_ids(const SplitFields& fields, int64_t count) {
  const Field* field = fields.find("id");
  if (field == nullptr) {
    std::vector<std::string> ids;
    for (int64_t n = 0; n < count; ++n) ids.push_back(fields.split + "_" + std::to_string(n));
    return ids;
  }
  std::vector<std::string> ids = field_texts(*field, fields.place() + "id", fields.file_bytes);
  if (int64_t(ids.size()) != count) {
    throw input_error(fields.place() + "id has " + std::to_string(ids.size()) +
                      " entries, the features have " + std::to_string(count) + " samples");
  }
  return ids;
}

Split build_split(const SplitFields& fields, const LoadOptions& options,
                  const std::map<std::string, SplitFields>& replacements) {
  Split split;
  std::map<const SplitFields*, int64_t> kept;
  for (const std::string& name : wanted_modalities(fields, options)) {
    const auto replacement = replacements.find(name);
    const SplitFields& source = replacement == replacements.end() ? fields : replacement->second;
    for (const std::string& key : arrays_of(name, options)) {
      const Field* field = source.find(key);
      if (field == nullptr || !field->array) continue;
      check_total(source, kept[&source], field->array->count());
      kept[&source] += field->array->count();
    }
    split.modalities.push_back(read_modality(source, name, options));
    const Sequences& first = split.modalities.front();
    const Sequences& last = split.modalities.back();
    if (last.count != first.count) {
      throw input_error(source.place() + printable(name) + " has " + std::to_string(last.count) +
                        " samples, " + printable(first.name) + " has " +
                        std::to_string(first.count));
    }
  }
  if (split.modalities.size() < 2) {
    throw input_error(fields.place() + "at least 2 modalities are needed, " +
                      std::to_string(split.modalities.size()) + " found");
  }
  const bool labelled = fields.find(options.labels_key) != nullptr;
  if (labelled || !options.allow_unlabelled) {
    split.labels = read_labels(fields, options.labels_key, split.count());
  }
  split.ids = read_ids(fields, split.count());
  if (options.keep_text && fields.find("raw_text") != nullptr) {
    split.raw_text = read_raw_text(fields);
    if (int64_t(split.raw_text.size()) != split.count()) {
      throw input_error(fields.place() + "raw_text has " + std::to_string(split.raw_text.size()) +
                        " entries, the features have " + std::to_string(split.count()) +
                        " samples");
    }
  }
  return split;
}

void check_dataset(const Dataset& dataset, const std::string& file) {
  const auto& [first_name, first] = *dataset.splits.begin();
  for (const auto& [name, split] : dataset.splits) {
    const std::string pair = ": splits " + printable(first_name) + " and " + printable(name);
    if (split.modalities.size() != first.modalities.size()) {
      throw input_error(file + pair + " have different modalities");
    }
    for (size_t m = 0; m < split.modalities.size(); ++m) {
      const Sequences& a = first.modalities[m];
      const Sequences& b = split.modalities[m];
      if (a.name != b.name) throw input_error(file + pair + " have different modalities");
      if (a.width != b.width && (a.width == 0 || b.width == 0)) {
        throw input_error(file + pair + ": " + printable(a.name) +
                          " is token ids in one and features in the other");
      }
      if (a.width != b.width) {
        throw input_error(file + pair + ": " + printable(a.name) + " is " +
                          std::to_string(a.width) + " and " + std::to_string(b.width) +
                          " wide, equal widths are expected");
      }
    }
  }
}

std::vector<std::string> chosen_splits(const LoadOptions& options, const std::string& file,
                                       const std::function<bool(const std::string&)>& has) {
  std::vector<std::string> chosen = options.splits;
  for (const std::string& split : chosen) {
    if (!has(split)) throw input_error(file + ": has no split '" + printable(split) + "'");
  }
  if (!chosen.empty()) return chosen;
  for (const char* split : {"train", "valid", "test"}) {
    if (has(split)) chosen.emplace_back(split);
  }
  if (chosen.empty()) {
    throw input_error(file + ": has none of the splits train, valid, test");
  }
  return chosen;
}

}  // namespace decalign
