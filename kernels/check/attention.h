// What attention asks of its arguments, on every backend.
#pragma once

#include "kernels/attention.h"

namespace decalign::inline DECALIGN_REAL {

inline void check_attention(const AttentionShape& s, In q, In k, In v) {
  expect_rows(s.queries, "attention: invalid query rows");
  expect(s.width > 0 && s.heads > 0 && s.width % s.heads == 0,
         "attention: heads must divide the width");
  expect(s.key_rows >= 0 && s.key_stride >= s.width && s.ranges_per_sequence >= 0 &&
             (s.query_stride == 0 || s.query_stride >= s.width),
         "attention: a stride is smaller than the width");
  expect(std::ssize(s.ranges) == s.queries.sequences() * s.ranges_per_sequence,
         "attention: ranges must be [sequences, ranges_per_sequence]");
  for (const KeyRange& r : s.ranges)
    expect(r.length >= 0 && r.row >= 0 && r.row + r.length <= s.key_rows,
           "attention: a range of keys does not fit");
  const auto fits = [&](int64_t rows, int64_t stride, size_t have) {
    return rows == 0 || int64_t(have) >= (rows - 1) * stride + s.width;
  };
  expect(fits(s.queries.total(), s.query_stride ? s.query_stride : s.width, q.size()),
         "attention: q is too small");
  expect(fits(s.key_rows, s.key_stride, k.size()) && fits(s.key_rows, s.key_stride, v.size()),
         "attention: k or v is too small");
  expect(s.dropout.empty() || std::ssize(s.dropout) == s.queries.modalities,
         "attention: dropout must be [modalities]");
  for (const Dropout& d : s.dropout)
    expect(d.threshold() < 65536 && (!d.on() || d.state),
           "attention: a dropout rate is 1 or has no random state");
}

inline void check_attention_forward(const AttentionShape& s, In q, In k, In v, Out out, Out lse) {
  check_attention(s, q, k, v);
  expect(std::ssize(out) == s.queries.total() * s.width, "attention: out must be [R, width]");
  expect(std::ssize(lse) == s.queries.total() * s.heads, "attention: lse must be [R, heads]");
}

inline void check_attention_backward(const AttentionShape& s, In q, In k, In v, In out, In lse,
                                     In dout, InOut dq, InOut dk, InOut dv) {
  check_attention(s, q, k, v);
  expect(std::ssize(out) == s.queries.total() * s.width && dout.size() == out.size(),
         "attention: out and dout must be [R, width]");
  expect(std::ssize(lse) == s.queries.total() * s.heads, "attention: lse must be [R, heads]");
  expect(dq.empty() || dq.size() == q.size(), "attention: dq must have the layout of q");
  expect(dk.empty() || dk.size() == k.size(), "attention: dk must have the layout of k");
  expect(dv.empty() || dv.size() == v.size(), "attention: dv must have the layout of v");
}

}  // namespace decalign::inline DECALIGN_REAL
