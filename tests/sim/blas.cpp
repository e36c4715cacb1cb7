// The calls of cuBLAS that the project makes, in plain loops. What is not simulated says so by
// CUBLAS_STATUS_NOT_SUPPORTED.
#include <cublas_v2.h>
#include <cuda_bf16.h>

#include <bit>
#include <cmath>

#include "tests/sim/control.h"
#include "tests/sim/cost_model.h"
#include "tests/sim/memory.h"
#include "tests/sim/streams.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace sim {
namespace {

// A column-major matrix as it lies in memory, in a batch.
struct Matrix {
  char* data;
  cudaDataType type;
  int64_t rows, columns, leading, stride;

  size_t element() const {
    return type == CUDA_R_64F ? sizeof(double) : type == CUDA_R_32F ? sizeof(float) : 2;
  }
  char* at(int64_t i, int64_t j, int64_t batch) const {
    return data + size_t(batch * stride + j * leading + i) * element();
  }
  double get(int64_t i, int64_t j, int64_t batch) const {
    const char* const p = at(i, j, batch);
    return type == CUDA_R_64F   ? *reinterpret_cast<const double*>(p)
           : type == CUDA_R_32F ? double(*reinterpret_cast<const float*>(p))
                                : double(float(*reinterpret_cast<const __nv_bfloat16*>(p)));
  }
  void set(int64_t i, int64_t j, int64_t batch, double value) const {
    char* const p = at(i, j, batch);
    if (type == CUDA_R_64F)
      *reinterpret_cast<double*>(p) = value;
    else if (type == CUDA_R_32F)
      *reinterpret_cast<float*>(p) = float(value);
    else
      *reinterpret_cast<__nv_bfloat16*>(p) = __nv_bfloat16(float(value));
  }
  bool fits() const { return rows >= 0 && columns >= 0 && leading >= std::max<int64_t>(1, rows); }
};

struct Gemm {
  bool transpose_a, transpose_b;
  int64_t m, n, k, batches;
  double alpha, beta;
  Matrix a, b, c;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
};

void check_matrix(const Matrix& x, int64_t batches, Kind kind) {
  const size_t bytes = size_t(x.rows) * x.element();
  for (int64_t batch = 0; batch < batches; ++batch)
    for (int64_t j = 0; j < x.columns && bytes > 0; ++j) {
      char* const column = x.at(0, j, batch);
      const Allocation* owner = find_allocation(column);
      if (!owner || column + bytes > owner->begin + owner->bytes)
        throw Error("sim: cuBLAS: out of bounds: a matrix in " + describe_address(column));
      if (kind == Kind::read && first_unwritten(column, bytes) < bytes)
        throw Error("sim: cuBLAS: read of uninitialised " +
                    describe_address(column + first_unwritten(column, bytes)));
      check_operation(column, bytes, kind, "cuBLAS");
      if (kind == Kind::write) set_written(column, bytes);
    }
}

// What the tensor cores multiply, where the caller allows it.
float rounded(float x, cublasComputeType_t compute) {
  if (compute == CUBLAS_COMPUTE_32F_FAST_16BF) return float(__nv_bfloat16(x));
  if (compute != CUBLAS_COMPUTE_32F_FAST_TF32 || !std::isfinite(x)) return x;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 0x1000u) & ~0x1fffu);
}
double rounded(double x, cublasComputeType_t) { return x; }

// Sums in the type that cuBLAS would sum in.
template <class T>
void multiply(const Gemm& g) {
  for (int64_t batch = 0; batch < g.batches; ++batch)
    for (int64_t j = 0; j < g.n; ++j)
      for (int64_t i = 0; i < g.m; ++i) {
        T sum = 0;
        for (int64_t l = 0; l < g.k; ++l)
          sum +=
              rounded(T(g.transpose_a ? g.a.get(l, i, batch) : g.a.get(i, l, batch)), g.compute) *
              rounded(T(g.transpose_b ? g.b.get(j, l, batch) : g.b.get(l, j, batch)), g.compute);
        const T before = g.beta != 0 ? T(g.beta) * T(g.c.get(i, j, batch)) : T(0);
        g.c.set(i, j, batch, double(T(g.alpha) * sum + before));
      }
}

void run_gemm(const Gemm& g) {
  check_matrix(g.a, g.batches, Kind::read);
  check_matrix(g.b, g.batches, Kind::read);
  if (g.beta != 0) check_matrix(g.c, g.batches, Kind::read);
  check_matrix(g.c, g.batches, Kind::write);
  const auto bytes = [&](const Matrix& x) {
    return uint64_t(x.rows * x.columns * g.batches) * x.element();
  };
  cost_operation("cuBLAS gemm " + std::to_string(g.m) + "x" + std::to_string(g.n) + "x" +
                     std::to_string(g.k) + " x " + std::to_string(g.batches),
                 bytes(g.a) + bytes(g.b) + (g.beta != 0 ? bytes(g.c) : 0), bytes(g.c),
                 2.0 * double(g.m) * double(g.n) * double(g.k) * double(g.batches));
  if (g.c.type == CUDA_R_64F)
    multiply<double>(g);
  else
    multiply<float>(g);
}

bool known(cudaDataType type) {
  return type == CUDA_R_64F || type == CUDA_R_32F || type == CUDA_R_16BF;
}

cublasStatus_t submit_gemm(cublasHandle_t handle, const Gemm& g) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!known(g.a.type) || !known(g.b.type) || !known(g.c.type)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.batches < 0 || !g.a.fits() || !g.b.fits() || !g.c.fits())
    return CUBLAS_STATUS_INVALID_VALUE;
  const RuntimeLock lock;
  CUstream_st* stream = find_stream(handle->stream);
  if (!stream) return CUBLAS_STATUS_EXECUTION_FAILED;
  if (!stream->capture) ++count().blas;
  return submit(handle->stream, {Work::Kind::blas, [g] { run_gemm(g); }, "cuBLAS"})
             ? CUBLAS_STATUS_EXECUTION_FAILED
             : CUBLAS_STATUS_SUCCESS;
}

double scalar(const void* value, bool wide) {
  return wide ? *static_cast<const double*>(value) : double(*static_cast<const float*>(value));
}

Matrix matrix(const void* data, cudaDataType type, bool transposed, int64_t rows, int64_t columns,
              int leading, int64_t stride) {
  if (transposed) std::swap(rows, columns);
  return {static_cast<char*>(const_cast<void*>(data)), type, rows, columns, leading, stride};
}

}  // namespace
}  // namespace sim

using namespace sim;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
// CUBLAS_PEDANTIC_MATH and CUBLAS_DEFAULT_MATH are what is simulated: no TF32.
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t mode) {
  return mode == CUBLAS_TF32_TENSOR_OP_MATH ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long a_stride, const void* b,
                                          cudaDataType b_type, int ldb, long long b_stride,
                                          const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long c_stride, int batches,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
  const bool wide = compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  if (!wide && compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
      compute != CUBLAS_COMPUTE_32F_FAST_TF32 && compute != CUBLAS_COMPUTE_32F_FAST_16BF)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return submit_gemm(handle,
                     {ta != CUBLAS_OP_N, tb != CUBLAS_OP_N, m, n, k, batches, scalar(alpha, wide),
                      scalar(beta, wide), matrix(a, a_type, ta != CUBLAS_OP_N, m, k, lda, a_stride),
                      matrix(b, b_type, tb != CUBLAS_OP_N, k, n, ldb, b_stride),
                      matrix(c, c_type, false, m, n, ldc, c_stride), compute});
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                            int m, int n, int k, const void* alpha, const void* a,
                            cudaDataType a_type, int lda, const void* b, cudaDataType b_type,
                            int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type,
                                    ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algorithm);
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const float* alpha, const float* a, int lda,
                              const float* b, int ldb, const float* beta, float* c, int ldc) {
  return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, CUDA_R_32F, lda, b, CUDA_R_32F, ldb, beta,
                      c, CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}

cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const double* alpha, const double* a, int lda,
                              const double* b, int ldb, const double* beta, double* c, int ldc) {
  return cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, CUDA_R_64F, lda, b, CUDA_R_64F, ldb, beta,
                      c, CUDA_R_64F, ldc, CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT);
}
}
