// Ways of loading that the input's size chooses, so that the mutations of one seed are read in
// many.
#pragma once

#include <array>

#include "data/split_builder.h"
#include "data/tokens.h"
#include "data/wordpiece.h"

namespace decalign {

inline LoadOptions options_for(size_t size) {
  static const WordPiece tokenizer("[PAD]\n[UNK]\n[CLS]\n[SEP]\ns\n##e\n##n\n0\n[MASK]\n",
                                   "vocab.txt", {});
  constexpr std::array kLabels{"", "classification_labels", "regression_labels"};
  LoadOptions options;
  const auto choose = [&size](size_t ways) {
    const size_t choice = size % ways;
    size /= ways;
    return choice;
  };
  options.labels_key = kLabels[choose(3)];
  options.token_ids = choose(2) == 1;
  options.keep_text = choose(2) == 1;
  if (choose(2) == 1) options.tokenizer = &tokenizer;
  options.token_steps = 4;
  options.allow_unlabelled = choose(2) == 1;
  if (choose(3) == 2) options.modalities = {"text", "audio"};
  if (choose(2) == 1) options.splits = {"train"};
  if (choose(2) == 1) options.no_tokens = "why";
  return options;
}

/// Looks at what was loaded as the network would.
inline void check_loaded(const Dataset& dataset) {
  for (const auto& [name, split] : dataset.splits) check_token_ids(split, 9, 2, name);
}

}  // namespace decalign
