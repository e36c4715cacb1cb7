#include <algorithm>

#include "kernels/adam.h"
#include "kernels/carve.h"
#include "kernels/check/adam.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/vector.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 4 * kThreads;                // elements of a block at a time
constexpr int64_t kMaxParts = 512, kPart = 2 * kChunk;  // of the norm; elements of a small one

// The norm is summed in parts, whatever the GPU: the same bits on all of them.
int64_t part_size(int64_t n) {
  return std::max(kPart, ceil_div(ceil_div(n, kMaxParts), kChunk) * kChunk);
}
int64_t part_count(int64_t n) { return ceil_div(n, part_size(n)); }

// What a step needs of a group's options and state.
struct Coefficients {
  double clip;
  real scale, step_size, inverse_root, decay, eps, beta2, take1, take2;
};

// By squaring: pow() is a call, with a stack.
__device__ double power(double base, int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent /= 2, base *= base)
    if (exponent % 2 != 0) result *= base;
  return result;
}

__device__ void prepare(const AdamOptions& o, double learning_rate, int64_t step, Coefficients& c) {
  c.clip = o.clip;
  c.scale = 1;  // of the gradient: see clip_scale
  c.step_size = real(learning_rate / (1 - power(o.beta1, step)));
  c.inverse_root = real(1 / sqrt(1 - power(o.beta2, step)));
  c.decay = real(o.weight_decay);
  c.eps = real(o.eps);
  c.beta2 = real(o.beta2);
  c.take1 = real(1 - o.beta1);
  c.take2 = real(1 - o.beta2);
}

__device__ real clip_scale(double clip, double squared_norm) {
  const double factor = clip / (sqrt(squared_norm) + 1e-6);
  return clip > 0 && !(factor >= 1) ? real(factor) : real(1);  // a NaN norm reaches the parameters
}

struct Arrays {
  const real* gradient;
  real *parameter, *m, *v;
  bool by_fours;
};

__device__ void update(const Coefficients& c, real gradient, real& p, real& m, real& v) {
  const real g = c.scale * gradient + c.decay * p;
  m += c.take1 * (g - m);
  v = c.beta2 * v + c.take2 * g * g;
  p -= c.step_size * (m / (sqrt(v) * c.inverse_root + c.eps));
}

// The elements at .. at + 4 that lie in begin .. end.
__device__ void update_four(const Coefficients& c, const Arrays& a, int64_t at, int64_t begin,
                            int64_t end) {
  if (a.by_fours && begin <= at && at + 4 <= end) {
    const Four g = *reinterpret_cast<const Four*>(a.gradient + at);
    Four p = *reinterpret_cast<const Four*>(a.parameter + at);
    Four m = *reinterpret_cast<const Four*>(a.m + at);
    Four v = *reinterpret_cast<const Four*>(a.v + at);
#pragma unroll
    for (int i = 0; i < 4; ++i) update(c, g.v[i], p.v[i], m.v[i], v.v[i]);
    *reinterpret_cast<Four*>(a.parameter + at) = p;
    *reinterpret_cast<Four*>(a.m + at) = m;
    *reinterpret_cast<Four*>(a.v + at) = v;
  } else {
#pragma unroll 1
    for (int64_t i = max(at, begin); i < min(at + 4, end); ++i)
      update(c, a.gradient[i], a.parameter[i], a.m[i], a.v[i]);
  }
}

// A block per part of the norm, and one more that advances the groups' states and works out their
// coefficients, so that the blocks of clipped_kernel need not.
__global__ void __launch_bounds__(kThreads)
    norm_kernel(int64_t n, int64_t part, bool fours, const real* gradient, double* sums,
                const AdamGroup* groups, int64_t group_count, Coefficients* out) {
  const int64_t begin = blockIdx.x * part, end = min(begin + part, n);
  if (begin >= n) {
    for (int64_t g = threadIdx.x; g < group_count; g += kThreads) {
      const AdamGroup& group = groups[g];
      const int64_t step = group.state->step + 1;
      group.state->step = step;
      prepare(group.options, group.state->learning_rate, step, out[g]);
    }
    return;
  }
  double sum = 0;
#pragma unroll 2
  for (int64_t at = begin + 4 * int64_t(threadIdx.x); at < end; at += kChunk) {
    Four g{};
    if (fours && at + 4 <= end) {
      g = *reinterpret_cast<const Four*>(gradient + at);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (at + i < end) g.v[i] = gradient[at + i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += double(g.v[i]) * double(g.v[i]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The sum of the parts, in every thread of a block.
__device__ double sum_of(const double* sums, int count) {
  double sum = 0;
#pragma unroll
  for (int i = 0; i < kMaxParts / kThreads; ++i) {
    const int at = int(threadIdx.x) + i * kThreads;
    if (at < count) sum += sums[at];
  }
  return block_sum<kThreads>(sum);
}

__global__ void __launch_bounds__(kThreads)
    total_kernel(const double* sums, int count, bool add, double* squared_norm) {
  const double sum = sum_of(sums, count);
  if (threadIdx.x == 0) squared_norm[0] = add ? squared_norm[0] + sum : sum;
}

__global__ void __launch_bounds__(1) advance_kernel(AdamState* state) { state->step += 1; }

__global__ void __launch_bounds__(kThreads)
    adam_kernel(const __grid_constant__ AdamOptions o, const AdamState* state, int64_t n,
                Arrays arrays) {
  SHARED(Coefficients, c, [1]);
  if (threadIdx.x == 0) {
    prepare(o, state->learning_rate, state->step, c[0]);
    c[0].scale = clip_scale(o.clip, state->squared_norm);
  }
  __syncthreads();
  const Coefficients mine = c[0];
  for (int64_t chunk = blockIdx.x; chunk * kChunk < n; chunk += gridDim.x)
    update_four(mine, arrays, chunk * kChunk + 4 * threadIdx.x, 0, n);
}

// The first of the ascending ranges that ends behind `at`.
__device__ int64_t first_range(const AdamRange* ranges, int64_t count, int64_t at) {
  int64_t low = 0;
  while (low < count) {
    const int64_t middle = (low + count) / 2;
    if (ranges[middle].begin + ranges[middle].size > at)
      count = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Four elements per thread: those of them that lie in a range. Block 0 also tells the states the
// norm.
__global__ void __launch_bounds__(kThreads)
    clipped_kernel(int64_t n, const double* sums, int sum_count, const AdamGroup* groups,
                   int64_t group_count, const Coefficients* coefficients, const AdamRange* ranges,
                   int64_t range_count, Arrays arrays) {
  const double squared_norm = sum_of(sums, sum_count);
  if (blockIdx.x == 0)
    for (int64_t g = threadIdx.x; g < group_count; g += kThreads)
      groups[g].state->squared_norm = squared_norm;
  for (int64_t chunk = blockIdx.x; chunk * kChunk < n; chunk += gridDim.x) {
    const int64_t at = chunk * kChunk + 4 * threadIdx.x;
    for (int64_t r = first_range(ranges, range_count, at); r < range_count; ++r) {
      // scattered: all lanes read the same entry or two, of 24 bytes, from the first-level cache
      const AdamRange range = ranges[r];
      if (range.begin >= at + 4) break;
      Coefficients c = coefficients[range.group];
      c.scale = clip_scale(c.clip, squared_norm);
      update_four(c, arrays, at, range.begin, range.begin + range.size);
    }
  }
}

Arrays arrays_of(In gradient, InOut parameter, InOut m, InOut v) {
  return {gradient.data(), parameter.data(), m.data(), v.data(),
          by_fours(gradient.data(), parameter.data(), m.data(), v.data())};
}

// Blocks that stay: four to a multiprocessor.
unsigned blocks(const Cuda& be, int64_t n) {
  return unsigned(std::min<int64_t>(ceil_div(n, kChunk), 4 * be.multiprocessors));
}

}  // namespace

size_t global_norm_scratch_bytes(const Cuda&, int64_t n) {
  return carve_bytes<double>(part_count(n));
}

void global_norm(const Cuda& be, In gradient, bool add, std::span<double> squared_norm,
                 Scratch scratch) {
  const int64_t n = std::ssize(gradient), parts = part_count(n);
  check_global_norm(squared_norm, scratch, global_norm_scratch_bytes(be, n));
  double* sums = carve<double>(scratch, parts);
  launch(be, norm_kernel, unsigned(parts), kThreads, 0, n, part_size(n), by_fours(gradient.data()),
         gradient.data(), sums, nullptr, 0, nullptr);
  launch(be, total_kernel, 1, kThreads, 0, sums, int(parts), add, squared_norm.data());
}

void adam_advance(const Cuda& be, AdamState* state) {
  expect(state != nullptr, "adam: no state");
  launch(be, advance_kernel, 1, 1, 0, state);
}

void adam(const Cuda& be, const AdamOptions& o, const AdamState* state, In gradient,
          InOut parameter, InOut m, InOut v) {
  check_adam(o, state, gradient, parameter, m, v);
  const int64_t n = std::ssize(gradient);
  launch(be, adam_kernel, blocks(be, n), kThreads, 0, o, state, n,
         arrays_of(gradient, parameter, m, v));
}

size_t clipped_adam_scratch_bytes(const Cuda&, int64_t n, int64_t groups) {
  return carve_bytes<double>(part_count(n)) + carve_bytes<Coefficients>(groups);
}

void clipped_adam(const Cuda& be, std::span<const AdamGroup> groups,
                  std::span<const AdamRange> ranges, In gradient, InOut parameter, InOut m, InOut v,
                  Scratch scratch) {
  const int64_t n = std::ssize(gradient), parts = part_count(n);
  check_clipped_adam(groups, ranges, gradient, parameter, m, v, scratch,
                     clipped_adam_scratch_bytes(be, n, std::ssize(groups)));
  double* sums = carve<double>(scratch, parts);
  Coefficients* coefficients = carve<Coefficients>(scratch, std::ssize(groups));
  const AdamGroup* device_groups = device_list(be, groups);
  launch(be, norm_kernel, unsigned(parts + 1), kThreads, 0, n, part_size(n),
         by_fours(gradient.data()), gradient.data(), sums, device_groups, std::ssize(groups),
         coefficients);
  launch(be, clipped_kernel, std::max(blocks(be, n), 1u), kThreads, 0, n, sums, int(parts),
         device_groups, std::ssize(groups), coefficients, device_list(be, ranges),
         std::ssize(ranges), arrays_of(gradient, parameter, m, v));
}

}  // namespace decalign::inline DECALIGN_REAL
