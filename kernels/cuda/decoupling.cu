#include "kernels/check/decoupling.h"
#include "kernels/cuda/reduce.h"
#include "kernels/decoupling.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 16 / sizeof(real);
constexpr double kEps = 1e-8;

struct alignas(16) Vector {
  real v[kVector];
};

// The sequences in device memory; `active` null: every modality.
struct Sequences {
  const int64_t* first;
  const uint8_t* active;
  int64_t batch;
  int width;

  __device__ bool is_active(int64_t q) const { return !active || active[q / batch] != 0; }
};

// A block per sequence: its norms and its cosine.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    stats_kernel(Sequences sequences, const real* s, const real* c, real* stats) {
  const int64_t q = blockIdx.x;
  const int64_t begin = sequences.first[q] * sequences.width;
  const int64_t n =
      sequences.is_active(q) ? sequences.first[q + 1] * sequences.width - begin : int64_t(0);
  const real *a = s + begin, *b = c + begin;
  double aa = 0, bb = 0, ab = 0;
  const auto add = [&](real s_value, real c_value) {
    const double x = double(s_value), y = double(c_value);
    aa += x * x;
    bb += y * y;
    ab += x * y;
  };
  if constexpr (kAligned) {
#pragma unroll 4
    for (int64_t i = int64_t(threadIdx.x) * kVector; i < n; i += kThreads * kVector) {
      const Vector x = *reinterpret_cast<const Vector*>(a + i);
      const Vector y = *reinterpret_cast<const Vector*>(b + i);
#pragma unroll
      for (int e = 0; e < kVector; ++e) add(x.v[e], y.v[e]);
    }
  } else {
#pragma unroll 4
    for (int64_t i = threadIdx.x; i < n; i += kThreads) add(a[i], b[i]);
  }
  aa = warp_sum(aa);
  bb = warp_sum(bb);
  ab = warp_sum(ab);
  constexpr int kWarps = kThreads / 32;
  SHARED(double, part, [3][kWarps]);
  if (threadIdx.x % 32 == 0) {
    const int warp = threadIdx.x / 32;
    part[0][warp] = aa, part[1][warp] = bb, part[2][warp] = ab;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  aa = bb = ab = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) aa += part[0][w], bb += part[1][w], ab += part[2][w];
  // The norms' own gradient is not clamped: d max(|s|, eps) = s / |s| in either case.
  const double na = sqrt(aa), nb = sqrt(bb);
  const double ma = max(na, kEps), mb = max(nb, kEps), cosine = ab / (ma * mb);
  real* const out = stats + 4 * q;
  out[0] = real(cosine);
  out[1] = real(n > 0 ? 1 / (ma * mb) : 0);
  out[2] = real(na > 0 ? cosine / (ma * na) : 0);
  out[3] = real(nb > 0 ? cosine / (mb * nb) : 0);
}

__global__ void __launch_bounds__(kThreads)
    value_kernel(Sequences sequences, int64_t count, bool squares, double weight, const real* stats,
                 real* value) {
  double sum = 0;
  for (int64_t q = threadIdx.x; q < count; q += kThreads) {
    // scattered: one of the four numbers that a sequence has; 96 sequences
    const double cosine = double(stats[4 * q]);
    if (sequences.is_active(q)) sum += squares ? cosine * cosine : cosine;
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *value = real(sum * weight);
}

// A row of blocks per sequence.
template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Sequences sequences, bool squares, double term_weight, const real* s,
                    const real* c, const real* stats, const real* dvalue, real* ds, real* dc) {
  const int64_t q = blockIdx.x;
  if (!sequences.is_active(q)) return;
  const double weight = double(*dvalue) * term_weight;
  const real* const st = stats + 4 * q;
  const real g = real(squares ? 2 * weight * double(st[0]) : weight);
  const real cross = g * st[1], self_s = g * st[2], self_c = g * st[3];
  const int64_t begin = sequences.first[q] * sequences.width;
  const int64_t n = sequences.first[q + 1] * sequences.width - begin;
  const int64_t thread = int64_t(blockIdx.y) * kThreads + threadIdx.x;
  const int64_t threads = int64_t(gridDim.y) * kThreads;
  if constexpr (kAligned) {
    for (int64_t i = begin + thread * kVector; i < begin + n; i += threads * kVector) {
      const Vector x = *reinterpret_cast<const Vector*>(s + i);
      const Vector y = *reinterpret_cast<const Vector*>(c + i);
      const auto add = [&](real* to, const Vector& theirs, real self, const Vector& own) {
        Vector d = *reinterpret_cast<const Vector*>(to + i);
#pragma unroll
        for (int e = 0; e < kVector; ++e) d.v[e] += cross * theirs.v[e] - self * own.v[e];
        *reinterpret_cast<Vector*>(to + i) = d;
      };
      if (ds) add(ds, y, self_s, x);
      if (dc) add(dc, x, self_c, y);
    }
  } else {
    for (int64_t i = begin + thread; i < begin + n; i += threads) {
      const real x = s[i], y = c[i];
      if (ds) ds[i] += cross * y - self_s * x;
      if (dc) dc[i] += cross * x - self_c * y;
    }
  }
}

bool aligned(const DecouplingShape& shape, std::initializer_list<const void*> arrays) {
  bool ok = shape.width % kVector == 0;
  for (const void* p : arrays) ok &= reinterpret_cast<uintptr_t>(p) % 16 == 0;
  return ok;
}

Sequences device_sequences(const Cuda& be, const DecouplingShape& shape) {
  return {device_list(be, shape.rows.first), device_list(be, shape.active), shape.rows.batch,
          int(shape.width)};
}

}  // namespace

void decoupling_forward(const Cuda& be, const DecouplingShape& shape, In s, In c, Out stats,
                        Out value) {
  check_decoupling_forward(shape, s, c, stats, value);
  const Sequences sequences = device_sequences(be, shape);
  const int64_t count = shape.rows.sequences();
  const auto kernel =
      aligned(shape, {s.data(), c.data()}) ? stats_kernel<true> : stats_kernel<false>;
  launch(be, kernel, unsigned(count), kThreads, 0, sequences, s.data(), c.data(), stats.data());
  launch(be, value_kernel, 1, kThreads, 0, sequences, count,
         shape.loss == DecouplingLoss::cos2_mean, decoupling_term_weight(shape), stats.data(),
         value.data());
}

void decoupling_backward(const Cuda& be, const DecouplingShape& shape, In s, In c, In stats,
                         In dvalue, InOut ds, InOut dc) {
  check_decoupling_backward(shape, s, c, stats, dvalue, ds, dc);
  const int64_t count = shape.rows.sequences(), values = shape.rows.total() * shape.width;
  if (values == 0 || (ds.empty() && dc.empty())) return;
  // Blocks for a sequence of mean length: a captured launch serves other lengths as well.
  const unsigned blocks =
      unsigned(std::clamp<int64_t>(values / count / (kThreads * 2 * kVector), 1, 16));
  const auto kernel = aligned(shape, {s.data(), c.data(), pointer(ds), pointer(dc)})
                          ? backward_kernel<true>
                          : backward_kernel<false>;
  launch(be, kernel, dim3(unsigned(count), blocks), kThreads, 0, device_sequences(be, shape),
         shape.loss == DecouplingLoss::cos2_mean, decoupling_term_weight(shape), s.data(), c.data(),
         stats.data(), dvalue.data(), pointer(ds), pointer(dc));
}

}  // namespace decalign::inline DECALIGN_REAL
