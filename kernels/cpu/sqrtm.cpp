#include "kernels/sqrtm.h"

#include "kernels/carve.h"
#include "kernels/check/sqrtm.h"
#include "kernels/cpu/slots.h"
#include "kernels/cpu/symmetric_eigen.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace small;

int64_t slot_size(const SqrtmShape& s) {
  return 3 * matrix_size(s.width, s.width) + 2 * stride(s.width) +
         std::max(eigen_work_size(s.width), 2 * matrix_size(s.width, s.width));
}

Slots slots(const Cpu& be, const SqrtmShape& s) {
  return {be, slot_size(s), 30.0 * double(s.width * s.width) * double(s.width * s.batch)};
}

// a [d, d] in `a`, taken as symmetric; `other` is used.
void read_symmetric(int64_t d, const real* from, double* a, double* other) {
  read(d, d, from, other);
  transpose(d, d, other, a);
  for (int64_t i = 0; i < matrix_size(d, d); i += kDoubles)
    vector_at(a + i) = 0.5 * vector_at(a + i) + 0.5 * vector_at(other + i);
}

// What is within rounding of 0.
double rounding(int64_t d, const double* values) {
  double largest = 0;
  for (int64_t i = 0; i < d; ++i) largest = std::max(largest, std::abs(values[i]));
  return sqrtm::kRounding * largest;
}

// to = vectors^T diag(f) vectors, symmetric to the bit; f >= 0
void compose(int64_t d, const double* vectors, const double* f, double* scaled, double* to,
             real* out) {
  const int64_t ld = stride(d);
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j < ld; j += kDoubles)
      vector_at(scaled + i * ld + j) = std::sqrt(f[i]) * vector_at(vectors + i * ld + j);
  symmetric_product(d, d, transposed(scaled, d), scaled, to);
  write(d, d, to, out);
}

void forward(const SqrtmShape& s, const real* from, real* root, real* inverse, double* kept,
             double* work) {
  const int64_t d = s.width, size = matrix_size(d, d);
  double *a = work, *vectors = a + size, *other = vectors + size, *values = other + size,
         *f = values + stride(d), *rest = f + stride(d);
  read_symmetric(d, from, a, other);
  for (int64_t i = 0; i < d; ++i) a[i * (stride(d) + 1)] += s.ridge;
  symmetric_eigen(d, a, vectors, values, rest);
  if (kept) {
    write(d, d, vectors, kept);
    std::copy_n(values, d, kept + d * d);
  }
  const double little = rounding(d, values);
  if (root) {
    for (int64_t i = 0; i < d; ++i)
      f[i] = std::sqrt(std::abs(values[i]) <= little ? std::max(values[i], 0.0) : values[i]);
    compose(d, vectors, f, other, rest, root);
  }
  if (inverse) {
    for (int64_t i = 0; i < d; ++i)
      f[i] = std::abs(values[i]) <= little ? 0 : 1 / std::sqrt(values[i]);
    compose(d, vectors, f, other, rest, inverse);
  }
}

// sum (=, +=) (vectors g vectors^T) o K, K_ij = f(i, j), g symmetrised.
template <class F>
void add_differences(int64_t d, const double* vectors, const double* turned, const real* gradient,
                     bool add, F f, double* g, double* other, double* sum) {
  const int64_t ld = stride(d);
  read_symmetric(d, gradient, g, other);
  product(d, d, d, as_is(vectors, d), g, other);
  symmetric_product(d, d, as_is(other, d), turned, g);
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j < d; ++j) {
      const double x = f(i, j) * g[i * ld + j];
      sum[i * ld + j] = add ? sum[i * ld + j] + x : x;
    }
}

void backward(const SqrtmShape& s, const double* kept, const real* droot, const real* dinverse,
              real* da, double* work) {
  const int64_t d = s.width, ld = stride(d), size = matrix_size(d, d);
  double *vectors = work, *turned = vectors + size, *sum = turned + size, *values = sum + size,
         *roots = values + ld, *g = roots + ld, *other = g + size;
  read(d, d, kept, vectors);
  transpose(d, d, vectors, turned);
  std::copy_n(kept + d * d, d, values);
  const double little = rounding(d, values);
  // Of what is within rounding of 0 the root serves as a mark.
  for (int64_t i = 0; i < d; ++i)
    roots[i] = std::abs(values[i]) <= little ? 0 : std::sqrt(values[i]);
  std::fill_n(sum, size, 0.0);
  if (droot)
    add_differences(
        d, vectors, turned, droot, false,
        [&](int64_t i, int64_t j) {
          const double r = roots[i] + roots[j];
          return r == 0 ? 0 : 1 / r;
        },
        g, other, sum);
  if (dinverse)
    add_differences(
        d, vectors, turned, dinverse, true,
        [&](int64_t i, int64_t j) {
          const double x = roots[i], y = roots[j], larger = std::max(x, y);
          if (x == 0 || y == 0) return larger == 0 ? 0 : 1 / (larger * larger * larger);
          return -1 / (x * y * (x + y));
        },
        g, other, sum);
  product(d, d, d, transposed(vectors, d), sum, other);
  symmetric_product(d, d, as_is(other, d), vectors, sum);
  for (int64_t i = 0; i < d; ++i)
    for (int64_t j = 0; j < d; ++j) da[i * d + j] = real(double(da[i * d + j]) + sum[i * ld + j]);
}

}  // namespace

size_t sqrtm_scratch_bytes(const Cpu& be, const SqrtmShape& s) {
  check_sqrtm_sizes(s);
  return slots(be, s).bytes();
}

void sqrtm_forward(const Cpu& be, const SqrtmShape& s, In a, Out root, Out inverse,
                   std::span<double> kept, Scratch scratch) {
  check_sqrtm(s, a, root, inverse, kept, scratch, sqrtm_scratch_bytes(be, s));
  const int64_t size = s.width * s.width;
  slots(be, s).run(s.batch, scratch, [&](int64_t i, double* work) {
    forward(s, a.data() + i * size, root.empty() ? nullptr : root.data() + i * size,
            inverse.empty() ? nullptr : inverse.data() + i * size,
            kept.empty() ? nullptr : kept.data() + i * (size + s.width), work);
  });
}

void sqrtm_backward(const Cpu& be, const SqrtmShape& s, std::span<const double> kept, In droot,
                    In dinverse, InOut da, Scratch scratch) {
  check_sqrtm_backward(s, kept, droot, dinverse, da, scratch, sqrtm_scratch_bytes(be, s));
  if (da.empty() || (droot.empty() && dinverse.empty())) return;
  const int64_t size = s.width * s.width;
  slots(be, s).run(s.batch, scratch, [&](int64_t i, double* work) {
    backward(s, kept.data() + i * (size + s.width),
             droot.empty() ? nullptr : droot.data() + i * size,
             dinverse.empty() ? nullptr : dinverse.data() + i * size, da.data() + i * size, work);
  });
}

}  // namespace decalign::inline DECALIGN_REAL
