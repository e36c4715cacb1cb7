// Attention with narrow heads (depth 4, 8 or 16), where lanes are queries: neither keys nor values
// are packed, every number of theirs is broadcast from where it lies.
#pragma once

#include "kernels/cpu/attention_tile.h"

namespace decalign::inline DECALIGN_REAL {

/// Whether this path is the faster one for a head: narrow, enough queries to fill the lanes, no
/// causal mask.
inline bool narrow_attention(const AttentionShape& s, const AttentionHead& h) {
  return !s.causal && 2 * h.queries >= kLanes && (h.depth == 4 || h.depth == 8 || h.depth == 16);
}

void narrow_attention_forward(const AttentionShape&, const AttentionHead&, In q, In k, In v,
                              Out out, Out lse);

/// d [queries]: sum over the head's columns of dout * out. dq, dk or dv may be empty.
void narrow_attention_backward(const AttentionShape&, const AttentionHead&, In q, In k, In v,
                               In lse, In dout, const real* d, int64_t first, int64_t count,
                               InOut dq, InOut dk, InOut dv);

}  // namespace decalign::inline DECALIGN_REAL
