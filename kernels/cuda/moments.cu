#include "kernels/check/moments.h"
#include "kernels/cuda/pair.h"
#include "kernels/cuda/reduce.h"
#include "kernels/moments.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr double kFloor = 1e-6;
constexpr int kThreads = 256;
constexpr int kSide = 16;     // columns (and rows) of a block's tile, a thread per element
constexpr int kStage = 32;    // rows, or columns, in shared memory at a time
constexpr int kSlots = 8;     // threads that share the sum over the batch of one of 32 columns
constexpr int kValue = 1024;  // threads of the sum over all statistics

struct Sample {
  int64_t modalities, batch, width;
  const real *z, *rest;

  __device__ double at(int64_t m, int64_t n, int64_t j) const {
    return pair_at(z, rest, (m * batch + n) * width + j);
  }
};

// Sums over the batch for 32 columns, a thread per column and slot; `part` has a row per slot.
// f(row) is the summand of this thread's column. In threads 0 .. 31: the column's sum. A barrier
// before and after its use of `part`.
template <class F>
__device__ double column_sum(int64_t batch, double (&part)[kSlots][32], F&& f) {
  double sum = 0;
  for (int64_t n = threadIdx.x / 32; n < batch; n += kSlots) sum += f(n);
  __syncthreads();
  part[threadIdx.x / 32][threadIdx.x % 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = 0;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) sum += part[s][threadIdx.x];
  }
  return sum;
}

// A block per tile of the covariance of a modality (blockIdx.z); those on the diagonal give mean
// and skewness too. Lanes 0 .. 15 have the tile's rows, 16 .. 31 its columns.
__global__ void __launch_bounds__(kThreads)
    statistics_kernel(Sample x, real* mean, real* covariance, real* skewness) {
  SHARED(double, part, [kSlots][32]);
  SHARED(double, mu, [32]);
  SHARED(double, y, [kStage][32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t m = blockIdx.z, p = x.width, n = x.batch;
  const int64_t column = int64_t(lane < kSide ? blockIdx.y : blockIdx.x) * kSide + lane % kSide;
  const bool there = column < p;
  const double total =
      column_sum(n, part, [&](int64_t i) { return there ? x.at(m, i, column) : 0.0; });
  if (threadIdx.x < 32) mu[lane] = n > 0 ? total / double(n) : 0;
  __syncthreads();
  const double centre = mu[lane];
  if (blockIdx.x == blockIdx.y) {
    const auto centred = [&](int64_t i) { return there ? x.at(m, i, column) - centre : 0.0; };
    const double square = column_sum(n, part, [&](int64_t i) {
      const double e = centred(i);
      return e * e;
    });
    const double cube = column_sum(n, part, [&](int64_t i) {
      const double e = centred(i);
      return e * e * e;
    });
    if (threadIdx.x < kSide && there) {
      const double v = n > 0 ? max(square / double(n), kFloor) : 1;
      mean[m * p + column] = real(centre);
      skewness[m * p + column] = real(n > 0 ? cube / double(n) / (v * sqrt(v)) : 0);
    }
  }
  const int row = threadIdx.x / kSide, other = threadIdx.x % kSide;
  double sum = 0;
  for (int64_t first = 0; first < n; first += kStage) {
    const int rows = int(min(int64_t(kStage), n - first));
    __syncthreads();
    for (int r = warp; r < rows; r += kSlots)
      y[r][lane] = there ? x.at(m, first + r, column) - centre : 0;
    __syncthreads();
#pragma unroll 8
    for (int r = 0; r < rows; ++r) sum += y[r][row] * y[r][kSide + other];
  }
  const int64_t j = int64_t(blockIdx.y) * kSide + row, l = int64_t(blockIdx.x) * kSide + other;
  if (j < p && l < p) covariance[(m * p + j) * p + l] = real(sum / double(max(n - 1, int64_t(1))));
}

// This thread's share of the squared distances of all pairs of modalities.
__device__ double pair_distances(const real* all, int64_t modalities, int64_t n) {
  double sum = 0;
  for (int64_t e = threadIdx.x; e < n; e += kValue)
    for (int64_t i = 0; i < modalities; ++i)
      for (int64_t j = i + 1; j < modalities; ++j) {
        const double d = double(all[i * n + e]) - double(all[j * n + e]);
        sum += d * d;
      }
  return sum;
}

__global__ void __launch_bounds__(kValue, 1)
    value_kernel(int64_t modalities, int64_t width, double vector_weight, double matrix_weight,
                 const real* mean, const real* covariance, const real* skewness, real* value) {
  const double sum = vector_weight * (pair_distances(mean, modalities, width) +
                                      pair_distances(skewness, modalities, width)) +
                     matrix_weight * pair_distances(covariance, modalities, width * width);
  const double total = block_sum<kValue>(sum);
  if (threadIdx.x == 0) *value = real(total);
}

// What the gradient of kSide columns needs. The statistics are taken again in double: what the
// skewness pulls a row up by is large where a column hardly varies, and cancels over the rows.
struct Columns {
  double mu[kSide], a[kSide], b[kSide], shift[kSide];
};

// Lanes 16 .. 31 repeat columns 0 .. 15, so that column_sum serves here too.
__device__ void column_factors(const Sample& x, int64_t m, double g, double vector_weight,
                               const real* skewness, double (&part)[kSlots][32], Columns& out) {
  const int64_t p = x.width, n = x.batch;
  const int local = threadIdx.x % kSide;
  const int64_t column = int64_t(blockIdx.x) * kSide + local;
  const bool there = column < p;
  double away = 0, pull = 0;
  const auto mean_of = [&](int64_t o) {
    return column_sum(n, part, [&](int64_t i) { return there ? x.at(o, i, column) : 0.0; }) /
           double(n);
  };
  const double mu = mean_of(m);
  if (threadIdx.x < kSide) out.mu[local] = mu;
  __syncthreads();
  const double centre = out.mu[local];
  for (int64_t o = 0; o < x.modalities; ++o) {
    if (o == m) continue;
    away += mu - mean_of(o);
    if (there) pull += double(skewness[m * p + column]) - double(skewness[o * p + column]);
  }
  const double square = column_sum(n, part, [&](int64_t i) {
    const double e = there ? x.at(m, i, column) - centre : 0.0;
    return e * e;
  });
  if (threadIdx.x >= kSide || !there) return;
  // Mean: shift. Skewness: a (y^2 - variance) - b y.
  const double variance = square / double(n), v = max(variance, kFloor);
  const double c = 3 * (2 * g * vector_weight * pull) / double(n), a = c / (v * sqrt(v));
  out.a[local] = a;
  out.b[local] = variance < kFloor ? 0 : c * double(skewness[m * p + column]) / v;
  out.shift[local] = 2 * g * vector_weight / double(n) * away - a * variance;
}

// A block per kSide columns (x) and kSide rows (y) of a modality (z), a thread per element.
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(Sample x, double vector_weight, double matrix_weight, const real* covariance,
                    const real* skewness, const real* dvalue, real* dz, real* drest) {
  SHARED(double, part, [kSlots][32]);
  SHARED(double, mu, [32]);
  SHARED(double, y, [kSide][kStage]);
  SHARED(double, pull, [kStage][kSide]);
  SHARED(Columns, columns, );
  const int64_t m = blockIdx.z, p = x.width, n = x.batch;
  const double g = double(*dvalue);
  column_factors(x, m, g, vector_weight, skewness, part, columns);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int r = threadIdx.x / kSide, c = threadIdx.x % kSide;
  const int64_t row = int64_t(blockIdx.y) * kSide + r, column = int64_t(blockIdx.x) * kSide + c;
  // d covariance is symmetric: both of its sides at once.
  const double scale = 2 * (2 * g * matrix_weight / double(max(n - 1, int64_t(1))));
  double sum = 0;
  for (int64_t first = 0; first < p; first += kStage) {
    const int64_t l = first + lane;
    const double total =
        column_sum(n, part, [&](int64_t i) { return l < p ? x.at(m, i, l) : 0.0; });
    if (threadIdx.x < 32) mu[lane] = total / double(n);
    for (int k = r; k < kStage; k += kThreads / kSide) {
      double d = 0;
      if (first + k < p && column < p) {
        const int64_t at = (first + k) * p + column;
        const double mine = double(covariance[m * p * p + at]);
        for (int64_t o = 0; o < x.modalities; ++o) d += mine - double(covariance[o * p * p + at]);
      }
      pull[k][c] = scale * d;
    }
    __syncthreads();
#pragma unroll
    for (int i = warp; i < kSide; i += kSlots) {
      const int64_t at = int64_t(blockIdx.y) * kSide + i;
      y[i][lane] = at < n && l < p ? x.at(m, at, l) - mu[lane] : 0;
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kStage; ++k) sum += y[r][k] * pull[k][c];
    // The next column_sum's barriers keep these reads from the next writes.
  }
  if (row >= n || column >= p) return;
  const double e = x.at(m, row, column) - columns.mu[c];
  sum += columns.shift[c] + e * (columns.a[c] * e - columns.b[c]);
  const int64_t at = (m * n + row) * p + column;
  set_pair(pair_at(dz, drest, at) + sum, dz, drest, at);
}

}  // namespace

size_t moments_scratch_bytes(const Cuda&, const MomentsShape&) { return 0; }

void moments_forward(const Cuda& be, const MomentsShape& s, In z, In rest, Out mean, Out covariance,
                     Out skewness, Out value, Scratch scratch) {
  check_moments_forward(s, z, rest, mean, covariance, skewness, value, scratch,
                        moments_scratch_bytes(be, s));
  const unsigned tiles = unsigned(ceil_div<int64_t>(s.width, kSide));
  const Sample x{s.modalities, s.batch, s.width, z.data(), pointer(rest)};
  note_flops(kDouble * double(std::ssize(z)) * (2 * double(s.width) + 8));
  launch(be, statistics_kernel, dim3(tiles, tiles, unsigned(s.modalities)), kThreads, 0, x,
         mean.data(), covariance.data(), skewness.data());
  const auto [vector_weight, matrix_weight] = moments_weights(s);
  launch(be, value_kernel, 1, kValue, 0, s.modalities, s.width, vector_weight, matrix_weight,
         mean.data(), covariance.data(), skewness.data(), value.data());
}

void moments_backward(const Cuda& be, const MomentsShape& s, In z, In rest, In mean, In covariance,
                      In skewness, In dvalue, InOut dz, InOut drest, Scratch scratch) {
  check_moments_backward(s, z, rest, mean, covariance, skewness, dvalue, dz, drest, scratch,
                         moments_scratch_bytes(be, s));
  if (dz.empty()) return;
  const auto [vector_weight, matrix_weight] = moments_weights(s);
  const dim3 grid(unsigned(ceil_div<int64_t>(s.width, kSide)),
                  unsigned(ceil_div<int64_t>(s.batch, kSide)), unsigned(s.modalities));
  const Sample x{s.modalities, s.batch, s.width, z.data(), pointer(rest)};
  note_flops(kDouble * double(std::ssize(z)) * (2 * double(s.width) + 12));
  launch(be, backward_kernel, grid, kThreads, 0, x, vector_weight, matrix_weight, covariance.data(),
         skewness.data(), dvalue.data(), pointer(dz), pointer(drest));
}

}  // namespace decalign::inline DECALIGN_REAL
