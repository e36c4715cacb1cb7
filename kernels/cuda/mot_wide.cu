#include "kernels/cuda/last_block.h"
#include "kernels/cuda/mot_unroll.h"
#include "kernels/cuda/mot_wide.h"

namespace decalign::inline DECALIGN_REAL::mot_block {
namespace {

constexpr int kTile = 64, kDepth = 16, kSide = 16, kEach = kTile / kSide;
constexpr int kWarps = kThreads / 32;
constexpr int kBuilt = 16 * kThreads;  // elements of X that a block builds

// Asks for X. Barrier.
__device__ void absorb(const Slot& s) {
  s.take_in();
  if (s.thread() == 0) s.control.absorb = 2;
}

// X, if asked for. The last block knows whether its range does; the plan's place holds extents.
__global__ void __launch_bounds__(kThreads, 1)
    build_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w,
                 unsigned* counters) {
  Slot s(z, w, int(blockIdx.y));
  if (s.control.absorb != 2) return;
  s.resume();
  const int begin = int(blockIdx.x) * kBuilt, end = min(begin + kBuilt, z.c);
  Paired::Extent x = s.build(begin, end);
  if (s.thread() == 0) s.plan[2 * blockIdx.x] = x.high, s.plan[2 * blockIdx.x + 1] = x.low;
  if (!is_last_block(counters + blockIdx.y, int(gridDim.x))) return;
  x = {-kInfinity, -kInfinity};
  s.for_each(int(gridDim.x), [&](int b) {
    x.high = max(x.high, load_part(s.plan + 2 * b));
    x.low = max(x.low, load_part(s.plan + 2 * b + 1));
  });
  x.high = s.largest(x.high);
  x.low = s.largest(x.low);
  s.judge(x);
  if (s.thread() == 0) s.control.ready = s.ready, s.control.absorb = 0;
}

__global__ void __launch_bounds__(kThreads, 1)
    open_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w,
                const double* state, const real* report) {
  Slot s(z, w, int(blockIdx.x));
  s.read(s.cost, w.marginals + s.problem * z.n);
  if (state == nullptr)
    s.heat = z.heat;
  else if (report[4 * s.problem + 2] > 0)
    load_state<Paired>(s, state + s.problem * z.state, 0, z.M);
  if (s.thread() == 0) s.control = {0, s.epsilon, s.heat, s.start, 0, 0, 0, 0};
  __syncthreads();
  absorb(s);
}

// Halves epsilon if told to, and makes ready for what comes.
__global__ void __launch_bounds__(kThreads, 1)
    stage_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w, bool halve) {
  Slot s(z, w, int(blockIdx.x));
  s.resume();
  if (halve) s.halve();
  __syncthreads();
  if (s.thread() == 0) s.control.heat = s.heat, s.control.done = 0;
  absorb(s);
}

// A tile of pair p: f(i, j, sum_l X_r[l, i] u_l X_q[j, l]).
template <class F>
__device__ void product_tile(const Slot& s, int p, F&& f) {
  SHARED(double, x, [kDepth][kTile]);
  SHARED(double, y, [kDepth][kTile + 1]);
  const int K = s.z.K, ld = s.z.ld, tiles = ceil_div(K, kTile), t = s.thread();
  const int i0 = int(blockIdx.x) / tiles * kTile, j0 = int(blockIdx.x) % tiles * kTile;
  const int row = t / kSide, column = t % kSide;
  const double *Xr = s.X_of(s.before(p)), *Xq = s.X_of(s.next(p)), *u = s.u + s.before(p) * K;
  double sum[kEach][kEach] = {};
  for (int l0 = 0; l0 < K; l0 += kDepth) {
    for (int e = t; e < kDepth * kTile; e += kThreads) {
      const int l = l0 + e / kTile, i = i0 + e % kTile;
      x[e / kTile][e % kTile] = l < K && i < K ? Xr[l * ld + i] * u[l] : 0;
    }
    for (int e = t; e < kDepth * kTile; e += kThreads) {
      const int l = l0 + e % kDepth, j = j0 + e / kDepth;
      y[e % kDepth][e / kDepth] = l < K && j < K ? Xq[j * ld + l] : 0;
    }
    __syncthreads();
#pragma unroll 4
    for (int l = 0; l < kDepth; ++l) {
      double from[kEach], to[kEach];
#pragma unroll
      for (int a = 0; a < kEach; ++a) from[a] = x[l][row + a * kSide];
#pragma unroll
      for (int b = 0; b < kEach; ++b) to[b] = y[l][column + b * kSide];
#pragma unroll
      for (int a = 0; a < kEach; ++a)
#pragma unroll
        for (int b = 0; b < kEach; ++b) sum[a][b] += from[a] * to[b];
    }
    __syncthreads();
  }
#pragma unroll
  for (int a = 0; a < kEach; ++a)
#pragma unroll
    for (int b = 0; b < kEach; ++b) {
      const int i = i0 + row + a * kSide, j = j0 + column + b * kSide;
      if (i < K && j < K) f(i, j, sum[a][b]);
    }
}

// P of the next two updates.
__global__ void __launch_bounds__(kThreads)
    product_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w) {
  const Slot s(z, w, int(blockIdx.y));
  if (s.control.done || !s.control.ready) return;
  const int p = int(s.control.updates % 3);
  product_tile(
      s, p, [&](int i, int j, double sum) { s.P[i * z.ld + j] = s.X_of(p)[i * z.ld + j] * sum; });
}

// The plan of pair p = blockIdx.z.
__global__ void __launch_bounds__(kThreads)
    plan_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w) {
  const Slot s(z, w, int(blockIdx.y));
  if (!s.control.ready) return;
  const int p = int(blockIdx.z), n = s.next(p);
  product_tile(s, p, [&](int i, int j, double sum) {
    const int at = s.place(p, i, j);
    const double T = s.u[p * z.K + i] * s.u[n * z.K + j] * s.X_of(p)[i * z.ld + j] * sum;
    s.plan[at] = T;
    if (w.pairs != nullptr) w.pairs[s.problem * z.c + at] = real(T);
  });
}

// The same by the plain sum.
__global__ void __launch_bounds__(kThreads, 1)
    stream_plan_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w) {
  Slot s(z, w, int(blockIdx.y));
  if (s.control.ready) return;
  s.resume();
  const int begin = int(blockIdx.x) * kThreads, end = min(begin + kThreads, z.c);
  s.stream_sums<false>(nullptr, s.plan, begin, end);
  if (w.pairs == nullptr) return;
  for (int at = begin + s.thread(); at < end; at += kThreads)
    w.pairs[s.problem * z.c + at] = real(s.plan[at]);
}

// out[j] = sum_i P[i, j] weight[i] for 32 columns.
__device__ void column_sums(const Slot& s, int block, const double* weight, double* out) {
  SHARED(double, part, [kWarps][32]);
  const int lane = s.thread() % 32, warp = s.thread() / 32, j = block * 32 + lane;
  double sum = 0;
  for (int i = warp; i < s.z.K && j < s.z.K; i += kWarps) sum += s.P[i * s.z.ld + j] * weight[i];
  part[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || j >= s.z.K) return;
  sum = 0;
  for (int v = 0; v < kWarps; ++v) sum += part[v][lane];
  out[j] = sum;
}

// The sums that u_p is divided by, a warp each, and the new u_p into lambda; where the error is
// looked at, the columns' sums by the old u_p after that.
__global__ void __launch_bounds__(kThreads)
    row_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w) {
  const Slot s(z, w, int(blockIdx.y));
  if (s.control.done || !s.control.ready) return;
  const int p = int(s.control.updates % 3), blocks = ceil_div(z.K, kWarps);
  if (int(blockIdx.x) >= blocks) {
    if (p == 0) column_sums(s, int(blockIdx.x) - blocks, s.u + p * z.K, s.lambda + z.K);
    return;
  }
  const int i = int(blockIdx.x) * kWarps + s.thread() / 32;
  if (i >= z.K) return;
  const double* const u = s.u + s.next(p) * z.K;
  double sum = 0;
  for (int j = s.thread() % 32; j < z.K; j += 32) sum += s.P[i * z.ld + j] * u[j];
  sum = warp_sum(sum);
  if (s.thread() % 32 > 0) return;
  s.rows[i] = sum;
  s.lambda[i] = s.a[p * z.K + i] / sum;
}

__global__ void __launch_bounds__(kThreads)
    column_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w) {
  const Slot s(z, w, int(blockIdx.y));
  if (s.control.done || !s.control.ready) return;
  column_sums(s, int(blockIdx.x), s.lambda, s.columns);
}

// Takes the sums for new scalings as far as their range allows, unless the error was small enough.
__global__ void __launch_bounds__(kThreads, 1)
    update_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w, int64_t end,
                  double tolerance) {
  Slot s(z, w, int(blockIdx.x));
  s.resume();
  Control c = s.control;
  if (c.done) return;
  const int p = int(c.updates % 3), n = s.next(p), K = z.K;
  const int wanted = int(min(end - c.updates, int64_t(2)));
  bool unusable[2] = {true, true}, far = true;
  if (c.ready) {
    double error = 0;
    Paired::Fit first, second;
    s.for_each(K, [&](int k) {
      if (p == 0 && tolerance > 0)
        error += abs(s.a[k] * (s.rel[k] * s.rows[k] - 1)) +
                 abs(s.a[K + k] * (s.rel[K + k] * s.lambda[K + k] - 1));
      first.look(s.rows[k]);
      second.look(s.columns[k]);
    });
    if (p == 0 && tolerance > 0 && c.updates > 0 && s.total(error) <= tolerance) {
      s.write_back(3);
      if (s.thread() == 0) s.control.done = 1;
      return;
    }
    far = __syncthreads_or(!first.near || !second.near);
    unusable[0] = __syncthreads_or(!first.usable), unusable[1] = __syncthreads_or(!second.usable);
  }
  int done = 0;
  for (; done < wanted && !(done == 0 ? unusable[0] : unusable[1]); ++done) {
    const int m = done == 0 ? p : n;
    s.for_each(K, [&](int k) {
      const int i = m * K + k;
      s.rel[i] = 1 / (done == 0 ? s.rows : s.columns)[k];
      s.u[i] = s.a[i] * s.rel[i];
      if (w.state != nullptr)
        w.state[s.problem * z.state + (c.updates + done) / 3 * z.n + i] =
            s.absorbed[i] + log(s.rel[i]);
    });
  }
  c.updates += done;
  c.pending = wanted - done;
  c.done = c.updates >= end;
  c.start = c.start && c.updates < 3;
  c.absorb = c.pending > 0 || (far && !c.start && !c.done);
  // What was in range goes back; if nothing was absorbed before, nothing has changed since.
  if (c.ready && (c.done || c.absorb)) s.write_back(c.start ? int(c.updates) : 3);
  __syncthreads();
  if (s.thread() == 0) s.control = c;
}

// The pending update `of` two by the plain sum, a block an element.
__global__ void __launch_bounds__(kThreads, 1)
    stream_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w, int pending) {
  Slot s(z, w, int(blockIdx.y));
  if (s.control.pending < pending) return;
  s.resume();
  const int64_t update = s.control.updates + s.control.pending - pending;
  const int m = int(update % 3), inner = m == 2 ? 1 : 2, k = int(blockIdx.x), K = z.K;
  double top = kNothing, sum = 0;
  for (int l = s.thread(); l < K * K; l += kThreads) {
    const double x = s.term<false>(m, k, inner, l % K, l / K, nullptr).exponent;
    const double e = exp(-abs(x - top));
    sum = x > top ? sum * e + 1 : sum + e;
    top = max(x, top);
  }
  const double all = s.largest(top);
  sum = s.total(sum * exp(top - all));
  if (s.thread() > 0) return;
  s.set_potential(m * K + k, all + log(sum));
  if (w.state != nullptr)
    w.state[s.problem * z.state + update / 3 * z.n + m * K + k] = s.q[m * K + k];
}

__global__ void __launch_bounds__(kThreads, 1)
    settle_kernel(const __grid_constant__ Sizes z, const __grid_constant__ Wide w, int64_t end) {
  Slot s(z, w, int(blockIdx.x));
  Control c = s.control;
  if (!c.absorb) return;
  c.updates += c.pending;
  c.pending = 0;
  c.done = c.updates >= end;
  c.start = c.start && c.updates < 3;
  __syncthreads();
  if (s.thread() == 0) s.control = c;
  __syncthreads();
  if (c.done) return;
  s.resume();
  absorb(s);
}

struct Launcher {
  const Cuda& be;
  const Sizes& z;
  const Wide& w;
  unsigned slots;

  template <class Kernel, class... A>
  void each(Kernel kernel, const A&... more) const {  // a block a problem
    launch(be, kernel, slots, kThreads, 0, z, w, more...);
  }
  template <class Kernel, class... A>
  void many(Kernel kernel, int64_t blocks, const A&... more) const {
    launch(be, kernel, dim3(unsigned(blocks), slots), kThreads, 0, z, w, more...);
  }

  void two_updates(int64_t end, double tolerance) const {
    const int K = z.K, columns = ceil_div(K, 32);
    note_flops(kDouble * 2 * double(K) * K * K * slots);
    many(product_kernel, ceil_div(K, kTile) * ceil_div(K, kTile));
    many(row_kernel, ceil_div(K, kWarps) + (tolerance > 0 ? columns : 0));
    many(column_kernel, columns);
    each(update_kernel, end, tolerance);
    many(stream_kernel, K, 2);
    many(stream_kernel, K, 1);
    each(settle_kernel, end);
    build();
  }
  void build() const { many(build_kernel, ceil_div(z.c, kBuilt), be.counters); }
  void plan() const {
    const unsigned tiles = unsigned(ceil_div(z.K, kTile) * ceil_div(z.K, kTile));
    note_flops(kDouble * 6 * double(z.K) * z.K * z.K * slots);
    launch(be, plan_kernel, dim3(tiles, slots, 3), kThreads, 0, z, w);
    many(stream_plan_kernel, ceil_div(z.c, kThreads));
  }
};

}  // namespace

void wide_sweeps(const Cuda& be, const Sizes& z, const Wide& w, int slots) {
  expect(be.counters != nullptr, "Cuda: the backend has no counters");
  const Launcher with{be, z, w, unsigned(slots)};
  with.each(open_kernel, nullptr, nullptr);
  with.build();
  int64_t sweeps = 0;
  for (int64_t h = z.halvings; h >= 0; --h) {
    const int64_t end = h > 0 ? std::min(sweeps + 3, z.max_sweeps) : z.max_sweeps;
    for (int64_t update = 3 * sweeps; update < 3 * end; update += 2)
      with.two_updates(3 * end, h > 0 ? 0 : z.tolerance);
    sweeps = end;
    with.each(stage_kernel, h > 0);
    with.build();
  }
  with.plan();
}

void wide_plan(const Cuda& be, const Sizes& z, const Wide& w, const double* state,
               const real* report, int slots) {
  expect(be.counters != nullptr, "Cuda: the backend has no counters");
  const Launcher with{be, z, w, unsigned(slots)};
  with.each(open_kernel, state, report);
  with.build();
  with.plan();
}

}  // namespace decalign::inline DECALIGN_REAL::mot_block
