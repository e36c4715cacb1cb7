// Small fields (labels, lengths, ids) as numbers or text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/split_builder.h"

namespace decalign {

/// A field of numbers or numeric text, [N] or [N, 1] or a list, as [N]. `what` names it in
/// messages. Throws input_error for another shape and for an entry that is no number.
std::vector<double> field_numbers(const Field& field, const std::string& what);

/// A field of text or numbers as text, [N]. Throws input_error for other entries and when the text
/// exceeds `limit` bytes plus 32 for each entry.
std::vector<std::string> field_texts(const Field& field, const std::string& what, int64_t limit);

/// A number as a short text: "3", "0.25", "nan".
std::string short_number(double value);

}  // namespace decalign
