#include "model/layout.h"

#include <algorithm>

#include "kernels/mask.h"
#include "model/step.h"
#include "model/tokens.h"

namespace decalign::inline DECALIGN_REAL {

Rows make_rows(Tape& tape, int64_t modalities, int64_t batch, const std::vector<int64_t>& lengths) {
  const auto first = tape.list<int64_t>(modalities * batch + 1);
  first[0] = 0;
  for (size_t s = 0; s < lengths.size(); ++s) first[s + 1] = first[s] + lengths[s];
  return {modalities, batch, first};
}

std::span<real> zero_step_mask(Tape& tape, const Rows& rows,
                               std::span<const BatchModality* const> inputs, std::span<const In> x,
                               const std::vector<bool>& masked) {
  const auto mask = tape.take<real>(rows.total());
  std::vector<StepSource> sources(size_t(rows.modalities));
  std::vector<std::vector<real>> attended;  // tokens as features of width 1
  for (size_t m = 0; m < sources.size(); ++m) {
    const BatchModality& input = *inputs[m];
    if (!masked[m]) continue;
    if (input.tokens.empty()) {
      sources[m] = {x[m], input.steps, input.width};
    } else {
      const std::vector<uint8_t> tokens = attended_tokens(input, rows.batch);
      attended.emplace_back(tokens.begin(), tokens.end());
      sources[m] = {on_device(tape, {}, In(attended.back())), input.steps, 1};
    }
  }
  tape.run([&](const auto& be) { zero_rows_mask(be, rows, sources, mask); });
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
