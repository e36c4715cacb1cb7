// Single-threaded matrix products on packed panels, the core of matmul, conv1d and attention.
#pragma once

#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL {

/// Elements of a packed [k, n] matrix: panels of two vectors (the last one of one, if odd), each
/// [k, width] row-major, columns filled up with zeros.
constexpr int64_t packed_size(int64_t k, int64_t n) { return k * round_up(n, kLanes); }

/// Packs w [k, n] (row stride ldw).
void pack(const real* w, int64_t ldw, int64_t k, int64_t n, real* packed);
/// Packs the transpose of w [n, k] (row stride ldw).
void pack_transposed(const real* w, int64_t ldw, int64_t k, int64_t n, real* packed);

enum class Store { overwrite, relu, add };

/// c [rows, n] (=, = max(0, .), +=) a [rows, k] * packed [k, n] + bias [n] (may be null). A sum
/// runs over k in ascending order whatever the tile it falls in.
void multiply(int64_t rows, int64_t k, int64_t n, const real* a, int64_t lda, const real* packed,
              const real* bias, real* c, int64_t ldc, Store mode);

/// c [m, n] += a^T b with a [rows, m], b [rows, n].
void add_outer(int64_t rows, int64_t m, int64_t n, const real* a, int64_t lda, const real* b,
               int64_t ldb, real* c, int64_t ldc);

/// The same for large m and n: blocks of both operands are packed, so that their strides do not
/// matter, but for few rows that costs more than it saves.
void add_outer_wide(int64_t rows, int64_t m, int64_t n, const real* a, int64_t lda, const real* b,
                    int64_t ldb, real* c, int64_t ldc);

/// c [n] += the column sums of a [rows, n].
void add_columns(int64_t rows, int64_t n, const real* a, int64_t lda, real* c);

/// Near-equal pieces of n, none longer than `largest`: where piece i of `count` starts.
constexpr int64_t piece_count(int64_t n, int64_t largest) { return (n + largest - 1) / largest; }
constexpr int64_t piece_begin(int64_t n, int64_t count, int64_t i) { return n * i / count; }

}  // namespace decalign::inline DECALIGN_REAL
