#include "autograd/attention.h"

#include "autograd/keep_rows.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

// From column `column` of row 0 to the array's end.
InOut columns_from(InOut array, int64_t column) {
  return array.empty() ? array : array.subspan(size_t(column));
}

}  // namespace

Tensor attention(Tape& tape, const AttentionShape& shape, const Tensor& q, const Tensor& k,
                 int64_t k_column, const Tensor& v, int64_t v_column, int64_t q_column) {
  expect(q.shape.size() == 2 && k.shape.size() == 2 && v.shape == k.shape,
         "attention: q must be [R, columns], k and v [C, columns]");
  const auto fits = [&](int64_t column, const Tensor& t) {
    return column >= 0 && column + shape.width <= t.shape[1];
  };
  expect(fits(q_column, q) && fits(k_column, k) && fits(v_column, v),
         "attention: columns do not fit");
  AttentionShape s = shape;
  s.queries = keep_rows(tape, shape.queries);
  s.ranges = tape.keep<KeyRange>(shape.ranges);
  s.dropout = tape.keep<Dropout>(shape.dropout);
  s.key_rows = k.shape[0], s.key_stride = k.shape[1], s.query_stride = q.shape[1];
  expect(q.shape[0] == s.queries.total(), "attention: q must be [R, columns]");
  Tensor y = tape.make({q.shape[0], s.width}, any_grad(q, k, v));
  const auto lse = tape.take<real>(q.shape[0] * s.heads);
  tape.run([&](const auto& be) {
    attention_forward(be, s, columns_from(q.value, q_column), columns_from(k.value, k_column),
                      columns_from(v.value, v_column), y.value, lse);
  });
  tape.record({y}, [&tape, s, q, k, v, y, lse, q_column, k_column, v_column](const auto& be) {
    attention_backward(be, s, columns_from(q.value, q_column), columns_from(k.value, k_column),
                       columns_from(v.value, v_column), y.value, lse, tape.grad(y),
                       columns_from(tape.grad_sink(q), q_column),
                       columns_from(tape.grad_sink(k), k_column),
                       columns_from(tape.grad_sink(v), v_column));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
