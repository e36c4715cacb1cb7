#include "kernels/cpu/comoments.h"

#include <algorithm>

#include "kernels/carve.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/wide.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int64_t kRows = 128, kBlock = 128;  // of a tile of centred rows
constexpr int64_t kDiagonal = 28;             // rows of a diagonal block that start together

// A task takes a part of the rows and a pair of blocks of columns.
struct Parts {
  Parts(int64_t rows, int64_t d) : blocks(piece_count(d, kBlock)) {
    pairs = blocks * (blocks + 1) / 2;
    count = std::min(piece_count(rows, 4 * kRows),
                     std::max<int64_t>(64 / std::max<int64_t>(pairs, 1), 4));
  }
  int64_t blocks, pairs, count;
};

// to [rows, kBlock] = x - mean of some columns; those beyond `columns` are left as they are.
void centre(int64_t rows, int64_t columns, const real* x, int64_t ld, const double* mean,
            real* to) {
  for (int64_t i = 0; i < rows; ++i)
#pragma omp simd
    for (int64_t j = 0; j < columns; ++j)
      to[i * kBlock + j] = real(double(x[i * ld + j]) - mean[j]);
}

// sum [kBlock, kBlock] += a^T b, of one block with itself the upper triangle at least.
void add_products(int64_t rows, int64_t m, int64_t n, const real* a, const real* b, double* sum) {
  alignas(64) real products[kBlock * kBlock] = {};
  if (a != b)
    add_outer(rows, m, n, a, kBlock, b, kBlock, products, kBlock);
  else
    for (int64_t i = 0; i < m; i += kDiagonal)
      add_outer(rows, std::min(kDiagonal, m - i), n - i, a + i, kBlock, b + i, kBlock,
                products + i * kBlock + i, kBlock);
#pragma omp simd
  for (int64_t i = 0; i < kBlock * kBlock; ++i) sum[i] += double(products[i]);
}

}  // namespace

size_t comoments_scratch_bytes(const Cpu&, int64_t rows, int64_t d) {
  const Parts parts(rows, d);
  return std::max(carve_bytes<double>(parts.count * parts.pairs * kBlock * kBlock),
                  carve_bytes<real>(packed_size(d, d)));
}

void comoments(const Cpu& be, int64_t rows, int64_t d, const real* x, const double* mean, double* c,
               Scratch scratch) {
  const Parts parts(rows, d);
  double* const sums = carve<double>(scratch, parts.count * parts.pairs * kBlock * kBlock);
  const auto blocks_of = [&](int64_t pair) {
    int64_t i = 0;
    while (pair >= parts.blocks - i) pair -= parts.blocks - i++;
    return std::pair{i * kBlock, (i + pair) * kBlock};
  };
  parallel_for(be, parts.count * parts.pairs, [&](int64_t task) {
    alignas(64) real a[kRows * kBlock], b[kRows * kBlock];
    const auto [i, j] = blocks_of(task % parts.pairs);
    const int64_t part = task / parts.pairs, end = piece_begin(rows, parts.count, part + 1);
    const int64_t m = std::min(kBlock, d - i), n = std::min(kBlock, d - j);
    double* const sum = sums + task * kBlock * kBlock;
    std::fill_n(sum, kBlock * kBlock, 0.0);
    for (int64_t r = piece_begin(rows, parts.count, part); r < end; r += kRows) {
      const int64_t count = std::min(kRows, end - r);
      centre(count, m, x + r * d + i, d, mean + i, a);
      if (i != j) centre(count, n, x + r * d + j, d, mean + j, b);
      add_products(count, m, n, a, i == j ? a : b, sum);
    }
  });
  parallel_for(be, parts.pairs, [&](int64_t pair) {
    const auto [i, j] = blocks_of(pair);
    for (int64_t r = 0; r < std::min(kBlock, d - i); ++r)
      for (int64_t l = i == j ? r : 0; l < std::min(kBlock, d - j); ++l) {
        double sum = 0;
        for (int64_t part = 0; part < parts.count; ++part)
          sum += sums[((part * parts.pairs + pair) * kBlock + r) * kBlock + l];
        c[(i + r) * d + j + l] = c[(j + l) * d + i + r] = sum;
      }
  });
}

void pack_pull(int64_t d, const real* g, double scale, Scratch scratch) {
  real* const packed = carve<real>(scratch, packed_size(d, d));
  alignas(64) real both[kBlock * 2 * kLanes];
  // Blocks of depth one after another, each packed panel by panel.
  for (int64_t k = 0; k < d; k += kBlock)
    for (int64_t j = 0; j < d; j += 2 * kLanes) {
      const int64_t depth = std::min(kBlock, d - k), columns = std::min(2 * kLanes, d - j);
      for (int64_t r = 0; r < depth; ++r)
        for (int64_t l = 0; l < columns; ++l)
          both[r * 2 * kLanes + l] =
              real(scale * (double(g[(k + r) * d + j + l]) + double(g[(j + l) * d + k + r])));
      pack(both, 2 * kLanes, depth, columns, packed + k * round_up(d, kLanes) + j * depth);
    }
}

void pull_rows(int64_t rows, int64_t d, const real* x, const double* mean, Scratch scratch,
               real* dx) {
  const real* const packed = carve<real>(scratch, packed_size(d, d));
  alignas(64) real y[kRows * kBlock];
  for (int64_t i = 0; i < rows; i += kRows)
    for (int64_t k = 0; k < d; k += kBlock) {
      const int64_t count = std::min(kRows, rows - i), depth = std::min(kBlock, d - k);
      centre(count, depth, x + i * d + k, d, mean + k, y);
      multiply(count, depth, d, y, kBlock, packed + k * round_up(d, kLanes), nullptr, dx + i * d, d,
               Store::add);
    }
}

}  // namespace decalign::inline DECALIGN_REAL
