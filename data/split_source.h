// A file of splits, whatever its format.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "data/mapped_file.h"
#include "data/split_builder.h"

namespace decalign {

/// An open file of splits. The bytes and the source must outlive the fields it gives.
class SplitSource {
 public:
  virtual ~SplitSource() = default;
  virtual const std::string& file() const = 0;
  virtual bool has(const std::string& split) const = 0;
  /// Only for a split that it has. Throws input_error if the split is no set of named fields.
  virtual SplitFields fields(const std::string& split) const = 0;
  virtual std::optional<double> noise_floor_mae() const { return std::nullopt; }
};

std::unique_ptr<SplitSource> open_mmsa(const ByteView& source);
std::unique_ptr<SplitSource> open_safetensors_dataset(const ByteView& source);

/// By the first bytes. Throws input_error if they are neither a pickle's (protocol 2 to 5) nor a
/// safetensors file's.
std::unique_ptr<SplitSource> open_splits(const ByteView& source);

/// Reads the splits that the options choose. The options' feature files are opened by their paths.
Dataset read_splits(const SplitSource& source, const LoadOptions& options);

}  // namespace decalign
