// Token ids of a split.
#include "data/tokens.h"

#include <algorithm>
#include <stdexcept>

#include "data/utf8.h"

namespace decalign {
namespace {

int64_t clips(std::span<const int32_t> tokens, int64_t steps) {
  if (steps < 1 || std::ssize(tokens) % (3 * steps) != 0) {
    throw std::invalid_argument("tokens must be [N, 3, T]");
  }
  return std::ssize(tokens) / (3 * steps);
}

/// Throws if an entry of a row of a clip is not in [0, limit).
void check_row(std::span<const int32_t> row, int64_t limit, const char* what, const char* range,
               const std::string& where) {
  for (size_t t = 0; t < row.size(); ++t) {
    if (row[t] >= 0 && row[t] < limit) continue;
    throw input_error(where + ", position " + std::to_string(t) + ": " + what + " " +
                      std::to_string(row[t]) + " is outside " + range + " [0, " +
                      std::to_string(limit) + ")");
  }
}

}  // namespace

int attention_row(std::span<const int32_t> tokens, int64_t steps) {
  const int64_t count = clips(tokens, steps);
  int64_t sums[3] = {0, 0, 0};
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t row = 1; row < 3; ++row) {
      const auto entries = tokens.subspan(size_t((3 * n + row) * steps), size_t(steps));
      for (const int32_t entry : entries) sums[row] += entry;
    }
  }
  return sums[2] <= sums[1] ? 1 : 2;  // a sum of 0 is no more than any other
}

std::vector<int32_t> token_lengths(std::span<const int32_t> tokens, int64_t steps) {
  const int64_t row = attention_row(tokens, steps);
  std::vector<int32_t> lengths(size_t(clips(tokens, steps)), 0);
  for (size_t n = 0; n < lengths.size(); ++n) {
    const auto mask = tokens.subspan((3 * n + size_t(row)) * size_t(steps), size_t(steps));
    int64_t last = steps;
    while (last > 0 && mask[size_t(last - 1)] == 0) --last;
    lengths[n] = int32_t(last);
  }
  return lengths;
}

void check_token_ids(const Split& split, int64_t vocabulary, int64_t segments,
                     const std::string& where) {
  for (const Sequences& s : split.modalities) {
    const int64_t steps = s.token_steps();
    if (steps == 0) continue;
    const std::span<const int32_t> tokens(s.tokens);
    const int attention = attention_row(tokens, steps);
    for (int64_t n = 0; n < s.count; ++n) {
      const auto row = [&](int64_t r) {
        return tokens.subspan(size_t((3 * n + r) * steps), size_t(steps));
      };
      std::string clip = where + ": text_bert: clip " + std::to_string(n);
      if (size_t(n) < split.ids.size()) clip += " (" + printable(split.ids[size_t(n)]) + ")";
      check_row(row(0), vocabulary, "token id", "the vocabulary", clip);
      check_row(row(attention), 2, "the attention mask's entry", "the range", clip);
      check_row(row(3 - attention), segments, "segment id", "the model's segments", clip);
    }
  }
}

std::vector<int32_t> tokenize(const WordPiece& tokenizer, std::span<const std::string> texts,
                              int64_t steps) {
  if (steps < 2 || steps > 65536) {
    throw std::invalid_argument("tokenize: steps must be in [2, 65536]");
  }
  const auto width = size_t(steps);
  std::vector<int32_t> tokens(texts.size() * 3 * width, 0);
  for (size_t n = 0; n < texts.size(); ++n) {
    const auto ids = tokens.begin() + int64_t(n * 3 * width);
    const std::vector<int32_t> found = tokenizer.ids(texts[n], steps);
    std::fill(ids, ids + steps, tokenizer.padding());
    std::copy(found.begin(), found.end(), ids);
    std::fill(ids + steps, ids + steps + std::ssize(found), 1);
  }
  return tokens;
}

}  // namespace decalign
