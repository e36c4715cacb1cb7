// The text of a split: float features, token ids, raw text.
#pragma once

#include <string>
#include <vector>

#include "data/split_builder.h"

namespace decalign {

/// Whether the split has text in a form that the options take.
bool offers_text(const SplitFields& fields, const LoadOptions& options);

/// Reads the text modality.
///   by default: float `text`; without it float `text_bert` [N, T, d];
///   token_ids:  `text_bert` (integer [N, 3, T]: tokens, lengths from the attention mask, width 0;
///               float [N, T, d]: features); else `raw_text` through the tokenizer; else float
///               `text`;
///   keep_text:  float features as by default and, beside them, the tokens.
/// A float array [N, 3, T] that holds only whole numbers >= 0 counts as integer where tokens are
/// taken. Throws input_error naming file, split, key and, for an entry that is no token id, clip,
/// row and position.
Sequences read_text(const SplitFields& fields, const LoadOptions& options);

/// `raw_text` as UTF-8 [N]. Throws input_error if it is absent or no list of text.
std::vector<std::string> read_raw_text(const SplitFields& fields);

}  // namespace decalign
