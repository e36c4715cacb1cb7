#include "kernels/check/sqrtm.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/symmetric_eigen.h"
#include "kernels/sqrtm.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace small;

constexpr int kMostWidth = 256;
constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Blocks forward_blocks(const SqrtmShape& s) {
  const int d = int(s.width);
  return blocks(matrix_size(players(d), players(d)) + matrix_size(d, d));
}

Blocks backward_blocks(const SqrtmShape& s) {
  return blocks(4 * matrix_size(int(s.width), int(s.width)));
}

// Element (i, j) of (x + x^T) / 2.
__device__ double symmetric(const real* x, int d, int i, int j) {
  // scattered: rows and columns of a matrix of at most 256 KiB, once
  return 0.5 * double(x[i * d + j]) + 0.5 * double(x[j * d + i]);
}

// What is within rounding of 0, in every thread.
__device__ double rounding(int d, const double* values) {
  double largest = 0;
  for (int i = 0; i < d; ++i) largest = max(largest, abs(values[i]));
  return sqrtm::kRounding * largest;
}

// a, padded with zeros, = S over its largest |element|, which is returned (1 instead of 0); NaN
// where S has one or an infinity. Barriers before and after.
__device__ double read_scaled(int d, const real* from, double ridge, double* a) {
  SHARED(double, part, [kThreads / 32]);
  const int m = players(d), ld = stride(m);
  double largest = 0;
  bool finite = true;
  __syncthreads();
  for_elements(m, m, [&](int i, int j) {
    const bool inside = i < d && j < d;
    const double x = inside ? symmetric(from, d, i, j) + (i == j ? ridge : 0) : 0;
    a[i * ld + j] = x;
    largest = max(largest, abs(x));
    finite = finite && abs(x) <= kLargest;
  });
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = largest;
  if (!__syncthreads_and(finite)) return kNan;
  for (int w = 0; w < kThreads / 32; ++w) largest = max(largest, part[w]);
  const double unit = largest > 0 ? largest : 1;
  for_elements(m, m, [&](int i, int j) { a[i * ld + j] /= unit; });
  __syncthreads();
  return unit;
}

// out = vectors^T diag(f(i)) vectors, symmetric to the bit; f >= 0. Barriers before and after.
template <class F>
__device__ void compose(int d, const double* vectors, double* scaled, real* out, F f) {
  const int ld = stride(d);
  __syncthreads();
  for_elements(d, d, [&](int i, int j) { scaled[i * ld + j] = sqrt(f(i)) * vectors[i * ld + j]; });
  __syncthreads();
  product(d, d, d, transposed(scaled, d), as_is(scaled, d),
          [&](int i, int j, double value) { out[i * d + j] = real(value); });
  __syncthreads();
}

// A block per matrix.
__global__ void __launch_bounds__(kThreads)
    forward_kernel(int64_t batch, int d, double ridge, const real* matrices, real* root,
                   real* inverse, double* kept, double* scratch, int64_t doubles) {
  DYNAMIC_SHARED(double, shared);
  SHARED(double, values, [kMostWidth]);
  double* const a = scratch ? scratch + blockIdx.x * doubles : shared;
  double* const vectors = a + matrix_size(players(d), players(d));
  for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
    const int64_t at = b * d * d;
    const double unit = read_scaled(d, matrices + at, ridge, a);
    const bool finite = unit > 0;
    if (finite) symmetric_eigen(d, a, vectors, values);
    for_elements(d, d, [&](int i, int j) {
      double& v = vectors[i * stride(d) + j];
      if (!finite) v = kNan;
      if (kept) kept[b * d * (d + 1) + i * d + j] = v;
    });
    for (int i = threadIdx.x; i < d; i += kThreads) {
      values[i] = finite ? unit * values[i] : kNan;
      if (kept) kept[b * d * (d + 1) + d * d + i] = values[i];
    }
    __syncthreads();
    const double little = rounding(d, values);
    if (root)
      compose(d, vectors, a, root + at, [&](int i) {
        return sqrt(abs(values[i]) <= little ? max(values[i], 0.0) : values[i]);
      });
    if (inverse)
      compose(d, vectors, a, inverse + at,
              [&](int i) { return abs(values[i]) <= little ? 0 : 1 / sqrt(values[i]); });
    __syncthreads();
  }
}

// K_ij of the root and of the inverse; of what is within rounding of 0 the root x or y is 0.
__device__ double root_difference(double x, double y) { return x + y == 0 ? 0 : 1 / (x + y); }
__device__ double inverse_difference(double x, double y) {
  const double larger = max(x, y);
  if (x == 0 || y == 0) return larger == 0 ? 0 : 1 / (larger * larger * larger);
  return -1 / (x * y * (x + y));
}

struct Work {
  double *vectors, *g, *other, *sum;
};

// sum += (vectors g vectors^T) o K, K_ij = f(i, j), g symmetrised. A barrier after.
template <class F>
__device__ void add_differences(int d, const Work& w, const real* gradient, F f) {
  const int ld = stride(d);
  for_elements(d, d, [&](int i, int j) { w.g[i * ld + j] = symmetric(gradient, d, i, j); });
  __syncthreads();
  product(d, d, d, as_is(w.vectors, d), as_is(w.g, d),
          [&](int i, int j, double value) { w.other[i * ld + j] = value; });
  __syncthreads();
  product(d, d, d, as_is(w.other, d), transposed(w.vectors, d),
          [&](int i, int j, double value) { w.sum[i * ld + j] += f(i, j) * value; });
  __syncthreads();
}

// A block per matrix.
__global__ void __launch_bounds__(kThreads)
    backward_kernel(int64_t batch, int d, const double* kept, const real* droot,
                    const real* dinverse, real* da, double* scratch, int64_t doubles) {
  DYNAMIC_SHARED(double, shared);
  SHARED(double, roots, [kMostWidth]);
  const int ld = stride(d);
  const int64_t size = matrix_size(d, d);
  double* const memory = scratch ? scratch + blockIdx.x * doubles : shared;
  const Work w{memory, memory + size, memory + 2 * size, memory + 3 * size};
  for (int64_t b = blockIdx.x; b < batch; b += gridDim.x) {
    const double* const from = kept + b * d * (d + 1);
    const double little = rounding(d, from + d * d);
    for_elements(d, d, [&](int i, int j) {
      w.vectors[i * ld + j] = from[i * d + j];
      w.sum[i * ld + j] = 0;
    });
    for (int i = threadIdx.x; i < d; i += kThreads) {
      const double value = from[d * d + i];
      roots[i] = abs(value) <= little ? 0 : sqrt(value);
    }
    __syncthreads();
    if (droot)
      add_differences(d, w, droot + b * d * d,
                      [&](int i, int j) { return root_difference(roots[i], roots[j]); });
    if (dinverse)
      add_differences(d, w, dinverse + b * d * d,
                      [&](int i, int j) { return inverse_difference(roots[i], roots[j]); });
    product(d, d, d, transposed(w.vectors, d), as_is(w.sum, d),
            [&](int i, int j, double value) { w.other[i * ld + j] = value; });
    __syncthreads();
    real* const to = da + b * d * d;
    product(d, d, d, as_is(w.other, d), as_is(w.vectors, d), [&](int i, int j, double value) {
      to[i * d + j] = real(double(to[i * d + j]) + value);
    });
    __syncthreads();
  }
}

}  // namespace

size_t sqrtm_scratch_bytes(const Cuda& be, const SqrtmShape& s) {
  check_sqrtm_sizes(s);
  return sizeof(double) * size_t(std::max(forward_blocks(s).scratch(be, s.batch),
                                          backward_blocks(s).scratch(be, s.batch)));
}

void sqrtm_forward(const Cuda& be, const SqrtmShape& s, In a, Out root, Out inverse,
                   std::span<double> kept, Scratch scratch) {
  check_sqrtm(s, a, root, inverse, kept, scratch, sqrtm_scratch_bytes(be, s));
  const Blocks b = forward_blocks(s);
  const int roots = (root.empty() ? 0 : 1) + (inverse.empty() ? 0 : 1);
  // Ten sweeps, 6 d^3 each, and a product for each root.
  note_flops(kDouble * double(s.batch) * std::pow(double(s.width), 3) * (10 * 6 + 2 * roots));
  launch(be, forward_kernel, unsigned(b.count(be, s.batch)), kThreads, b.shared, s.batch,
         int(s.width), s.ridge, a.data(), pointer(root), pointer(inverse), pointer(kept),
         b.shared > 0 ? nullptr : reinterpret_cast<double*>(scratch.data()), b.doubles);
}

void sqrtm_backward(const Cuda& be, const SqrtmShape& s, std::span<const double> kept, In droot,
                    In dinverse, InOut da, Scratch scratch) {
  check_sqrtm_backward(s, kept, droot, dinverse, da, scratch, sqrtm_scratch_bytes(be, s));
  if (da.empty() || (droot.empty() && dinverse.empty())) return;
  const Blocks b = backward_blocks(s);
  const int roots = (droot.empty() ? 0 : 1) + (dinverse.empty() ? 0 : 1);
  note_flops(kDouble * double(s.batch) * std::pow(double(s.width), 3) * (4 + 4 * roots));
  launch(be, backward_kernel, unsigned(b.count(be, s.batch)), kThreads, b.shared, s.batch,
         int(s.width), kept.data(), pointer(droot), pointer(dinverse), da.data(),
         b.shared > 0 ? nullptr : reinterpret_cast<double*>(scratch.data()), b.doubles);
}

}  // namespace decalign::inline DECALIGN_REAL
