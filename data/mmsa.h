// MMSA feature files: pickles {split: {key: array or list}} in, and out again.
#pragma once

#include <string>

#include "data/dataset.h"
#include "data/mapped_file.h"
#include "data/split_builder.h"

namespace decalign {

/// Reads an MMSA pickle. The file is mapped, arrays are converted in blocks, keys nobody asked for
/// are skipped. Throws input_error, one line naming file, split and key, as docs/formats.md lists
/// them.
Dataset load_mmsa(const std::string& path, const LoadOptions& options = {});

/// The same from bytes in memory. The options' feature files are paths all the same.
Dataset load_mmsa(const ByteView& source, const LoadOptions& options = {});

/// Writes an MMSA pickle (protocol 4, float32 and int64 arrays, ids as a list of str) that Python's
/// pickle with numpy 1 or 2 reads. The file appears whole or not at all; throws input_error naming
/// the path if it cannot be written.
void save_mmsa(const std::string& path, const Dataset& dataset);

}  // namespace decalign
