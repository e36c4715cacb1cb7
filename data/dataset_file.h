// Data set files: an MMSA pickle or safetensors, told apart by content; both ways.
#pragma once

#include <string>

#include "data/dataset.h"
#include "data/mapped_file.h"
#include "data/split_builder.h"

namespace decalign {

/// Reads a data set from a pickle or a safetensors file (docs/formats.md). The file is mapped; peak
/// memory is the result plus a small constant. Throws input_error, one line naming file, split and
/// key.
Dataset load_dataset(const std::string& path, const LoadOptions& options = {});

/// The same from bytes in memory. The options' feature files are paths all the same.
Dataset load_dataset(const ByteView& source, const LoadOptions& options = {});

/// Writes a data set: a pickle if `path` ends in .pkl or .pickle, safetensors otherwise. The file
/// appears whole or not at all; throws input_error naming the path if it cannot be written.
void save_dataset(const std::string& path, const Dataset& dataset);

}  // namespace decalign
