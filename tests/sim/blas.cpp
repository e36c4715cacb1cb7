// A slice of cuBLAS on the host, against the toolkit's own header: the host code stays the same,
// only the library linked differs.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
struct cublasContext {
  cudaStream_t s = nullptr;
};
static double get(const void* p, size_t i, cudaDataType t) {
  return t == CUDA_R_16BF  ? __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i])
         : t == CUDA_R_16F ? __half2float(static_cast<const __half*>(p)[i])
         : t == CUDA_R_64F ? static_cast<const double*>(p)[i]
                           : static_cast<const float*>(p)[i];
}
static void put(void* p, size_t i, double v, cudaDataType t) {
  if (t == CUDA_R_16BF)
    static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(float(v));
  else if (t == CUDA_R_16F)
    static_cast<__half*>(p)[i] = __float2half_rn(float(v));
  else if (t == CUDA_R_64F)
    static_cast<double*>(p)[i] = v;
  else
    static_cast<float*>(p)[i] = float(v);
}
// Sums in the compute type, float or double, as the library does.
template <class T>
static void product(bool ta, bool tb, int m, int n, int k, T alpha, const void* A, cudaDataType at,
                    int lda, const void* B, cudaDataType bt, int ldb, T beta, void* C,
                    cudaDataType ct, int ldc) {
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) {
      T s = 0;
      for (int l = 0; l < k; ++l)
        s += T(get(A, ta ? size_t(i) * lda + l : size_t(l) * lda + i, at)) *
             T(get(B, tb ? size_t(l) * ldb + j : size_t(j) * ldb + l, bt));
      const size_t o = size_t(j) * ldc + i;
      put(C, o, alpha * s + (beta != 0 ? beta * T(get(C, o, ct)) : 0), ct);
    }
}
static cublasStatus_t post(cublasHandle_t h, std::function<void()> f) {
  auto* p = new std::function<void()>(
      std::move(f));  // host callback on the stream: ordered like the real call
  return cudaLaunchHostFunc(
             h->s,
             [](void* v) {
               auto* p = static_cast<std::function<void()>*>(v);
               (*p)();
               delete p;
             },
             p)
             ? CUBLAS_STATUS_EXECUTION_FAILED
             : CUBLAS_STATUS_SUCCESS;
}
extern "C" {
cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
  *h = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
  delete h;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
  h->s = s;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                            int n, int k, const void* alpha, const void* A, cudaDataType at,
                            int lda, const void* B, cudaDataType bt, int ldb, const void* beta,
                            void* C, cudaDataType ct, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
  if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m) return CUBLAS_STATUS_INVALID_VALUE;
  const auto run = [=](auto al, auto be) {
    return post(h, [=] { product(ta, tb, m, n, k, al, A, at, lda, B, bt, ldb, be, C, ct, ldc); });
  };
  if (compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC)
    return run(*static_cast<const double*>(alpha), *static_cast<const double*>(beta));
  return run(*static_cast<const float*>(alpha), *static_cast<const float*>(beta));
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                              int n, int k, const float* al, const float* A, int lda,
                              const float* B, int ldb, const float* be, float* C, int ldc) {
  return cublasGemmEx(h, ta, tb, m, n, k, al, A, CUDA_R_32F, lda, B, CUDA_R_32F, ldb, be, C,
                      CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m,
                              int n, int k, const double* al, const double* A, int lda,
                              const double* B, int ldb, const double* be, double* C, int ldc) {
  return cublasGemmEx(h, ta, tb, m, n, k, al, A, CUDA_R_64F, lda, B, CUDA_R_64F, ldb, be, C,
                      CUDA_R_64F, ldc, CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT);
}
}
