// A data set as host arrays: per split and modality [N, T, d] float32, lengths, labels, ids.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace decalign {

/// What a user did wrong with a file or an argument: one line that names the file, the key or
/// array, and what was expected. Commands print it and exit with status 2.
struct input_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One modality of one split.
struct Sequences {
  std::string name;              ///< "text", "audio", "vision", ...
  int64_t count = 0;             ///< N
  int64_t steps = 0;             ///< T (1 if the file's array is [N, d])
  int64_t width = 0;             ///< d
  std::vector<float> values;     ///< [N, T, d], row-major, finite after cleaning
  std::vector<int32_t> lengths;  ///< [N], each in [0, T]; empty if the file gives none
  int64_t cleaned = 0;           ///< how many NaN or infinite entries were set to 0
  /// [N, 3, T]: token ids, then the file's two other rows (attention mask and segment ids in either
  /// order, see attention_row); empty without. Text that is only token ids has width 0 and no
  /// values; beside float values (LoadOptions::keep_text) the tokens' T may be another.
  std::vector<int32_t> tokens{};

  /// T of the tokens, 0 without.
  int64_t token_steps() const { return count > 0 ? std::ssize(tokens) / (3 * count) : 0; }

  std::span<const float> sample(int64_t n) const {
    return std::span(values).subspan(size_t(n * steps * width), size_t(steps * width));
  }
};

/// One split: all modalities describe the same N samples, in the order text, audio, vision, then
/// the others by name.
struct Split {
  std::vector<Sequences> modalities;
  std::vector<float> labels;     ///< [N]; class indices as whole numbers; empty where the caller
                                 ///< allowed unlabelled data
  std::vector<std::string> ids;  ///< [N]
  std::vector<std::string> raw_text;  ///< [N]; empty unless LoadOptions::keep_text asked for it

  int64_t count() const { return modalities.empty() ? 0 : modalities.front().count; }
};

/// Named splits ("train", "valid", "test"). Every split has the same modalities with the same
/// widths.
struct Dataset {
  std::map<std::string, Split> splits;
  std::string labels_key;  ///< "regression_labels" or "classification_labels"
  std::optional<double>
      noise_floor_mae;  ///< only for generated data: MAE of the best possible predictor on test
};

/// The order of modalities: text, audio, vision, then the others by name.
bool modality_before(const std::string& a, const std::string& b);

/// Moves text, audio, vision to the front (in this order), the others after them by name.
void sort_modalities(std::vector<Sequences>& modalities);

}  // namespace decalign
