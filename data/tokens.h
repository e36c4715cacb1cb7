// Token ids [N, 3, T] of a split: which row is what, lengths, checks, and making them from text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/wordpiece.h"

namespace decalign {

/// The row of tokens [N, 3, T] that is the attention mask: 1 if row 2 sums to 0 or to no more than
/// row 1 (over all N), else 2. The other one holds the segment ids. `steps` is T >= 1. Throws
/// std::invalid_argument unless the size is a multiple of 3 T.
int attention_row(std::span<const int32_t> tokens, int64_t steps);

/// [N]: steps up to and including the last one whose attention is not 0.
std::vector<int32_t> token_lengths(std::span<const int32_t> tokens, int64_t steps);

/// Checks the text of a split against a pretrained model: token ids in [0, vocabulary), attention
/// 0 or 1, segment ids in [0, segments). `where` starts the message: "FILE: split train". Throws
/// input_error "FILE: split train: text_bert: clip 3 (ID), position 7: ..."; without token ids
/// there is nothing to check.
void check_token_ids(const Split& split, int64_t vocabulary, int64_t segments,
                     const std::string& where);

/// Token ids [N, 3, T] of N texts: ids padded with [PAD], attention 1 up to [SEP], segment 0.
/// Throws std::invalid_argument unless T = `steps` is in [2, 65536].
std::vector<int32_t> tokenize(const WordPiece& tokenizer, std::span<const std::string> texts,
                              int64_t steps);

}  // namespace decalign
