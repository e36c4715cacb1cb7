// Lists of dense products in few launches: what matmul and feed_forward are made of.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/dropout_mask.h"
#include "kernels/types.h"

namespace decalign::inline DECALIGN_REAL::gemm {

/// y[i, j] = drop(relu(sum_l x[i, l] weight[j, l] + bias[j])), i < rows, j < n.
struct Dense {
  const real *x, *weight, *bias;  // bias: null for none
  real* y;
  int64_t rows;
  int64_t element;  // of y[0, 0], for the dropout
};
struct DenseShape {
  int64_t k, n, x_stride, y_stride;
  bool relu;
  Dropout dropout;
};
/// One launch for every 32 entries.
void dense(const Cuda&, const DenseShape&, std::span<const Dense>);

/// Part of a data gradient: sum_l dz[i, l] weight[l, j] for the rows x_row + i of dx.
struct DataGradient {
  const real *dz, *weight;  // weight [depth, columns]
  int64_t x_row, rows;
};
struct DataShape {
  int64_t depth, columns, dz_stride;
  real* dx;                    // [, columns]; null: no data gradient is wanted
  const real* gate = nullptr;  // null: dx += sum; else dx = gate > 0 ? sum * scale : 0
  real scale = 1;
};

/// dweight[i, j] += sum_r dz[r, i] x[r, j],  dbias[i] += sum_r dz[r, i];  null skips either.
struct WeightGradient {
  const real *dz, *x;
  int64_t rows, dz_stride, x_stride, m, n;  // dweight is [m, n]
  real *dweight, *dbias;
  int64_t taps = 1;  // add_parts(): dweight is [m, n / taps, taps], parts are [m, taps, n / taps]
};

/// Where the row chunks of a call's weight gradients leave their parts.
struct Chunks {
  int64_t rows = 0;      // of a chunk
  int64_t stride = 0;    // elements of a part
  int64_t elements = 0;  // of all parts

  Chunks() = default;
  /// For weight gradients [m, n] of `groups` row ranges, together `rows`.
  Chunks(const Cuda& be, int64_t total, int64_t groups, int64_t m, int64_t n) {
    const int64_t tiles = std::max<int64_t>(ceil_div<int64_t>(m, 32) * ceil_div<int64_t>(n, 64), 1);
    const int64_t wanted = std::max<int64_t>(2 * be.multiprocessors / tiles, 1);
    rows = std::clamp<int64_t>(ceil_div<int64_t>(ceil_div(total, wanted), 32) * 32, 64, 512);
    stride = ceil_div<int64_t>(m * n + m, 4) * 4;
    elements = (total / rows + groups) * stride;
  }
};

/// One launch for all data gradients and for the chunks of all weight gradients, whose parts go to
/// `parts` (of chunks.elements). Data gradients of the same rows add up. At most kTasks of each.
/// True if the parts are added already, which takes a gradient of its own for every entry; else
/// add_parts() has to follow.
constexpr int kTasks = 16;
[[nodiscard]] bool gradients(const Cuda&, const DataShape&, std::span<const DataGradient>,
                             std::span<const WeightGradient>, const Chunks&, real* parts);

/// Weight gradients whose parts are to be added, in one launch, in the order of the list and of the
/// chunks. Entries may share a gradient. At most 2 kTasks.
struct Parts {
  WeightGradient gradient;
  Chunks chunks;
  const real* parts;  // of the first one
};
void add_parts(const Cuda&, std::span<const Parts>);
/// Appends the entries for what gradients() wrote.
void append_parts(std::vector<Parts>& list, std::span<const WeightGradient>, const Chunks&,
                  const real* parts);

}  // namespace decalign::inline DECALIGN_REAL::gemm
