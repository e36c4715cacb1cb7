#ifdef __CUDACC__
#error "sim_sim.h is for the host-only build"
#endif
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#define __DEVICE_LAUNCH_PARAMETERS_H__  // we own threadIdx & co
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>  // types and prototypes only; the toolkit's own header
#undef __shared__
#define __shared__ SIM_use_DECALIGN_SHARED_instead_of_raw_shared
#undef __launch_bounds__
#define __launch_bounds__(...)

// ------------------------------------------------------------------ built-in variables
extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread dim3 blockDim;
extern __thread dim3 gridDim;
constexpr int warpSize = 32;

namespace sim {
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order { forward, reverse, random };  // order of the threads between barriers
struct Config {                                 // read from SIM_* on first use, tests may change it
  Order order = Order::random;
  uint64_t seed = 1;
  bool poison = true;        // shared memory and cudaMalloc memory start as NaN bytes
  bool strict_exit = true;   // a thread that has exited while others wait at a barrier is an error
  bool random_yield = true;  // atomics give way now and then (progress of spin loops)
  int resident = 1;          // blocks whose threads are interleaved
  int os_threads = 1;
  size_t stack = 64 * 1024;
  size_t smem_limit = 227 * 1024;
  uint64_t livelock = 5000000;  // spins without any progress
};
Config& config();

struct Site {
  const char* file;
  int line;
};
#define SIM_SITE ::sim::Site site = {__builtin_FILE(), __builtin_LINE()}

// A warp-level rendezvous: fn runs once, in the last lane to arrive, with every lane's payload.
struct Lanes {
  void* p[32];
  uint32_t mask;
};
using CollFn = void (*)(Lanes&);
int lane_id();
int warp_id();
int thread_rank();
void collective(const char* kind, uint32_t mask, void* payload, CollFn fn, bool orders_memory,
                Site);
void block_barrier(int id, int count, Site);  // count<=0: the whole block
int block_vote(int pred, int op, Site);
void maybe_yield();
void yield();
void fence(int scope);
[[noreturn]] void fail(const std::string& what);
struct SharedKey {
  uint64_t serial = 0;
  void* p = nullptr;
};
void* shared_var(SharedKey&, size_t bytes, size_t align, const char* name);
void* dyn_shared(size_t align);
size_t dyn_shared_bytes();
uint32_t shared_offset(const void* p);  // __cvta_generic_to_shared
void* shared_pointer(uint32_t off);
void cp_async(void* dst, const void* src, int bytes, int valid);
void cp_async_commit();
void cp_async_wait(int keep);
void enter_runtime();  // suspend access checks (checked build)
void leave_runtime();
struct Quiet {
  Quiet() { enter_runtime(); }
  ~Quiet() { leave_runtime(); }
};

void run_grid(dim3 grid, dim3 block, size_t smem, void (*body)(void*), void* args,
              size_t args_bytes, bool cooperative, const void* kernel);
cudaError_t enqueue_kernel(dim3 grid, dim3 block, size_t smem, cudaStream_t s, const void* fn,
                           void (*run)(void*), void* closure, size_t closure_bytes,
                           void (*drop)(void*), bool cooperative);

template <class T, class Tag>
inline T& shared_ref(SharedKey& k, const char* name) {
  return *static_cast<T*>(shared_var(k, sizeof(T), alignof(T) < 16 ? 16 : alignof(T), name));
}

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, cudaStream_t s,
                   bool coop, A&&... a) {
  struct Closure {
    void (*k)(P...);
    std::tuple<std::decay_t<P>...> args;
  };
  auto* c = new Closure{kernel, std::tuple<std::decay_t<P>...>(std::forward<A>(a)...)};
  return enqueue_kernel(
      grid, block, smem, s, reinterpret_cast<const void*>(kernel),
      [](void* v) {
        auto* c = static_cast<Closure*>(v);
        std::apply(c->k, c->args);
      },
      c, sizeof(Closure), [](void* v) { delete static_cast<Closure*>(v); }, coop);
}

// ------------------------------------------------------------------ shuffles and votes
template <class T>
struct ShflPayload {
  T in, out;
  int src;
};
template <class T>
inline T shfl_any(uint32_t mask, T v, int src, const char* kind, Site site) {
  ShflPayload<T> p{v, v, src};
  collective(
      kind, mask, &p,
      [](Lanes& l) {
        for (int i = 0; i < 32; ++i)
          if (l.mask >> i & 1) {
            auto* me = static_cast<ShflPayload<T>*>(l.p[i]);
            if (l.mask >> me->src & 1)
              me->out = static_cast<ShflPayload<T>*>(l.p[me->src])->in;
            else
              std::memset(&me->out, 0xFF,
                          sizeof(T));  // reading a lane that does not take part: poison
          }
      },
      false, site);
  return p.out;
}
inline int shfl_target(int t, int lane, int width, bool ok) {
  return ok ? (lane & ~(width - 1)) + t : lane;
}
struct VotePayload {
  int64_t in;
  int64_t out;
};
inline int64_t vote(uint32_t mask, int64_t v, const char* kind, CollFn fn, Site site) {
  VotePayload p{v, 0};
  collective(kind, mask, &p, fn, false, site);
  return p.out;
}
template <class F>
inline void fold_lanes(Lanes& l, int64_t init, F f) {
  int64_t r = init;
  for (int i = 0; i < 32; ++i)
    if (l.mask >> i & 1) r = f(r, static_cast<VotePayload*>(l.p[i])->in, i);
  for (int i = 0; i < 32; ++i)
    if (l.mask >> i & 1) static_cast<VotePayload*>(l.p[i])->out = r;
}
}  // namespace sim

// ------------------------------------------------------------------ synchronisation
inline void __syncthreads(SIM_SITE) { sim::block_barrier(0, 0, site); }
inline int __syncthreads_count(int p, SIM_SITE) { return sim::block_vote(p != 0, 0, site); }
inline int __syncthreads_and(int p, SIM_SITE) { return sim::block_vote(p != 0, 1, site); }
inline int __syncthreads_or(int p, SIM_SITE) { return sim::block_vote(p != 0, 2, site); }
inline void __syncwarp(unsigned mask = 0xffffffffu, SIM_SITE) {
  sim::collective("__syncwarp", mask, nullptr, nullptr, true, site);
}
inline void __threadfence_block() { sim::fence(0); }
inline void __threadfence() { sim::fence(1); }
inline void __threadfence_system() { sim::fence(2); }
inline void __nanosleep(unsigned) { sim::yield(); }
inline void __trap() { sim::fail("__trap()"); }

template <class T>
inline T __shfl_sync(unsigned m, T v, int src, int w = 32, SIM_SITE) {
  const int l = sim::lane_id();
  return sim::shfl_any(m, v, sim::shfl_target(src & (w - 1), l, w, true), "__shfl_sync", site);
}
template <class T>
inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32, SIM_SITE) {
  const int l = sim::lane_id(), t = (l & (w - 1)) ^ x;
  return sim::shfl_any(m, v, sim::shfl_target(t, l, w, t < w), "__shfl_xor_sync", site);
}
template <class T>
inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32, SIM_SITE) {
  const int l = sim::lane_id(), t = (l & (w - 1)) + int(d);
  return sim::shfl_any(m, v, sim::shfl_target(t, l, w, t < w), "__shfl_down_sync", site);
}
template <class T>
inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32, SIM_SITE) {
  const int l = sim::lane_id(), t = (l & (w - 1)) - int(d);
  return sim::shfl_any(m, v, sim::shfl_target(t, l, w, t >= 0), "__shfl_up_sync", site);
}
inline unsigned __ballot_sync(unsigned m, int p, SIM_SITE) {
  return unsigned(sim::vote(
      m, p != 0, "__ballot_sync",
      [](sim::Lanes& l) {
        sim::fold_lanes(l, 0, [](int64_t a, int64_t v, int i) { return a | (v << i); });
      },
      site));
}
inline int __any_sync(unsigned m, int p, SIM_SITE) { return __ballot_sync(m, p, site) != 0; }
inline int __all_sync(unsigned m, int p, SIM_SITE) { return __ballot_sync(m, !p, site) == 0; }
inline unsigned __activemask() {
  return 1u << sim::lane_id();
}  // weakest answer the language allows
template <class T>
inline T __reduce_add_sync(unsigned m, T v, SIM_SITE) {
  return T(sim::vote(
      m, v, "__reduce_add_sync",
      [](sim::Lanes& l) { sim::fold_lanes(l, 0, [](int64_t a, int64_t x, int) { return a + x; }); },
      site));
}
template <class T>
inline T __reduce_max_sync(unsigned m, T v, SIM_SITE) {
  return T(sim::vote(
      m, v, "__reduce_max_sync",
      [](sim::Lanes& l) {
        sim::fold_lanes(l, INT64_MIN, [](int64_t a, int64_t x, int) { return a > x ? a : x; });
      },
      site));
}
template <class T>
inline T __reduce_min_sync(unsigned m, T v, SIM_SITE) {
  return T(sim::vote(
      m, v, "__reduce_min_sync",
      [](sim::Lanes& l) {
        sim::fold_lanes(l, INT64_MAX, [](int64_t a, int64_t x, int) { return a < x ? a : x; });
      },
      site));
}

// ------------------------------------------------------------------ atomics
namespace sim {
template <class T, class F>
inline T atomic_rmw(T* p, F f) {
  using U = std::conditional_t<sizeof(T) == 8, uint64_t,
                               std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  maybe_yield();
  U* q = reinterpret_cast<U*>(p);
  U old = __atomic_load_n(q, __ATOMIC_RELAXED), want;
  T o;
  do {
    std::memcpy(&o, &old, sizeof o);
    T n = f(o);
    std::memcpy(&want, &n, sizeof n);
  } while (!__atomic_compare_exchange_n(q, &old, want, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return o;
}
template <class T>
using Id = std::common_type_t<T>;
}  // namespace sim
template <class T>
inline T atomicAdd(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return T(o + v); });
}
template <class T>
inline T atomicSub(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return T(o - v); });
}
template <class T>
inline T atomicMax(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return o < v ? v : o; });
}
template <class T>
inline T atomicMin(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return v < o ? v : o; });
}
template <class T>
inline T atomicExch(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T) { return v; });
}
template <class T>
inline T atomicOr(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return T(o | v); });
}
template <class T>
inline T atomicAnd(T* p, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return T(o & v); });
}
template <class T>
inline T atomicCAS(T* p, sim::Id<T> c, sim::Id<T> v) {
  return sim::atomic_rmw(p, [=](T o) { return o == c ? v : o; });
}
inline unsigned atomicInc(unsigned* p, unsigned v) {
  return sim::atomic_rmw(p, [=](unsigned o) { return o >= v ? 0 : o + 1; });
}

// ------------------------------------------------------------------ math and bits
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class T>
inline T __ldcs(const T* p) {
  return *p;
}
template <class T>
inline void __stcs(T* p, sim::Id<T> v) {
  *p = v;
}
template <class T>
inline void __stwb(T* p, sim::Id<T> v) {
  *p = v;
}
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return float(1.0 / sqrt(double(a))); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float a) { return a < 0.f || a != a ? 0.f : a > 1.f ? 1.f : a; }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
namespace sim {
template <class To, class From>
inline To bits(From f) {
  To t;
  static_assert(sizeof t == sizeof f);
  std::memcpy(&t, &f, sizeof t);
  return t;
}
}  // namespace sim
inline int __float_as_int(float f) { return sim::bits<int>(f); }
inline unsigned __float_as_uint(float f) { return sim::bits<unsigned>(f); }
inline float __int_as_float(int i) { return sim::bits<float>(i); }
inline float __uint_as_float(unsigned i) { return sim::bits<float>(i); }
inline long long __double_as_longlong(double d) { return sim::bits<long long>(d); }
inline double __longlong_as_double(long long i) { return sim::bits<double>(i); }
inline int __float2int_rn(float f) { return int(nearbyintf(f)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
template <class A, class B>
inline auto min(A a, B b) -> std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>,
                                              std::common_type_t<A, B>> {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>)
    return std::fmin(C(a), C(b));
  else
    return C(a) < C(b) ? C(a) : C(b);
}
template <class A, class B>
inline auto max(A a, B b) -> std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>,
                                              std::common_type_t<A, B>> {
  using C = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<C>)
    return std::fmax(C(a), C(b));
  else
    return C(a) < C(b) ? C(b) : C(a);
}
// the few bf16/half functions the toolkit does not give the host
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __float2bfloat16_rn(fmaf(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return __halves2bfloat162(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}

// ------------------------------------------------------------------ cooperative groups (subset)
namespace cooperative_groups {
struct thread_block {
  void sync(SIM_SITE) const { __syncthreads(site); }
  unsigned thread_rank() const { return unsigned(sim::thread_rank()); }
  unsigned size() const { return blockDim.x * blockDim.y * blockDim.z; }
  dim3 group_index() const { return dim3(blockIdx); }
};
inline thread_block this_thread_block() { return {}; }
template <unsigned N>
struct thread_block_tile {
  static_assert(N <= 32 && (N & (N - 1)) == 0);
  unsigned mask() const {
    return N == 32 ? 0xffffffffu : ((1u << (N % 32)) - 1) << (unsigned(sim::lane_id()) & ~(N - 1));
  }
  static constexpr unsigned size() { return N; }
  static constexpr unsigned num_threads() { return N; }
  unsigned thread_rank() const { return unsigned(sim::lane_id()) & (N - 1); }
  unsigned meta_group_rank() const { return unsigned(sim::thread_rank()) / N; }
  unsigned meta_group_size() const { return (blockDim.x * blockDim.y * blockDim.z + N - 1) / N; }
  void sync(SIM_SITE) const { __syncwarp(mask(), site); }
  template <class T>
  T shfl(T v, int s, SIM_SITE) const {
    return __shfl_sync(mask(), v, s, N, site);
  }
  template <class T>
  T shfl_xor(T v, int s, SIM_SITE) const {
    return __shfl_xor_sync(mask(), v, s, N, site);
  }
  template <class T>
  T shfl_down(T v, unsigned s, SIM_SITE) const {
    return __shfl_down_sync(mask(), v, s, N, site);
  }
  template <class T>
  T shfl_up(T v, unsigned s, SIM_SITE) const {
    return __shfl_up_sync(mask(), v, s, N, site);
  }
  int any(int p, SIM_SITE) const { return __any_sync(mask(), p, site); }
  int all(int p, SIM_SITE) const { return __all_sync(mask(), p, site); }
  unsigned ballot(int p, SIM_SITE) const {
    return __ballot_sync(mask(), p, site) >> (unsigned(sim::lane_id()) & ~(N - 1));
  }
};
template <unsigned N>
inline thread_block_tile<N> tiled_partition(const thread_block&) {
  return {};
}
template <class T = void>
struct plus {
  template <class U>
  U operator()(U a, U b) const {
    return a + b;
  }
};
template <class T = void>
struct greater {
  template <class U>
  U operator()(U a, U b) const {
    return a > b ? a : b;
  }
};
template <class T = void>
struct less {
  template <class U>
  U operator()(U a, U b) const {
    return a < b ? a : b;
  }
};
template <unsigned N, class T, class F>
inline T reduce(const thread_block_tile<N>& t, T v, F f, SIM_SITE) {
  for (unsigned o = N / 2; o; o /= 2) v = f(v, t.shfl_xor(v, int(o), site));
  return v;
}
struct grid_group {
  void sync(SIM_SITE) const { sim::block_barrier(-1, 0, site); }
};
inline grid_group this_grid() { return {}; }
}  // namespace cooperative_groups

template <class T>
inline cudaError_t cudaMemcpyToSymbol(T& sym, const void* src, size_t n, size_t off = 0,
                                      cudaMemcpyKind = cudaMemcpyHostToDevice) {
  std::memcpy(reinterpret_cast<char*>(&sym) + off, src, n);
  return cudaSuccess;
}
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*k)(P...), cudaFuncAttribute a, int v) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(k), a, v);
}
