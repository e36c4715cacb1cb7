// From a split's fields, whatever file they come from, to checked and cleaned host arrays.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "data/array_view.h"
#include "data/dataset.h"

namespace decalign {

class WordPiece;

/// How a data set is read. The defaults take everything the file has.
struct LoadOptions {
  /// "regression_labels" or "classification_labels"; empty: the one that the file has, regression
  /// first.
  std::string labels_key = "regression_labels";
  std::vector<std::string>
      splits;  ///< those to read; empty: train, valid, test as far as they exist
  std::vector<std::string> modalities;  ///< those to read; empty: all
  /// Modality -> another file of the same splits whose array (and lengths) replace it:
  /// `feature_T/A/V` of a config.
  std::map<std::string, std::string> feature_files;
  bool allow_unlabelled = false;  ///< for prediction: a split without labels gets an empty `labels`
  /// Text as token ids where they can be had: `text_bert` [N, 3, T], else `raw_text` through
  /// `tokenizer`. Otherwise float text is read, and the text modality's `tokens` are empty.
  bool token_ids = false;
  const WordPiece* tokenizer = nullptr;  ///< outlives the reading
  int64_t token_steps = 50;              ///< T >= 2 of tokenized `raw_text`
  std::string no_tokens;  ///< why token_ids is not set, if that is to be said with what is missing
  /// For converting: float text, token ids and raw text side by side, as far as the file has them.
  /// A tokenizer then replaces the file's token ids by those of `raw_text`, which is needed.
  bool keep_text = false;
};

/// One entry of a list or a text array: a number, text, or neither.
using Cell = std::variant<std::monostate, double, std::string>;

/// A key of a split. Nothing is read until asked for.
struct Field {
  std::optional<ArrayView> array;  ///< numbers or text
  /// A list: its length and its items. Unused if `array` is set.
  int64_t count = 0;
  std::function<Cell(int64_t)> cell;
  std::string description;  ///< "a list", "an array of float32 [3, 4]": for messages
};

/// A split as the file has it.
struct SplitFields {
  std::string file;        ///< for messages
  std::string split;       ///< "train", ...
  int64_t file_bytes = 0;  ///< bounds what may be allocated
  std::map<std::string, Field> fields;

  const Field* find(const std::string& key) const;  ///< nullptr if it is absent
  std::string place() const;                        ///< "FILE: split S: "
};

/// Modalities a split offers: text, audio, vision as [N, T, d] or [N, d]; any other key as [N, T,
/// d] numbers unless its name is one of labels, lengths, ids, annotations or token ids.
std::vector<std::string> modality_names(const SplitFields& fields, const LoadOptions& options = {});

/// Reads the array `key` as the features of modality `name`, without lengths. Throws input_error
/// "FILE: split S: ..." for a missing key or a wrong shape.
Sequences read_features(const SplitFields& fields, const std::string& key, const std::string& name);

/// Reads `<name>_lengths` [N]; empty if the file has none. Throws input_error for lengths outside
/// [0, T].
std::vector<int32_t> read_lengths(const SplitFields& fields, const Sequences& sequences);

/// Reads one modality with its lengths; text as the options ask (data/text_modality.h). Throws
/// input_error as the above.
Sequences read_modality(const SplitFields& fields, const std::string& name,
                        const LoadOptions& options = {});

/// Labels [N]: numbers or numeric text, [N] or [N, 1], finite; whole and not negative for
/// classification_labels. `count` is the N they must have.
std::vector<float> read_labels(const SplitFields& fields, const std::string& key, int64_t count);

/// Ids [N] as text; "SPLIT_0", "SPLIT_1", ... if the file has none.
std::vector<std::string> read_ids(const SplitFields& fields, int64_t count);

/// Builds a split: modalities (those of the options, replaced ones from `replacements`), labels and
/// ids, all with the same N. Throws input_error naming file, split and key.
Split build_split(const SplitFields& fields, const LoadOptions& options,
                  const std::map<std::string, SplitFields>& replacements);

/// Checks across splits: the same modalities of the same widths, at least two. Throws input_error.
void check_dataset(const Dataset& dataset, const std::string& file);

/// The splits to read of those the file has. Throws input_error if one that was asked for, or every
/// one, is missing.
std::vector<std::string> chosen_splits(const LoadOptions& options, const std::string& file,
                                       const std::function<bool(const std::string&)>& has);

}  // namespace decalign
