#include "kernels/distribution_encoder.h"

#include "kernels/carve.h"
#include "kernels/check/distribution_encoder.h"
#include "kernels/cpu/pair.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using Group = DistributionEncoderGroup;
using Groups = std::span<const Group>;

constexpr int64_t kRows = 16;   // rows per task
constexpr int64_t kChunk = 64;  // columns of a sum that is kept in registers and L1

// bias + sum over k of w x
template <class X>
double affine(real bias, const real* w, const X* x, int64_t k) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < k; ++i) sum += double(w[i]) * double(x[i]);
  return double(bias) + sum;
}

// to += sum over n rows of a[., 0] x[., 0 .. width), rows of a `lda` apart; rounded once.
template <class A, class X>
void add_products(int64_t n, int64_t width, const A* a, int64_t lda, const X* x, int64_t ldx,
                  real* to) {
  for (int64_t begin = 0; begin < width; begin += kChunk) {
    const int64_t count = std::min(kChunk, width - begin);
    double sum[kChunk] = {};
    for (int64_t r = 0; r < n; ++r) {
      const double factor = double(a[r * lda]);
      const X* row = x + r * ldx + begin;
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) sum[i] += factor * double(row[i]);
    }
    for (int64_t i = 0; i < count; ++i) to[begin + i] = real(double(to[begin + i]) + sum[i]);
  }
}

template <class A>
void add_sum(int64_t n, const A* a, int64_t lda, real& to) {
  double sum = 0;
  for (int64_t r = 0; r < n; ++r) sum += double(a[r * lda]);
  to = real(double(to) + sum);
}

// h = drop(relu(x w1^T + b1)) for row `row` of x.
void hidden_row(const DistributionEncoderShape& s, const KeepStream& keep, const Group& g,
                const real* x, int64_t row, double* h) {
  for (int64_t j = 0; j < s.hidden; ++j)
    h[j] = std::max(affine(g.bias1[size_t(j)], g.weight1.data() + j * s.width, x, s.width), 0.0);
  if (keep.threshold == 0) return;
  for (int64_t j0 = 0; j0 < s.hidden; j0 += KeepRun::kCapacity) {
    const int64_t count = std::min(s.hidden - j0, KeepRun::kCapacity);
    const KeepRun run(keep, row * s.hidden + j0, count);
    for (int64_t j = 0; j < count; ++j) h[j0 + j] *= (run.at(j) & 1) ? double(keep.scale) : 0;
  }
}

}  // namespace

size_t distribution_encoder_scratch_bytes(const Cpu&, const DistributionEncoderShape& s,
                                          int64_t modalities) {
  return carve_bytes<double>(modalities * s.batch * s.hidden) +
         carve_bytes<double>(modalities * s.batch * s.outputs);
}

void distribution_encoder_forward(const Cpu& be, const DistributionEncoderShape& s, Groups groups,
                                  In x, Out z, Out rest, std::span<double> hidden) {
  const int64_t rows = std::ssize(groups) * s.batch;
  check_distribution_encoder_forward(s, groups, x, z, rest, hidden);
  const KeepStream keep(s.dropout);
  parallel_ranges(be, rows, kRows, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const Group& g = groups[size_t(row / s.batch)];
      double* h = hidden.data() + row * s.hidden;
      hidden_row(s, keep, g, x.data() + row * s.width, row, h);
      for (int64_t j = 0; j < s.outputs; ++j) {
        const size_t at = size_t(row * s.outputs + j);
        const double sum = affine(g.bias2[size_t(j)], g.weight2.data() + j * s.hidden, h, s.hidden);
        set_pair(sum, z, rest, at);
      }
    }
  });
}

void distribution_encoder_backward(const Cpu& be, const DistributionEncoderShape& s, Groups groups,
                                   In x, std::span<const double> hidden, In dz, In drest, InOut dx,
                                   Scratch scratch) {
  const int64_t M = std::ssize(groups), n = s.batch, rows = M * n;
  check_distribution_encoder_backward(s, groups, x, hidden, dz, drest, dx, scratch,
                                      distribution_encoder_scratch_bytes(be, s, M));
  const double scale = double(s.dropout.scale());
  double* dhidden = carve<double>(scratch, rows * s.hidden);
  double* gradient = carve<double>(scratch, rows * s.outputs);  // dz + drest
  for (size_t i = 0; i < dz.size(); ++i) gradient[i] = pair_at(dz, drest, i);
  // By row: the hidden layer's gradient, dx.
  parallel_ranges(be, rows, kRows, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const Group& g = groups[size_t(row / n)];
      const double* h = hidden.data() + row * s.hidden;
      double* dh = dhidden + row * s.hidden;
      std::fill(dh, dh + s.hidden, 0.0);
      for (int64_t j = 0; j < s.outputs; ++j) {
        const double d = gradient[row * s.outputs + j];
        const real* w = g.weight2.data() + j * s.hidden;
#pragma omp simd
        for (int64_t k = 0; k < s.hidden; ++k) dh[k] += d * double(w[k]);
      }
      for (int64_t k = 0; k < s.hidden; ++k) dh[k] = h[k] > 0 ? dh[k] * scale : 0;
      if (!dx.empty())
        add_products(s.hidden, s.width, dh, 1, g.weight1.data(), s.width,
                     dx.data() + row * s.width);
    }
  });
  // By row of a weight: its gradient and its bias's.
  const int64_t units = s.hidden + s.outputs;
  parallel_ranges(be, M * units, kRows, [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t m = unit / units, j = unit % units, k = j - s.hidden;
      const Group& g = groups[size_t(m)];
      const double *h = hidden.data() + m * n * s.hidden, *dh = dhidden + m * n * s.hidden + j;
      const real* xs = x.data() + m * n * s.width;
      const double* d = gradient + m * n * s.outputs + k;
      if (j < s.hidden) {
        if (!g.dweight1.empty())
          add_products(n, s.width, dh, s.hidden, xs, s.width, g.dweight1.data() + j * s.width);
        if (!g.dbias1.empty()) add_sum(n, dh, s.hidden, g.dbias1[size_t(j)]);
      } else {
        if (!g.dweight2.empty())
          add_products(n, s.hidden, d, s.outputs, h, s.hidden, g.dweight2.data() + k * s.hidden);
        if (!g.dbias2.empty()) add_sum(n, d, s.outputs, g.dbias2[size_t(k)]);
      }
    }
  });
}

}  // namespace decalign::inline DECALIGN_REAL
