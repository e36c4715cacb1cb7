#include "autograd/embedding.h"

#include "kernels/embedding.h"

namespace decalign::inline DECALIGN_REAL {

Tensor embedding(Tape& tape, std::span<const EmbeddingPart> parts) {
  expect(!parts.empty(), "embedding: no parts");
  expect(parts[0].table.shape.size() == 2, "embedding: table must be [entries, width]");
  const EmbeddingShape s{std::ssize(parts[0].ids), parts[0].table.shape[1]};
  const auto tables = tape.list<EmbeddingTable>(std::ssize(parts));
  bool wants_grad = false;
  for (size_t t = 0; t < parts.size(); ++t) {
    const EmbeddingPart& p = parts[t];
    expect(p.table.shape.size() == 2 && p.table.shape[1] == s.width,
           "embedding: table must be [entries, width]");
    std::construct_at(
        &tables[t],
        EmbeddingTable{
            tape.upload<int32_t>(p.ids), p.table.value, {}, p.table.shape[0], p.padding});
    wants_grad = wants_grad || p.table.requires_grad();
  }
  const Tensor y = tape.make({s.rows, s.width}, wants_grad);
  tape.run([&](const auto& be) { embedding_forward(be, s, tables, y.value); });
  tape.record(
      {y}, [&tape, s, y, tables, own = std::vector(parts.begin(), parts.end())](const auto& be) {
        for (size_t t = 0; t < own.size(); ++t) tables[t].dtable = tape.grad_sink(own[t].table);
        embedding_backward(be, s, tables, tape.grad(y),
                           tape.scratch(embedding_scratch_bytes(be, s, std::ssize(tables))));
      });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
