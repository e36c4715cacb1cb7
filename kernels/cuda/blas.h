// cuBLAS for large products without an epilogue, on row-major arrays.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

inline cublasComputeType_t blas_compute([[maybe_unused]] Precision precision) {
#ifdef DECALIGN_F64
  return CUBLAS_COMPUTE_64F_PEDANTIC;
#else
  return precision == Precision::tf32   ? CUBLAS_COMPUTE_32F_FAST_TF32
         : precision == Precision::bf16 ? CUBLAS_COMPUTE_32F_FAST_16BF
                                        : CUBLAS_COMPUTE_32F_PEDANTIC;
#endif
}

/// c [rows, columns] = a b + beta c over `depth` terms; a is [rows, depth], or [depth, rows] where
/// `a_turned`; b is [depth, columns], or [columns, depth] where `b_turned`. Strides are those of
/// the arrays' rows. In be.precision whatever the handle's math mode is; be.blas works on
/// be.stream.
inline void blas_product(const Cuda& be, int64_t rows, int64_t columns, int64_t depth,
                         const real* a, int64_t a_stride, bool a_turned, const real* b,
                         int64_t b_stride, bool b_turned, real beta, real* c, int64_t c_stride) {
  if (rows == 0 || columns == 0) return;
  constexpr cudaDataType kType = sizeof(real) == 8 ? CUDA_R_64F : CUDA_R_32F;
  const real one = 1;
  // Column-major, so everything is transposed: c^T = b^T a^T.
  CUDA_CHECK(cublasGemmEx(be.blas, b_turned ? CUBLAS_OP_T : CUBLAS_OP_N,
                          a_turned ? CUBLAS_OP_T : CUBLAS_OP_N, int(columns), int(rows), int(depth),
                          &one, b, kType, int(b_stride), a, kType, int(a_stride), &beta, c, kType,
                          int(c_stride), blas_compute(be.precision), CUBLAS_GEMM_DEFAULT));
}

/// c [parts, rows, columns]: a^T b for `parts` neighbouring parts of a [parts depth, rows] and
/// b [parts depth, columns].
inline void blas_part_products(const Cuda& be, int64_t parts, int64_t rows, int64_t columns,
                               int64_t depth, const real* a, const real* b, real* c) {
  if (parts == 0 || rows == 0 || columns == 0) return;
  constexpr cudaDataType kType = sizeof(real) == 8 ? CUDA_R_64F : CUDA_R_32F;
  const real one = 1, zero = 0;
  CUDA_CHECK(cublasGemmStridedBatchedEx(
      be.blas, CUBLAS_OP_N, CUBLAS_OP_T, int(columns), int(rows), int(depth), &one, b, kType,
      int(columns), depth * columns, a, kType, int(rows), depth * rows, &zero, c, kType,
      int(columns), rows * columns, int(parts), blas_compute(be.precision), CUBLAS_GEMM_DEFAULT));
}

}  // namespace decalign::inline DECALIGN_REAL
