// rt_impl.h - the subset of the CUDA runtime API that the library uses, defined here against the
// toolkit's own header, so host code is the same in both builds (this one does not link libcudart).
// Streams: SIM_STREAMS=eager runs every operation at the call; lazy (default) queues it and runs
// it as late as a synchronisation allows, interleaving streams at random by the seed.
#pragma once
#include <chrono>
#include <deque>
#include <functional>
struct CUevent_st {
  uint64_t recorded = 0, done = 0;
  struct CUstream_st* on = nullptr;
  double t = 0;
};
struct CUgraph_st {
  struct Node {
    std::function<void()> f;
  };
  std::vector<Node> ops;
};
struct CUgraphExec_st {
  std::vector<CUgraph_st::Node> ops;
};
struct CUstream_st {
  struct Op {
    std::function<void()> f;
    CUevent_st* wait = nullptr;
    uint64_t seq = 0;
    CUevent_st* rec = nullptr;
  };
  std::deque<Op> q;
  bool nonblocking = false;
  CUgraph_st* capture = nullptr;
  bool owner = false;
};
namespace sim {
// Made on first use and never destroyed: tests keep device memory in objects of static life.
static std::map<const char*, Alloc>& allocs() {
  static auto* m = new std::map<const char*, Alloc>;
  return *m;
}
static Alloc* g_hit = nullptr;
static size_t g_device_bytes = 0;
static thread_local cudaError_t g_last = cudaSuccess;
static cudaError_t g_sticky = cudaSuccess;
static std::vector<CUstream_st*>& streams() {
  static auto* v = new std::vector<CUstream_st*>;
  return *v;
}
static CUstream_st& null_stream() {
  static auto* s = new CUstream_st;
  return *s;
}
static std::map<const void*, int>& max_dynamic() {
  static auto* m = new std::map<const void*, int>;
  return *m;
}
static uint64_t g_rng = 88172645463325252ull;
static bool lazy() {
  static const bool l = [] {
    const char* e = getenv("SIM_STREAMS");
    return !e || *e != 'e';
  }();
  return l;
}
std::string last_message;
Alloc* find_alloc(const void* p) {
  const char* c = static_cast<const char*>(p);
  if (g_hit && c >= g_hit->p && c < g_hit->p + g_hit->n) return g_hit;
  auto it = allocs().upper_bound(c);
  if (it == allocs().begin()) return nullptr;
  --it;
  if (c >= it->second.p + it->second.n) return nullptr;
  return g_hit = &it->second;
}
void mark_init([[maybe_unused]] const void* p, [[maybe_unused]] size_t n) {
#ifdef SIM_CHECK
  if (Alloc* a = find_alloc(p))
    if (!a->host) memset(a->init + (static_cast<const char*>(p) - a->p), 1, n);
#endif
}
static cudaError_t set(cudaError_t e) {
  if (e) g_last = e;
  return e;
}
static cudaError_t alloc(void** out, size_t n, bool host) {
  *out = nullptr;
  if (!n) return cudaSuccess;
  char* p = static_cast<char*>(::aligned_alloc(256, (n + 255) / 256 * 256));
  if (!p) return set(cudaErrorMemoryAllocation);
  if (config().poison) memset(p, 0xFF, n);
  ASAN_POISON_MEMORY_REGION(p + n, (n + 255) / 256 * 256 - n);
  Alloc a{p, n, host, nullptr, nullptr};
#ifdef SIM_CHECK
  if (!host) {
    a.init = static_cast<unsigned char*>(calloc(n, 1));
    a.shadow = new_shadow(n);
  }
#endif
  allocs()[p] = a;
  g_hit = nullptr;
  if (!host) g_device_bytes += n;
  *out = p;
  return cudaSuccess;
}
static cudaError_t release(void* p) {
  if (!p) return cudaSuccess;
  auto it = allocs().find(static_cast<char*>(p));
  if (it == allocs().end()) return set(cudaErrorInvalidValue);
  Alloc a = it->second;
  allocs().erase(it);
  g_hit = nullptr;
  if (!a.host) g_device_bytes -= a.n;
  ASAN_UNPOISON_MEMORY_REGION(p, (a.n + 255) / 256 * 256);
#ifdef SIM_CHECK
  ::free(a.init);
  if (a.shadow) munmap(a.shadow, a.n * sizeof(Cell));
#endif
  ::free(p);
  return cudaSuccess;
}
static bool runnable(CUstream_st* s) {
  return !s->q.empty() && (!s->q.front().wait || s->q.front().wait->done >= s->q.front().seq);
}
static void step(CUstream_st* s) {
  auto op = std::move(s->q.front());
  s->q.pop_front();
  if (op.f && !g_sticky) try {
      op.f();
    } catch (const Error& e) {
      last_message = e.what();
      fprintf(stderr, "%s\n", e.what());
      g_sticky = cudaErrorLaunchFailure;
    }
  if (op.rec) {
    op.rec->done = op.seq;
    op.rec->t = std::chrono::duration<double, std::milli>(
                    std::chrono::steady_clock::now().time_since_epoch())
                    .count();
  }
}
template <class Done>
static cudaError_t drain(Done done, CUstream_st* prefer = nullptr) {
  static const bool once = [] {
    g_rng ^= config().seed * 0x9E3779B97F4A7C15ull;
    if (!g_rng) g_rng = 1;
    return true;
  }();
  (void)once;
  g_rng ^= g_rng << 13;
  g_rng ^= g_rng >> 7;
  g_rng ^= g_rng << 17;
  const bool late = g_rng >> 33 & 1;  // run nothing that is not asked for
  while (!done()) {
    if (late && prefer && runnable(prefer)) {
      step(prefer);
      continue;
    }
    CUstream_st* r[64];
    size_t n = 0;
    for (auto* s : streams())
      if (n < 64 && runnable(s)) r[n++] = s;
    if (!n) return set(cudaErrorLaunchTimeout);  // streams wait for each other for ever
    g_rng ^= g_rng << 13;
    g_rng ^= g_rng >> 7;
    g_rng ^= g_rng << 17;
    step(r[g_rng % n]);
  }
  return g_sticky ? set(g_sticky) : cudaSuccess;
}
static CUstream_st* str(cudaStream_t s) {
  return !s || s == cudaStreamLegacy || s == cudaStreamPerThread ? &null_stream() : s;
}
static cudaError_t submit(cudaStream_t h, CUstream_st::Op op) {
  CUstream_st* s = str(h);
  if (s->capture) {
    if (op.f) s->capture->ops.push_back({std::move(op.f)});
    return cudaSuccess;
  }
  if (g_sticky) return set(g_sticky);
  if (s == &null_stream()) {  // legacy default stream: in order with every blocking stream
    if (cudaError_t e = drain([] {
          for (auto* t : streams())
            if (!t->nonblocking && !t->q.empty()) return false;
          return true;
        }))
      return e;
    s->q.push_back(std::move(op));
    step(s);
    return g_sticky ? set(g_sticky) : cudaSuccess;
  }
  s->q.push_back(std::move(op));
  if (!lazy()) return drain([s] { return s->q.empty(); });
  return cudaSuccess;
}
cudaError_t enqueue_kernel(dim3 g, dim3 b, size_t smem, cudaStream_t s, const void* fn,
                           void (*run)(void*), void* c, size_t cn, void (*drop)(void*), bool coop) {
  std::shared_ptr<void> keep(c, drop);
  if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z || b.x > 1024 || b.y > 1024 || b.z > 64 ||
      uint64_t(b.x) * b.y * b.z > 1024 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
    return set(cudaErrorInvalidConfiguration);
  const auto it = max_dynamic().find(fn);
  if (smem > (it == max_dynamic().end() ? 48u * 1024 : size_t(it->second)))
    return set(cudaErrorInvalidValue);
  return submit(s, {[=] { run_grid(g, b, smem, run, keep.get(), cn, coop, fn); }});
}
static cudaError_t copy(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t st,
                        bool async) {
  const Alloc *da = find_alloc(d), *sa = find_alloc(s);
  const bool dd = da && !da->host, sd = sa && !sa->host;
  if ((k == cudaMemcpyHostToDevice && (!dd || sd)) ||
      (k == cudaMemcpyDeviceToHost && (dd || !sd)) ||
      (k == cudaMemcpyDeviceToDevice && !(dd && sd)))
    return set(cudaErrorInvalidValue);
  if ((da && static_cast<char*>(d) + n > da->p + da->n) ||
      (sa && static_cast<const char*>(s) + n > sa->p + sa->n))
    return set(cudaErrorInvalidValue);
  if (async && !sa && !dd) async = false;
  if (async && !sa && dd && !str(st)->capture) {  // pageable source: staged at the call
    auto tmp = std::make_shared<std::vector<char>>(static_cast<const char*>(s),
                                                   static_cast<const char*>(s) + n);
    return submit(st, {[=] {
                    memcpy(d, tmp->data(), n);
                    mark_init(d, n);
                  }});
  }
  if (async)
    return submit(st, {[=] {
                    memcpy(d, s, n);
                    mark_init(d, n);
                  }});
  if (cudaError_t e = submit(st, {[=] {
                               memcpy(d, s, n);
                               mark_init(d, n);
                             }}))
    return e;
  return cudaStreamSynchronize(st);
}
}  // namespace sim
extern "C" {
using namespace sim;
cudaError_t cudaMalloc(void** p, size_t n) { return alloc(p, n, false); }
// Managed memory: the device's, which the host may write at any time.
cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) {
  if (cudaError_t e = alloc(p, n, false)) return e;
  memset(*p, 0, n);
  mark_init(*p, n);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t n) { return alloc(p, n, true); }
cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return alloc(p, n, true); }
cudaError_t cudaFree(void* p) {
  if (cudaError_t e = cudaDeviceSynchronize()) return e;
  return release(p);
}
cudaError_t cudaFreeHost(void* p) {
  if (cudaError_t e = cudaDeviceSynchronize()) return e;
  return release(p);
}
cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) { return alloc(p, n, false); }
cudaError_t cudaFreeAsync(void* p, cudaStream_t s) {
  return submit(s, {[=] { release(p); }});
}
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind k) {
  return copy(d, s, n, k, nullptr, false);
}
cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t st) {
  return copy(d, s, n, k, st, true);
}
cudaError_t cudaMemset(void* d, int v, size_t n) {
  return submit(nullptr, {[=] {
                  memset(d, v, n);
                  mark_init(d, n);
                }});
}
cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t st) {
  return submit(st, {[=] {
                  memset(d, v, n);
                  mark_init(d, n);
                }});
}
cudaError_t cudaMemGetInfo(size_t* f, size_t* t) {
  *t = size_t(1) << 34;
  *f = *t - g_device_bytes;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned fl) {
  *s = new CUstream_st;
  (*s)->nonblocking = fl & cudaStreamNonBlocking;
  streams().push_back(*s);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, 0); }
cudaError_t cudaStreamSynchronize(cudaStream_t h) {
  CUstream_st* s = str(h);
  if (s->capture) return set(cudaErrorStreamCaptureUnsupported);
  return drain([s] { return s->q.empty(); }, s);
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
  cudaError_t e = cudaStreamSynchronize(s);
  streams().erase(std::find(streams().begin(), streams().end(), s));
  delete s;
  return e;
}
cudaError_t cudaStreamQuery(cudaStream_t s) {
  return str(s)->q.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  for (auto* s : streams())
    if (s->capture) return set(cudaErrorStreamCaptureUnsupported);
  return drain([] {
    for (auto* t : streams())
      if (!t->q.empty()) return false;
    return true;
  });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  *e = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) {
  *e = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  cudaEventSynchronize(e);
  delete e;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  e->on = str(s);
  if (e->on->capture) return cudaSuccess;
  CUstream_st::Op op;
  op.rec = e;
  op.seq = ++e->recorded;
  return submit(s, std::move(op));
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  const uint64_t n = e->recorded;
  return drain([=] { return e->done >= n; });
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  return e->done >= e->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  if (a->done < a->recorded || b->done < b->recorded) return cudaErrorNotReady;
  *ms = float(b->t - a->t);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  CUstream_st* t = str(s);
  if (e->on && e->on->capture) {
    t->capture = e->on->capture;
    return cudaSuccess;
  }  // the stream joins the capture
  if (!e->recorded) return cudaSuccess;
  CUstream_st::Op op;
  op.wait = e;
  op.seq = e->recorded;
  return submit(s, std::move(op));
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  if (!s) return set(cudaErrorStreamCaptureUnsupported);
  s->capture = new CUgraph_st;
  s->owner = true;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* st) {
  *st = str(s)->capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  *g = s->capture;
  for (auto* t : streams())
    if (t->capture == *g) t->capture = nullptr;
  s->owner = false;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* x, cudaGraph_t g, unsigned long long) {
  *x = new CUgraphExec_st{g->ops};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
  for (auto& n : x->ops) {
    CUstream_st::Op op;
    op.f = n.f;
    if (cudaError_t e = submit(s, std::move(op))) return e;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t*, size_t* n) {
  *n = g->ops.size();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
  delete g;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
  delete x;
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void* u) {
  return submit(s, {[=] { f(u); }});
}
cudaError_t cudaGetLastError() {
  cudaError_t e = g_last;
  g_last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() { return g_last; }
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaErrorLaunchFailure ? last_message.c_str()
         : e                         ? "CUDA error (simulated)"
                                     : "no error";
}
const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
cudaError_t cudaGetDevice(int* d) {
  *d = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) { return d ? set(cudaErrorInvalidDevice) : cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = cudaDeviceProp{};
  strcpy(p->name, "simulated device");
  p->totalGlobalMem = size_t(1) << 34;
  p->major = 9;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  *v = a == cudaDevAttrMultiProcessorCount            ? 132
       : a == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 232448
       : a == cudaDevAttrComputeCapabilityMajor       ? 9
       : a == cudaDevAttrWarpSize                     ? 32
                                                      : 0;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* f, cudaFuncAttribute a, int v) {
  if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (v > 232448) return set(cudaErrorInvalidValue);
    max_dynamic()[f] = v;
  }
  return cudaSuccess;
}
cudaError_t simReset() {
  for (auto* s : streams()) s->q.clear();
  g_sticky = g_last = cudaSuccess;
  return cudaSuccess;
}  // test support
}
