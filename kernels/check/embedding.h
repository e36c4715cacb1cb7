// What embedding asks of its arguments, on every backend.
#pragma once

#include "kernels/embedding.h"

namespace decalign::inline DECALIGN_REAL {

inline bool embedding_gradients_overlap_partly(InOut a, InOut b) {
  const auto x = reinterpret_cast<uintptr_t>(a.data()), y = reinterpret_cast<uintptr_t>(b.data());
  return x != y && x < y + b.size_bytes() && y < x + a.size_bytes();
}

inline void check_embedding(const EmbeddingShape& s, std::span<const EmbeddingTable> tables, In y,
                            bool backward) {
  expect(s.rows >= 0 && s.width >= 0, "embedding: negative size");
  expect(std::ssize(y) == s.rows * s.width, "embedding: y must be [rows, width]");
  for (const EmbeddingTable& t : tables) {
    expect(std::ssize(t.ids) == s.rows, "embedding: ids must be [rows]");
    const int64_t size = t.entries * s.width;
    expect(t.entries >= 0 && (backward || std::ssize(t.table) == size),
           "embedding: table must be [entries, width]");
    expect(!backward || t.dtable.empty() || std::ssize(t.dtable) == size,
           "embedding: dtable must be [entries, width]");
    for (const EmbeddingTable& other : tables)
      expect(!backward || !embedding_gradients_overlap_partly(t.dtable, other.dtable),
             "embedding: gradients overlap partly");
  }
}

inline void check_embedding_backward(const EmbeddingShape& s,
                                     std::span<const EmbeddingTable> tables, In dy, Scratch scratch,
                                     size_t scratch_bytes) {
  check_embedding(s, tables, dy, true);
  expect(scratch.size() >= scratch_bytes, "embedding: scratch too small");
}

}  // namespace decalign::inline DECALIGN_REAL
