// Embedding: a sum of table rows per row of the result.
#pragma once

#include "kernels/backend.h"

namespace decalign::inline DECALIGN_REAL {

/// One table and the row that each row of the result takes from it.
struct EmbeddingTable {
  std::span<const int32_t> ids;  ///< [rows], 0 .. entries - 1, backend memory
  In table;                      ///< [entries, width], forward only
  InOut dtable;                  ///< [entries, width], backward only; empty skips it
  int64_t entries = 0;
  int32_t padding = -1;  ///< rows with this id add nothing to dtable; -1: none
};

struct EmbeddingShape {
  int64_t rows = 0, width = 0;
};

/// y[r] = sum over the tables t, in their order, of table_t[ids_t[r]].   y [rows, width]
///
/// No tables: zeros. Throws std::invalid_argument for a span that does not fit. An id out of range:
/// Cpu throws std::invalid_argument, Cuda gives NaN.
void embedding_forward(const Cpu&, const EmbeddingShape&, std::span<const EmbeddingTable>, Out y);
void embedding_forward(const Cuda&, const EmbeddingShape&, std::span<const EmbeddingTable>, Out y);

/// dtable_t[ids_t[r]] += dy[r] but for ids of `padding`; table rows that no id names are neither
/// read nor written. Cpu adds r ascending; Cuda adds the rows of an id in a fixed order, and where
/// they are many, their sum. Tables may share a gradient, but two gradients must not overlap
/// partly. An id out of range: Cpu throws std::invalid_argument, Cuda skips it.
void embedding_backward(const Cpu&, const EmbeddingShape&, std::span<const EmbeddingTable>, In dy,
                        Scratch);
void embedding_backward(const Cuda&, const EmbeddingShape&, std::span<const EmbeddingTable>, In dy,
                        Scratch);

/// Work space of the backward pass of so many tables, in bytes.
size_t embedding_scratch_bytes(const Cpu&, const EmbeddingShape&, int64_t tables);
size_t embedding_scratch_bytes(const Cuda&, const EmbeddingShape&, int64_t tables);

}  // namespace decalign::inline DECALIGN_REAL
