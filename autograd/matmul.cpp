#include "autograd/matmul.h"

#include "kernels/matmul.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

// Group g of a call; the gradients only where `tape` is given.
MatmulGroup group(const MatmulPart& p, int64_t n, int64_t k, Tape* tape) {
  const size_t first = size_t(p.weight_row), count = size_t(n), width = size_t(k);
  MatmulGroup g;
  g.x_row = p.x_row, g.y_row = p.y_row, g.rows = p.rows, g.y_col = p.y_col;
  g.weight = p.weight.value.subspan(first * width, count * width);
  if (p.bias) g.bias = p.bias.value.subspan(first, count);
  if (!tape) return g;
  if (p.weight.requires_grad())
    g.dweight = tape->grad_sink(p.weight).subspan(first * width, count * width);
  if (p.bias && p.bias.requires_grad()) g.dbias = tape->grad_sink(p.bias).subspan(first, count);
  return g;
}

}  // namespace

Tensor matmul(Tape& tape, const Tensor& x, std::span<const MatmulPart> parts, int64_t y_rows,
              int64_t y_cols, MatmulEpilogue epilogue) {
  expect(x.shape.size() == 2, "matmul: x must be [rows, k]");
  MatmulShape s;
  s.x_rows = x.shape[0], s.k = x.shape[1], s.y_rows = y_rows, s.y_cols = y_cols;
  s.relu = epilogue.relu, s.dropout = epilogue.dropout;
  bool wants_grad = x.requires_grad();
  for (const MatmulPart& p : parts) {
    expect(p.weight.shape.size() == 2 && p.weight.shape[1] == s.k, "matmul: weight must be [n, k]");
    const int64_t n = p.n ? p.n : p.weight.shape[0] - p.weight_row;
    expect(&p == parts.data() || n == s.n, "matmul: parts differ in n");
    s.n = n;
    expect(p.weight_row >= 0 && n >= 0 && p.weight_row + n <= p.weight.shape[0],
           "matmul: rows of weight do not fit");
    expect(!p.bias || p.weight_row + n <= p.bias.size(), "matmul: bias is too short");
    wants_grad = wants_grad || p.weight.requires_grad() || p.bias.requires_grad();
  }
  const auto groups = tape.list<MatmulGroup>(std::ssize(parts));
  for (size_t g = 0; g < groups.size(); ++g)
    std::construct_at(&groups[g], group(parts[g], s.n, s.k, nullptr));
  Tensor y = tape.make({y_rows, y_cols}, wants_grad);
  tape.run([&](const auto& be) {
    matmul_forward(be, s, groups, x.value, y.value,
                   tape.scratch(matmul_scratch_bytes(be, s, groups)));
  });
  tape.record({y}, [&tape, s, x, y, groups,
                    parts = std::vector(parts.begin(), parts.end())](const auto& be) {
    for (size_t g = 0; g < groups.size(); ++g) groups[g] = group(parts[g], s.n, s.k, &tape);
    matmul_backward(be, s, groups, x.value, y.value, tape.grad(y), tape.grad_sink(x),
                    tape.scratch(matmul_scratch_bytes(be, s, groups)));
  });
  return y;
}

}  // namespace decalign::inline DECALIGN_REAL
