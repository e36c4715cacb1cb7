// Fuzz target: a flag byte, a vocabulary, 0xff, and any text: ids in range, the same for the parts.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "data/dataset.h"
#include "data/tokens.h"
#include "data/utf8.h"
#include "data/wordpiece.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace decalign;
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = std::min(input.find('\xff'), input.size());
  const std::string_view text = input.substr(std::min(cut + 1, input.size()));
  WordPieceOptions options;
  options.lower_case = (data[0] & 1) != 0;
  if ((data[0] & 2) != 0) options.strip_accents = (data[0] & 4) != 0;
  options.chinese_characters = (data[0] & 8) != 0;
  try {
    const WordPiece tokenizer(input.substr(0, cut), "vocab.txt", options);
    const std::vector<int32_t> pieces = tokenizer.pieces(text);
    for (const int32_t id : pieces) require(id >= 0 && id < tokenizer.size());
    require(pieces.size() <= 4 * text.size());  // no character has more than four parts
    require(tokenizer.pieces(valid_utf8(text)) == pieces);
    // A special token parts a text into two.
    std::vector<int32_t> twice = pieces;
    twice.push_back(tokenizer.padding());
    twice.insert(twice.end(), pieces.begin(), pieces.end());
    require(tokenizer.pieces(std::string(text) + "[PAD]" + std::string(text)) == twice);
    const int64_t steps = 2 + data[0] / 16;
    const std::vector<int32_t> ids = tokenizer.ids(text, steps);
    require(std::ssize(ids) == std::min(steps, std::ssize(pieces) + 2));
    const std::string texts[] = {std::string(text), ""};
    const std::vector<int32_t> tokens = tokenize(tokenizer, texts, steps);
    require(token_lengths(tokens, steps) == std::vector<int32_t>{int32_t(ids.size()), 2});
  } catch (const input_error&) {
  }
  return 0;
}
