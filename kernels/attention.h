// Fused multi-head attention of rows over row ranges; the [heads, T, S] scores never reach memory.
#pragma once

#include "kernels/backend.h"
#include "kernels/dropout_mask.h"
#include "kernels/rows.h"

namespace decalign::inline DECALIGN_REAL {

/// A run of key (and value) rows.
struct KeyRange {
  int64_t row = 0, length = 0;
};

/// Query sequence s of `queries` attends to the concatenation of ranges[s * ranges_per_sequence
/// ...]. No keys: the result is 0. Head h uses columns h * width / heads ... of queries, keys and
/// values.
struct AttentionShape {
  Rows queries;
  int64_t width = 0, heads = 0;  ///< heads divides width
  int64_t key_rows = 0;          ///< rows of k and v
  int64_t key_stride =
      0;  ///< columns of the arrays that hold k and v; k and v start at their own column
  std::span<const KeyRange> ranges;  ///< [sequences, ranges_per_sequence]
  int64_t ranges_per_sequence = 1;
  int64_t query_stride = 0;          ///< columns of the array that holds q; 0: width
  bool causal = false;               ///< query t sees keys 0..t of its concatenation
  std::span<const Dropout> dropout;  ///< per modality, on the normalised weights; empty: none
};

/// out[t, head] = sum_j drop(softmax_j(q_t . k_j / sqrt(width / heads))) v_j        (Vaswani et al.
/// 2017, eq. 1)
///
///   q    [R, width], or a column block of a wider array: its rows are query_stride apart and the
///   span starts at its first used column, as for k and v
///   k, v  key_rows rows of `width` values, key_stride apart: the
///   span of k (v) starts out  [R, width]                         at its first used column and ends
///   at or after its last used value lse  [R, heads]  log of the softmax's denominator, kept for
///   the backward pass (-inf without keys)
///
/// Dropout's element of (t, head, j) is ((row of t) * heads + head) * P + j with P = the number of
/// keys of t's sequence rounded up to a multiple of 8.
void attention_forward(const Cpu&, const AttentionShape&, In q, In k, In v, Out out, Out lse);
void attention_forward(const Cuda&, const AttentionShape&, In q, In k, In v, Out out, Out lse);

/// dq, dk, dv accumulate; dk and dv have the layout of k and v. Several sequences may share key
/// rows; Cuda then takes as many launches as a row has readers at most.
void attention_backward(const Cpu&, const AttentionShape&, In q, In k, In v, In out, In lse,
                        In dout, InOut dq, InOut dk, InOut dv);
void attention_backward(const Cuda&, const AttentionShape&, In q, In k, In v, In out, In lse,
                        In dout, InOut dq, InOut dk, InOut dv);

}  // namespace decalign::inline DECALIGN_REAL
