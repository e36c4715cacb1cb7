#include "kernels/bures.h"
#include "kernels/cuda/bures.h"

namespace decalign::inline DECALIGN_REAL {
namespace {

using namespace bures;
using namespace small;

constexpr int kFlat = 128;

// A thread per coordinate of a prototype: the means' gradient and that of variances.
__global__ void __launch_bounds__(kFlat)
    coordinate_kernel(__grid_constant__ const Problem z, const real* means, const real* variances,
                      const real* dcost, real* dmeans, real* dvariances) {
  const int64_t i = int64_t(blockIdx.x) * kFlat + threadIdx.x;
  if (i >= z.prototypes * z.d) return;
  const int64_t one = i / z.d;
  const int t = int(i % z.d);
  const double mean = dmeans ? double(means[i]) : 0;
  const double v = dvariances ? double(variances[i]) : 0, root = sqrt(v + z.ridge);
  double dm = 0, dv = 0;
  for_partners(z, one, [&](int64_t other, int64_t at, bool) {
    const double g = z.scale * double(dcost[at]);
    if (dmeans) dm += 2 * g * (mean - double(means[other * z.d + t]));
    if (dvariances && root > 0) {
      const double w = double(variances[other * z.d + t]);
      dv += g * (v - w) / (root * (root + sqrt(w + z.ridge)));
    }
  });
  if (dmeans) dmeans[i] = real(double(dmeans[i]) + dm);
  if (dvariances) dvariances[i] = real(double(dvariances[i]) + dv);
}

// y upper = y in place, a thread per row; columns of y are 0 where upper's diagonal is.
__device__ void solve_rows(int n, const double* upper, double* y) {
  const int ld = stride(n);
  __syncthreads();
  for (int j = threadIdx.x; j < n; j += kThreads) {
    double* const row = y + j * ld;
    for (int i = n - 1; i >= 0; --i) {
      double sum = row[i];
      for (int k = i + 1; k < n; ++k) sum -= upper[i * ld + k] * row[k];
      const double pivot = upper[i * ld + i];
      row[i] = pivot == 0 ? 0 : sum / pivot;
    }
  }
  __syncthreads();
}

// A block per prototype.
__global__ void __launch_bounds__(kThreads)
    spread_kernel(__grid_constant__ const Problem z, const real* spread, const real* kept,
                  const real* dcost, real* dspread, double* scratch, int64_t doubles) {
  DYNAMIC_SHARED(double, shared);
  double* const sum = scratch ? scratch + blockIdx.x * doubles : shared;
  double* const upper = sum + matrix_size(z.d, z.r);
  const int ld = stride(z.r);
  for (int64_t one = blockIdx.x; one < z.prototypes; one += gridDim.x) {
    real* const out = dspread + one * z.d * z.r;
    for_elements(z.d, z.r, [&](int i, int j) {
      double total = 0;
      for_partners(z, one, [&](int64_t, int64_t at, bool first) {
        total += z.scale * double(dcost[at]) *
                 double(kept[((2 * at + (first ? 0 : 1)) * z.d + i) * z.r + j]);
      });
      if (z.covariance)
        sum[i * ld + j] = total;
      else
        out[i * z.r + j] = real(double(out[i * z.r + j]) + 2 * total);
    });
    if (!z.covariance) continue;
    cholesky(z.d, spread + one * z.d * z.d, z.ridge, upper);
    solve_rows(z.d, upper, sum);
    for_elements(z.d, z.d, [&](int i, int j) {
      const double x = 0.5 * (sum[i * ld + j] + sum[j * ld + i]);
      out[i * z.d + j] = real(double(out[i * z.d + j]) + x);
    });
    __syncthreads();
  }
}

}  // namespace

void bures_backward(const Cuda& be, const BuresShape& s, In means, In spread, In kept, In dcost,
                    InOut dmeans, InOut dspread, Scratch scratch) {
  check_bures_backward(s, means, spread, kept, dcost, dmeans, dspread, scratch,
                       bures_scratch_bytes(be, s));
  const Problem z = problem(s);
  const int64_t coordinates = z.prototypes * z.d;
  real* const dvariances = s.diagonal() ? pointer(dspread) : nullptr;
  if (z.pairs == 0) return;
  if (dvariances || !dmeans.empty()) {
    note_flops(kDouble * 2 * 14 * double(z.pairs * z.d));
    launch(be, coordinate_kernel, unsigned(ceil_div<int64_t>(coordinates, kFlat)), kFlat, 0, z,
           means.data(), spread.data(), dcost.data(), pointer(dmeans), dvariances);
  }
  if (s.diagonal() || dspread.empty()) return;
  const Blocks b = backward_blocks(s);
  carve<double>(scratch, s.prototypes() * matrix_size(z.d, z.r));
  note_flops(kDouble * (4 * double(z.pairs) * z.d * z.r +
                        (z.covariance ? double(coordinates) * z.d * z.d * 4 / 3 : 0)));
  launch(be, spread_kernel, unsigned(b.count(be, z.prototypes)), kThreads, b.shared, z,
         spread.data(), kept.data(), dcost.data(), dspread.data(),
         b.shared > 0 ? nullptr : reinterpret_cast<double*>(scratch.data()), b.doubles);
}

}  // namespace decalign::inline DECALIGN_REAL
