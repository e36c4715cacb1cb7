#include "model/tokens.h"

#include <algorithm>

#include "data/tokens.h"
#include "model/layout.h"

namespace decalign::inline DECALIGN_REAL {

std::vector<uint8_t> attended_tokens(const BatchModality& text, int64_t batch) {
  const int64_t row = attention_row(text.tokens, text.steps);
  std::vector<uint8_t> attended;
  attended.reserve(size_t(batch * text.steps));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t t = 0; t < text.steps; ++t)
      attended.push_back(text.tokens[size_t((3 * b + row) * text.steps + t)] != 0);
  return attended;
}

TokenRows token_rows(Tape& tape, const BatchModality& text, int64_t batch, bool packed) {
  const int64_t steps = text.steps, segment_row = 3 - attention_row(text.tokens, steps);
  const std::vector<uint8_t> attended = attended_tokens(text, batch);
  TokenRows tokens;
  std::vector<int64_t> lengths;
  std::vector<std::vector<KeyRange>> keys(size_t(batch), std::vector<KeyRange>{});
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t begin = std::ssize(tokens.ids);
    std::vector<KeyRange>& runs = keys[size_t(b)];
    for (int64_t t = 0; t < steps; ++t) {
      const bool seen = attended[size_t(b * steps + t)];
      if (!seen && packed) continue;
      const int64_t row = std::ssize(tokens.ids);
      if (seen && !runs.empty() && runs.back().row + runs.back().length == row)
        ++runs.back().length;
      else if (seen)
        runs.push_back({row, 1});
      tokens.ids.push_back(text.tokens[size_t(3 * b * steps + t)]);
      tokens.segments.push_back(text.tokens[size_t((3 * b + segment_row) * steps + t)]);
      tokens.positions.push_back(int32_t(t));
    }
    lengths.push_back(std::ssize(tokens.ids) - begin);
    tokens.ranges_per_sequence = std::max(tokens.ranges_per_sequence, std::ssize(runs));
  }
  tokens.rows = make_rows(tape, 1, batch, lengths);
  for (std::vector<KeyRange>& runs : keys) {
    runs.resize(size_t(tokens.ranges_per_sequence));
    tokens.keys.insert(tokens.keys.end(), runs.begin(), runs.end());
  }
  return tokens;
}

}  // namespace decalign::inline DECALIGN_REAL
