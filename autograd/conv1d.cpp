#include "autograd/conv1d.h"

#include "autograd/keep_rows.h"
#include "kernels/conv1d.h"
#include "kernels/dropout.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

Conv1dShape projection(const Rows& rows, int64_t m, const Conv1dPart& p, int64_t channels) {
  expect(p.weight.shape.size() == 3 && p.weight.shape[0] == channels &&
             p.weight.shape[1] == p.x.shape[2],
         "conv1d: weight must be [channels, width, kernel]");
  return {rows.batch, p.x.shape[1], p.x.shape[2], channels, p.weight.shape[2], m};
}

// The skipped projection of modality m: its sequences' first steps, as copies within its own rows.
std::span<RowCopy> plain_copies(Tape& tape, const Rows& rows, int64_t m, int64_t steps) {
  const auto copies = tape.list<RowCopy>(rows.batch);
  for (int64_t b = 0; b < rows.batch; ++b) {
    const int64_t s = m * rows.batch + b;
    expect(rows.length(s) <= steps, "conv1d: a sequence is too long");
    copies[size_t(b)] = {b * steps, rows.begin(s) - rows.modality_begin(m), rows.length(s)};
  }
  return copies;
}

template <class Span>
Span rows_of(Span y, const Rows& rows, int64_t m, int64_t channels) {
  return y.subspan(size_t(rows.modality_begin(m) * channels),
                   size_t(rows.modality_rows(m) * channels));
}

}  // namespace

Tensor conv1d(Tape& tape, const Rows& caller_rows, std::span<const Conv1dPart> parts,
              int64_t channels) {
  expect_rows(caller_rows, "conv1d: invalid rows");
  expect(std::ssize(parts) == caller_rows.modalities, "conv1d: one part per modality");
  bool wants_grad = false;
  for (int64_t m = 0; m < caller_rows.modalities; ++m) {
    const Conv1dPart& p = parts[size_t(m)];
    expect((p.x.shape.size() == 3 && p.x.shape[0] == caller_rows.batch) ||
               (!p.x && caller_rows.modality_rows(m) == 0),
           "conv1d: x must be [B, T, width]");
    wants_grad = wants_grad || p.x.requires_grad() || p.weight.requires_grad();
  }
  const Rows rows = keep_rows(tape, caller_rows);
  Tensor y = tape.make({rows.total(), channels}, wants_grad);
  // One step backwards for all parts: the tape releases a result's gradient after its first step.
  std::vector<Conv1dPart> projected(parts.begin(), parts.end());
  std::vector<std::pair<DropoutShape, std::span<RowCopy>>> copied(projected.size());
  for (int64_t m = 0; m < rows.modalities; ++m) {
    const Conv1dPart& p = parts[size_t(m)];
    if (!p.x) continue;
    if (p.weight) {
      const Conv1dShape s = projection(rows, m, p, channels);
      tape.run([&](const auto& be) {
        conv1d_forward(be, s, rows, p.x.value, p.weight.value, y.value,
                       tape.scratch(conv1d_scratch_bytes(be, s)));
      });
      continue;
    }
    expect(p.x.shape[2] == channels, "conv1d: without a weight x must have `channels` columns");
    auto& s = copied[size_t(m)].first;
    auto& copies = copied[size_t(m)].second;
    s.x_rows = rows.batch * p.x.shape[1], s.y_rows = rows.modality_rows(m), s.width = channels;
    copies = plain_copies(tape, rows, m, p.x.shape[1]);
    tape.run([&](const auto& be) {
      dropout_forward(be, s, copies, p.x.value, rows_of(y.value, rows, m, channels));
    });
  }
  tape.record({y}, [&tape, rows, projected, copied, y, channels](const auto& be) {
    for (int64_t m = 0; m < rows.modalities; ++m) {
      const Conv1dPart& p = projected[size_t(m)];
      if (!p.x) continue;
      if (p.weight) {
        const Conv1dShape s = projection(rows, m, p, channels);
        conv1d_backward(be, s, rows, p.x.value, p.weight.value, tape.grad(y), tape.grad_sink(p.x),
                        tape.grad_sink(p.weight), tape.scratch(conv1d_scratch_bytes(be, s)));
      } else {
        const auto& [s, copies] = copied[size_t(m)];
        dropout_backward(be, s, copies, rows_of(tape.grad(y), rows, m, channels),
                         tape.grad_sink(p.x));
      }
    }
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
