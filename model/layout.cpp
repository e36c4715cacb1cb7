#include "model/layout.h"

#include <algorithm>

#include "model/tokens.h"

namespace decalign::inline DECALIGN_REAL {

Rows make_rows(Tape& tape, int64_t modalities, int64_t batch, const std::vector<int64_t>& lengths) {
  const auto first = tape.list<int64_t>(modalities * batch + 1);
  first[0] = 0;
  for (size_t s = 0; s < lengths.size(); ++s) first[s + 1] = first[s] + lengths[s];
  return {modalities, batch, first};
}

std::span<real> zero_step_mask(Tape& tape, const Rows& rows,
                               std::span<const BatchModality* const> inputs,
                               const std::vector<bool>& masked) {
  const auto mask = tape.take<real>(rows.total());
  std::fill(mask.begin(), mask.end(), real(1));
  for (int64_t m = 0; m < rows.modalities; ++m) {
    if (!masked[size_t(m)]) continue;
    const BatchModality& input = *inputs[size_t(m)];
    const std::vector<uint8_t> attended =
        input.tokens.empty() ? std::vector<uint8_t>{} : attended_tokens(input, rows.batch);
    for (int64_t b = 0; b < rows.batch; ++b) {
      const int64_t s = m * rows.batch + b;
      for (int64_t t = 0; t < rows.length(s); ++t) {
        const int64_t step = b * input.steps + t;
        const real* x = input.x.data() + step * input.width;
        const bool padding = attended.empty()
                                 ? std::all_of(x, x + input.width, [](real v) { return v == 0; })
                                 : !attended[size_t(step)];
        if (padding) mask[size_t(rows.begin(s) + t)] = 0;
      }
    }
  }
  return mask;
}

Context cross_context(const Rows& rows) {
  Context context;
  const int64_t others = rows.modalities - 1;
  context.ranges.resize(size_t(rows.sequences() * others));
  int64_t next = 0;
  for (int64_t m = 0; m < rows.modalities; ++m) {
    context.begin.push_back(next);
    for (int64_t o = 0, slot = 0; o < rows.modalities; ++o) {
      if (o == m) continue;
      const int64_t source = rows.modality_begin(o);
      context.copies.push_back({source, next, rows.modality_rows(o)});
      for (int64_t b = 0; b < rows.batch; ++b) {
        const int64_t s = o * rows.batch + b;
        context.ranges[size_t((m * rows.batch + b) * others + slot)] = {
            next + rows.begin(s) - source, rows.length(s)};
      }
      next += rows.modality_rows(o);
      ++slot;
    }
  }
  context.begin.push_back(next);
  return context;
}

}  // namespace decalign::inline DECALIGN_REAL
