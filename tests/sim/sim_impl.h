// kc_sim_impl.h - scheduler, shared memory, access checker. Included once, in a file that is
// compiled WITHOUT -fsanitize=thread.
#pragma once
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "internal.h"
#include "sim.h"

#ifndef SIM_CTX  // 0 ucontext, 1 Boost.Context, 2 hand-written (x86-64)
#ifdef __x86_64__
#define SIM_CTX 2
#else
#define SIM_CTX 0
#endif
#endif
#if SIM_CTX == 0
#include <ucontext.h>
#elif SIM_CTX == 1
#include <boost/context/detail/fcontext.hpp>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define SIM_ASAN 1
#else
#define SIM_ASAN 0
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)0)
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define SIM_TSAN 1
#else
#define SIM_TSAN 0
#endif

__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread dim3 blockDim;
__thread dim3 gridDim;

namespace sim {
Config& config() {
  static Config c = [] {
    Config c;
    if (const char* e = getenv("SIM_ORDER"))
      c.order = *e == 'f' ? Order::forward : *e == 'b' ? Order::reverse : Order::random;
    if (const char* e = getenv("SIM_SEED")) c.seed = strtoull(e, nullptr, 0);
    if (const char* e = getenv("SIM_RESIDENT")) c.resident = atoi(e);
    if (const char* e = getenv("SIM_THREADS")) c.os_threads = atoi(e);
    return c;
  }();
  return c;
}

// ------------------------------------------------------------------ context switch
#if SIM_CTX == 2
extern "C" void sim_switch(void** save, void* load);
asm(R"(
.text
.globl sim_switch
.type sim_switch,@function
sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sim_switch,.-sim_switch
)");
#endif
struct Ctx {
#if SIM_CTX == 0
  ucontext_t uc;
#elif SIM_CTX == 1
  boost::context::detail::fcontext_t fc = nullptr;
#else
  void* sp = nullptr;
#endif
  bool made = false;
  const char* lo = nullptr;
  size_t size = 0;
  void* fake = nullptr;
  void* tsan = nullptr;
};
void fiber_entry();
#if SIM_CTX == 1
static __thread Ctx* g_from;
static void boost_entry(boost::context::detail::transfer_t t) {
  g_from->fc = t.fctx;
  fiber_entry();
}
#endif
static void ctx_make(Ctx& c, char* lo, size_t size) {
  ASAN_UNPOISON_MEMORY_REGION(lo, size);
  c.lo = lo;
  c.size = size;
  c.made = true;
  c.fake = nullptr;
#if SIM_CTX == 0
  getcontext(&c.uc);
  c.uc.uc_stack.ss_sp = lo;
  c.uc.uc_stack.ss_size = size;
  c.uc.uc_link = nullptr;
  makecontext(&c.uc, fiber_entry, 0);
#elif SIM_CTX == 1
  c.fc = boost::context::detail::make_fcontext(lo + size, size, boost_entry);
#else
  void** sp =
      reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(lo + size) & ~uintptr_t(15)) - 8);
  *sp = nullptr;  // fake return address: end of the call chain
  *--sp = reinterpret_cast<void*>(&fiber_entry);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  c.sp = sp;
#endif
}
static void finish_switch(Ctx& me);
static inline void ctx_switch(Ctx& from, Ctx& to) {
#if SIM_ASAN
  __sanitizer_start_switch_fiber(&from.fake, to.lo, to.size);
#endif
#if SIM_TSAN
  __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if SIM_CTX == 0
  swapcontext(&from.uc, &to.uc);
#elif SIM_CTX == 1
  g_from = &from;
  auto t = boost::context::detail::jump_fcontext(to.fc, nullptr);
  g_from->fc = t.fctx;
#else
  sim_switch(&from.sp, to.sp);
#endif
  finish_switch(from);
}
static void finish_switch([[maybe_unused]] Ctx& me) {
#if SIM_ASAN
  __sanitizer_finish_switch_fiber(me.fake, nullptr, nullptr);
#endif
}

// happens-before edges for libtsan; a fresh object for every rendezvous
#if SIM_TSAN
static void* sync_object() {
  static char o[1 << 15];
  static unsigned i;
  return &o[(i += 8) % sizeof o];
}
static void hb_release(void* o) { __tsan_release(o); }
static void hb_acquire(void* o) { __tsan_acquire(o); }
#else
static inline void* sync_object() { return nullptr; }
static inline void hb_release(void*) {}
static inline void hb_acquire(void*) {}
#endif

// ------------------------------------------------------------------ structures
enum class St : uint8_t { ready, barrier, warp, done };
struct Copy {
  void* dst;
  const void* src;
  int bytes, valid, group;
  bool now;
};
struct Block;
struct Warp;
struct Fiber {
  Ctx ctx;
  Block* blk = nullptr;
  Warp* warp = nullptr;
  uint3 tid{};
  int lin = 0, lane = 0;
  St st = St::done;
  const char* kind = nullptr;
  uint32_t mask = 0;
  void* payload = nullptr;
  CollFn fn = nullptr;
  bool orders = false;
  int bar_id = 0, vote = 0, groups = 0;
  Site site{};
  std::vector<Copy> copies;
};
struct Warp {
  uint32_t present = 0, exited = 0, waiting = 0;
  Fiber* f[32] = {};
  uint32_t vc[32][32];
};
struct Barrier {
  int arrived = 0, count = 0, ands = 1, ors = 0, sum = 0;
  bool mixed = false;
  Site site{};
  void* so = nullptr;
};
struct Var {
  const void* key;
  const char* name;
  char* p;
  size_t bytes;
};
struct Block {
  uint3 idx{};
  unsigned linear = 0;
  int n = 0, live = 0;
  uint64_t serial = 0;
  Fiber** f = nullptr;
  std::vector<Warp> warps;
  Barrier bar[16];
  char* arena = nullptr;
  size_t used = 0, real = 0, dyn = 0;
  std::vector<Var> vars;
  uint32_t start_gen = 0, gen = 0;  // barrier interval, unique over blocks
  uint64_t acq_time = 0;            // fences this block has seen through an atomic
};
constexpr size_t kGap = 128, kArena = 512 * 1024;
constexpr unsigned char kCanary = 0xA5;
struct Sched {
  Ctx main;
  Fiber* cur = nullptr;
  std::vector<std::unique_ptr<Fiber>> pool;
  std::vector<Fiber*> list, ready;
  size_t head = 0;
  std::vector<Block> blocks;
  std::vector<char*> arenas;
  Barrier grid_bar;
  int running = 0, quiet = 0;
  bool deep = false;  // random order: this interval runs one warp as far as it gets before the next
  uint64_t rng = 1, ticks = 0, idle = 0;
  size_t smem = 0;
  void (*body)(void*) = nullptr;
  void* args = nullptr;
  size_t args_bytes = 0;
  const void* kernel = nullptr;
  std::string error;
  Order order = Order::random;
  uint64_t rand() {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
  }
};
static __thread Sched* S = nullptr;
static std::atomic<uint64_t> g_serial{1};
static std::atomic<uint32_t> g_gen{1};
static std::atomic<uint64_t> g_time{1};
[[maybe_unused]] static uint32_t g_launch_gen = 1;
static std::vector<uint32_t> g_gen_block(
    1 << 16);  // gen -> linear block (single OS thread when checking)
static std::vector<std::pair<uint32_t, uint64_t>>
    g_fences;  // block -> (gen, time) of its last fence
static void new_gen(Block& b) {
  b.gen = ++g_gen;
#ifdef SIM_CHECK
  if (b.gen >= g_gen_block.size()) g_gen_block.resize(b.gen * 2);
  g_gen_block[b.gen] = b.linear;
#endif
}

static std::string u3(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
static const char* base(const char* f) {
  const char* s = f ? strrchr(f, '/') : nullptr;
  return s ? s + 1 : f ? f : "?";
}
static std::string at(Site s) { return std::string(base(s.file)) + ":" + std::to_string(s.line); }
// name of a kernel, or file:line of a code address (innermost frame outside the simulator's
// headers)
static std::string addr2line(const void* pc, bool name) {
  Dl_info di, me;
  if (!dladdr(pc, &di) || !dladdr(reinterpret_cast<void*>(&config), &me)) return "?";
  char self[4096] = {};
  if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) return "?";
  const char* file =
      di.dli_fbase == me.dli_fbase && !strstr(di.dli_fname, ".so") ? self : di.dli_fname;
  char cmd[5000], line[4096];
  std::string r = "?";
  snprintf(cmd, sizeof cmd, "addr2line -i -s %s -e %s 0x%lx 2>/dev/null", name ? "-f -C" : "", file,
           static_cast<unsigned long>(static_cast<const char*>(pc) -
                                      static_cast<const char*>(di.dli_fbase)) -
               !name);
  if (FILE* p = popen(cmd, "r")) {
    while (fgets(line, sizeof line, p)) {
      line[strcspn(line, "\n")] = 0;
      if (name) {
        r = line;
        if (r.find('(') != std::string::npos && r[0] != '(') r.resize(r.rfind('('));
        break;
      }
      line[strcspn(line, " ")] = 0;
      r = line;
      if (strncmp(line, "sim", 3)) break;
    }
    pclose(p);
  }
  return r;
}
static std::string symbol(const void* fn) { return addr2line(fn, true); }
void fail(const std::string& what) {
  Sched* s = S;
  if (!s || !s->cur) throw Error("sim: " + what);
  Fiber* f = s->cur;
  if (s->error.empty())
    s->error = "sim: kernel " + symbol(s->kernel) + ": " + what + " [block " + u3(f->blk->idx) +
               " thread " + u3(f->tid) + "]";
  s->cur = nullptr;
  ctx_switch(f->ctx, s->main);
  abort();
}
int lane_id() { return S->cur->lane; }
int warp_id() { return S->cur->lin / 32; }
int thread_rank() { return S->cur->lin; }

static inline void push(Fiber* f) {
  f->st = St::ready;
  S->ready.push_back(f);
}
static inline Fiber* pick() {
  Sched& s = *S;
  const size_t n = s.ready.size() - s.head;
  if (!n) return nullptr;
  Fiber* f;
  if (s.order == Order::random && !s.deep) {
    const size_t i = s.head + size_t((s.rand() >> 32) * n >> 32);
    std::swap(s.ready[i], s.ready[s.head]);
    f = s.ready[s.head++];
  } else if (s.order == Order::forward)
    f = s.ready[s.head++];
  else {
    f = s.ready.back();
    s.ready.pop_back();
  }  // reverse, and random depth first
  if (s.head == s.ready.size()) {
    s.ready.clear();
    s.head = 0;
  }
  return f;
}
// called when a block (or its barrier) has made all its threads ready
static void shuffle_ready() {
  Sched& s = *S;
  if (s.order != Order::random) return;
  s.deep = s.rand() >> 40 & 1;
  if (s.deep)
    for (size_t i = s.ready.size(); i > s.head + 1; --i)
      std::swap(s.ready[i - 1], s.ready[s.head + size_t((s.rand() >> 32) * (i - s.head) >> 32)]);
}
static inline void enter(Fiber* f) {
  S->cur = f;
  threadIdx = f->tid;
  blockIdx = f->blk->idx;
}
static void next() {  // leave the running thread for any ready one, else for the scheduler
  Sched& s = *S;
  Fiber* me = s.cur;
  Fiber* f = pick();
  if (f == me) return;
  if (!f) {
    s.cur = nullptr;
    ctx_switch(me->ctx, s.main);
  } else {
    enter(f);
    ctx_switch(me->ctx, f->ctx);
  }
}
void yield() {  // only spinning threads get here; progress is anything else that happens
  Sched& s = *S;
  if (++s.idle > config().livelock) fail("livelock: threads spin and nothing else happens");
  if (s.ready.size() == s.head) return;
  push(s.cur);
  next();
}
void maybe_yield() {
  if (!S) return;
  const uint64_t t = ++S->ticks;
  if ((config().random_yield && S->order == Order::random && (t & 15) == 0) || (t & 255) == 0)
    yield();
}

// ------------------------------------------------------------------ warp rendezvous
static void complete(Warp& w, uint32_t need) {
  Lanes l{};
  l.mask = need;
  Fiber* any = nullptr;
  for (int i = 0; i < 32; ++i)
    if (need >> i & 1) {
      l.p[i] = w.f[i]->payload;
      any = w.f[i];
    }
  ++S->quiet;
  if (any->fn) any->fn(l);
  --S->quiet;
  if (any->orders) {
    uint32_t j[32] = {};
    for (int i = 0; i < 32; ++i)
      if (need >> i & 1)
        for (int k = 0; k < 32; ++k) j[k] = std::max(j[k], w.vc[i][k]);
    for (int i = 0; i < 32; ++i)
      if (need >> i & 1) {
        memcpy(w.vc[i], j, sizeof j);
        ++w.vc[i][i];
      }
  }
  w.waiting &= ~need;
  S->idle = 0;
}
static bool try_complete(Warp& w, Fiber* lead, Fiber* self) {
  const uint32_t need = lead->mask & w.present & ~w.exited;
  if ((w.waiting & need) != need) return false;
  for (int i = 0; i < 32; ++i)
    if (need >> i & 1 && (w.f[i]->mask != lead->mask ||
                          (w.f[i]->kind != lead->kind && strcmp(w.f[i]->kind, lead->kind))))
      return false;
  complete(w, need);
  for (int i = 0; i < 32; ++i)
    if (need >> i & 1)
      if (w.f[i] != self) push(w.f[i]);
  return true;
}
void collective(const char* kind, uint32_t mask, void* payload, CollFn fn, bool orders, Site site) {
  Fiber* f = S->cur;
  Warp& w = *f->warp;
  const uint32_t bit = 1u << f->lane;
  if (!(mask & bit))
    fail(std::string(kind) + " at " + at(site) + ": the mask leaves out the calling lane");
  f->kind = kind;
  f->mask = mask;
  f->payload = payload;
  f->fn = fn;
  f->orders = orders;
  f->site = site;
  w.waiting |= bit;
  if (try_complete(w, f, f)) {
    if (S->order != Order::forward) {
      push(f);
      next();
    }
    return;
  }
  f->st = St::warp;
  next();
}

// ------------------------------------------------------------------ block barriers
static void release(Block& b, int id, Barrier& bar) {
  if (bar.mixed)
    fail("threads of the block wait at different barriers: " + at(bar.site) + " and " +
         at(S->cur->site));
  for (int i = 0; i < b.n; ++i)
    if (b.f[i]->st == St::barrier && b.f[i]->bar_id == id) push(b.f[i]);
  bar.arrived = 0;
  S->idle = 0;
  new_gen(b);
  shuffle_ready();
}
static Barrier& arrive(int id, int count, Site site) {
  Sched& s = *S;
  Fiber* f = s.cur;
  Block& b = *f->blk;
  Barrier& bar = id < 0 ? s.grid_bar : b.bar[id];
  f->site = site;
  f->bar_id = id;
  f->st = St::barrier;
  f->kind = "barrier";
  if (bar.arrived++ == 0) {
    bar.site = site;
    bar.mixed = false;
    bar.count = count;
    bar.sum = 0;
    bar.ands = 1;
    bar.ors = 0;
    bar.so = sync_object();
  } else if (id == 0 && (bar.site.line != site.line || strcmp(bar.site.file, site.file)))
    bar.mixed = true;
  return bar;
}
static void wait_or_release(int id, Barrier& bar) {
  Sched& s = *S;
  Fiber* f = s.cur;
  Block& b = *f->blk;
  if (id < 0) {
    int live = 0;
    for (auto& x : s.blocks) live += x.live;
    if (bar.arrived == live) {
      for (auto& x : s.blocks) {
        Barrier t;
        release(x, id, t);
      }
      bar.arrived = 0;
    }
  } else if (bar.count > 0 ? bar.arrived == bar.count : bar.arrived == b.live) {
    if (bar.count <= 0 && b.live != b.n && config().strict_exit)
      fail(std::to_string(b.n - b.live) + " of " + std::to_string(b.n) +
           " threads have exited, the others wait at the barrier at " + at(f->site));
    release(b, id, bar);
  }
  next();
}
void block_barrier(int id, int count, Site site) {
  Barrier& bar = arrive(id, count, site);
  void* so = bar.so;
  hb_release(so);
  wait_or_release(id, bar);
  hb_acquire(so);
}
int block_vote(int pred, int op, Site site) {
  Barrier& bar = arrive(0, 0, site);
  bar.sum += pred;
  bar.ands &= pred;
  bar.ors |= pred;
  Fiber* f = S->cur;
  Block& b = *f->blk;
  if (bar.arrived == b.live)
    for (int i = 0; i < b.n; ++i) b.f[i]->vote = op == 0 ? bar.sum : op == 1 ? bar.ands : bar.ors;
  wait_or_release(0, bar);
  return f->vote;
}
void fence(int scope) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (scope && S && S->cur) {
#ifdef SIM_CHECK
    Block& b = *S->cur->blk;
    g_fences[b.linear] = {b.gen, ++g_time};
#endif
  }
}

// ------------------------------------------------------------------ shared memory
static char* carve(Block& b, size_t bytes, size_t align, const void* key, const char* name) {
  size_t o = (b.used + align - 1) / align * align;
  if (b.real + bytes > config().smem_limit)
    fail("shared memory: " + std::to_string(b.real + bytes) + " bytes are more than " +
         std::to_string(config().smem_limit));
  if (o + bytes + kGap > kArena) fail("shared memory arena is full");
  char* p = b.arena + o;
  ASAN_UNPOISON_MEMORY_REGION(b.arena + b.used, kArena - b.used);
  if (config().poison) memset(p, 0xFF, bytes);
  memset(p + bytes, kCanary, kGap);
  ASAN_POISON_MEMORY_REGION(p + bytes, kArena - size_t(p + bytes - b.arena));
  b.used = o + bytes + kGap;
  b.real += bytes;
  b.vars.push_back({key, name, p, bytes});
  return p;
}
void* shared_var(SharedKey& k, size_t bytes, size_t align, const char* name) {
  Block& b = *S->cur->blk;
  if (k.serial == b.serial) return k.p;
  k.serial = b.serial;
  for (auto& v : b.vars)
    if (v.key == &k) return k.p = v.p;
  return k.p = carve(b, bytes, align, &k, name);
}
void* dyn_shared(size_t) { return S->cur->blk->arena; }
size_t dyn_shared_bytes() { return S->smem; }
uint32_t shared_offset(const void* p) {
  return uint32_t(static_cast<const char*>(p) - S->cur->blk->arena);
}
void* shared_pointer(uint32_t off) { return S->cur->blk->arena + off; }
static void check_canaries(Block& b) {
#if !SIM_ASAN
  for (auto& v : b.vars)
    for (size_t i = 0; i < kGap; ++i)
      if (static_cast<unsigned char>(v.p[v.bytes + i]) != kCanary) {
        S->error = "sim: kernel " + symbol(S->kernel) + ": write past the end of shared `" +
                   v.name + "` (" + std::to_string(v.bytes) + " bytes) at byte " +
                   std::to_string(v.bytes + i) + " [block " + u3(b.idx) + "]";
        return;
      }
#else
  (void)b;
#endif
}

// ------------------------------------------------------------------ cp.async: early or late, by
// coin
void check_range(const void* p, size_t n, bool write, void* pc);
static void perform(const Copy& c) {
  memcpy(c.dst, c.src, size_t(c.valid));
  memset(static_cast<char*>(c.dst) + c.valid, 0, size_t(c.bytes - c.valid));
}
void cp_async(void* dst, const void* src, int bytes, int valid) {
  Fiber* f = S->cur;
  if (reinterpret_cast<uintptr_t>(dst) % unsigned(bytes) ||
      (valid && reinterpret_cast<uintptr_t>(src) % unsigned(bytes)))
    fail("cp.async: misaligned address");
  void* pc = __builtin_return_address(0);
  check_range(dst, size_t(bytes), true, pc);
  check_range(src, size_t(valid), false, pc);
  Copy c{dst, src, bytes, valid, f->groups, S->order == Order::random && (S->rand() & 1)};
  if (c.now)
    perform(c);
  else {
    memset(dst, 0xFF, size_t(bytes));
    f->copies.push_back(c);
  }
}
void cp_async_commit() { ++S->cur->groups; }
void cp_async_wait(int keep) {
  Fiber* f = S->cur;
  size_t o = 0;
  for (auto& c : f->copies)
    if (c.group < f->groups - keep)
      perform(c);
    else
      f->copies[o++] = c;
  f->copies.resize(o);
}

// ------------------------------------------------------------------ running a grid
static void thread_exit() {
  Fiber* f = S->cur;
  Block& b = *f->blk;
  Warp& w = *f->warp;
  for (auto& c : f->copies) perform(c);
  f->copies.clear();
  f->groups = 0;
  f->st = St::done;
  w.exited |= 1u << f->lane;
  --b.live;
  --S->running;
  S->idle = 0;
  for (int i = 0; w.waiting && i < 32; ++i)
    if (w.waiting >> i & 1) try_complete(w, w.f[i], nullptr);
  Barrier& bar = b.bar[0];
  if (bar.arrived && bar.count <= 0 && bar.arrived == b.live) {
    if (config().strict_exit)
      fail(std::to_string(b.n - b.live) + " of " + std::to_string(b.n) +
           " threads have exited, the others wait at the barrier at " + at(bar.site));
    release(b, 0, bar);
  }
  next();
}
void fiber_entry() {
  finish_switch(S->cur->ctx);
  for (;;) {
    S->body(S->args);
    thread_exit();
  }
}
static std::string deadlock_report() {
  std::map<std::string, std::pair<int, std::string>> g;
  int done = 0, n = 0;
  for (auto* f : S->list) {
    ++n;
    if (f->st == St::done) {
      ++done;
      continue;
    }
    char m[32];
    snprintf(m, sizeof m, " mask %08x", f->mask);
    auto& e = g[std::string(f->kind) + (f->st == St::warp ? m : "") + " at " + at(f->site)];
    if (!e.first++) e.second = u3(f->blk->idx) + u3(f->tid);
  }
  std::string r =
      "deadlock: " + std::to_string(done) + " of " + std::to_string(n) + " threads have exited";
  for (auto& [k, v] : g)
    r += "; " + std::to_string(v.first) + " wait in " + k + " (first: block,thread " + v.second +
         ")";
  return r;
}
static char* new_stack(size_t size, size_t i) {
  const size_t page = 4096;
  char* m = static_cast<char*>(mmap(nullptr, size + page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (m == MAP_FAILED) throw std::bad_alloc();
  mprotect(m, page, PROT_NONE);
  (void)i;
  return m + page;
}
static void ready_block(Sched& s, Block& b, unsigned linear, dim3 grid, dim3 dim, size_t slot) {
  const int n = int(dim.x * dim.y * dim.z);
  while (s.arenas.size() <= slot)
    s.arenas.push_back(static_cast<char*>(aligned_alloc(1024, kArena)));
  b.arena = s.arenas[slot];
  b.linear = linear;
  b.idx = {linear % grid.x, linear / grid.x % grid.y, linear / grid.x / grid.y};
  b.n = b.live = n;
  b.serial = g_serial++;
  b.used = b.real = 0;
  b.vars.clear();
  b.dyn = s.smem;
  b.acq_time = 0;
  for (auto& x : b.bar) x.arrived = 0;
  new_gen(b);
  b.start_gen = b.gen;
  b.f = &s.list[slot * size_t(n)];
  b.warps.resize(size_t(n + 31) / 32);
  ASAN_UNPOISON_MEMORY_REGION(b.arena, kArena);
  for (auto& w : b.warps) {
    w.present = w.exited = w.waiting = 0;
#ifdef SIM_CHECK
    for (auto& r : w.vc)
      for (auto& x : r) x = 0;
    for (int i = 0; i < 32; ++i) w.vc[i][i] = 1;
#endif
  }
  for (int i = 0; i < n; ++i) {
    Fiber* f = b.f[i];
    f->blk = &b;
    f->lin = i;
    f->lane = i % 32;
    f->warp = &b.warps[size_t(i / 32)];
    f->warp->present |= 1u << f->lane;
    f->warp->f[f->lane] = f;
    f->tid = {unsigned(i) % dim.x, unsigned(i) / dim.x % dim.y, unsigned(i) / dim.x / dim.y};
    push(f);
  }
  s.running += n;
}
static void run_some(Sched& s, dim3 grid, dim3 dim, const std::vector<unsigned>& which, size_t lo,
                     size_t hi, bool together) {
  const size_t n = dim.x * dim.y * dim.z,
               res = together ? hi - lo : size_t(std::max(1, config().resident));
  S = &s;
#if SIM_ASAN
  pthread_attr_t at;
  void* lo_ = nullptr;
  size_t sz_ = 0;
  pthread_getattr_np(pthread_self(), &at);
  pthread_attr_getstack(&at, &lo_, &sz_);
  pthread_attr_destroy(&at);
  s.main.lo = static_cast<char*>(lo_);
  s.main.size = sz_;
#endif
  while (s.pool.size() < n * res) {
    auto f = std::make_unique<Fiber>();
    const size_t i = s.pool.size(), size = config().stack;
    f->ctx.lo = new_stack(size, i);
    f->ctx.size = size;
    s.pool.push_back(std::move(f));
  }
  s.list.clear();
  for (size_t i = 0; i < n * res; ++i) {
    Fiber* f = s.pool[i].get();
    // stacks start at different cache sets
    if (!f->ctx.made) {
      f->ctx.size = config().stack;
      ctx_make(f->ctx, const_cast<char*>(f->ctx.lo), f->ctx.size - (i % 31) * 192);
#if SIM_TSAN
      if (!f->ctx.tsan) f->ctx.tsan = __tsan_create_fiber(0);
#endif
    }
    s.list.push_back(f);
  }
#if SIM_TSAN
  s.main.tsan = __tsan_get_current_fiber();
#endif
  if (s.blocks.size() < res) s.blocks.resize(res);
  s.blocks.resize(res);
  blockDim = dim;
  gridDim = grid;
  for (size_t i = lo; i < hi; i += res) {
    const size_t k = std::min(res, hi - i);
    s.ready.clear();
    s.head = 0;
    s.running = 0;
    s.grid_bar.arrived = 0;
    s.error.clear();
    for (auto& b : s.blocks) b.live = 0;
    for (size_t j = 0; j < k; ++j) {
      ready_block(s, s.blocks[j], which[i + j], grid, dim, j);
      if (s.smem) carve(s.blocks[j], s.smem, 128, &s, "dynamic shared memory");
    }
    shuffle_ready();
    Fiber* f = pick();
    enter(f);
    ctx_switch(s.main, f->ctx);
    s.cur = nullptr;
    if (s.error.empty() && s.running)
      s.error = "sim: kernel " + symbol(s.kernel) + ": " + deadlock_report();
    if (s.error.empty())
      for (size_t j = 0; j < k; ++j) check_canaries(s.blocks[j]);
    if (!s.error.empty()) {  // give the stacks up: their threads never return
      for (auto* f : s.list) {
        f->ctx.made = false;
        f->copies.clear();
        f->groups = 0;
        f->st = St::done;
      }
      throw Error(s.error);
    }
  }
}
static Sched& sched(size_t i) {
  static std::vector<std::unique_ptr<Sched>> all;
  while (all.size() <= i) all.push_back(std::make_unique<Sched>());
  return *all[i];
}
void run_grid(dim3 grid, dim3 dim, size_t smem, void (*body)(void*), void* args, size_t args_bytes,
              bool coop, const void* kernel) {
  static std::recursive_mutex m;
  std::lock_guard<std::recursive_mutex> lock(m);
  static uint64_t launches = 0;
  const Config& c = config();
  std::vector<unsigned> which(size_t(grid.x) * grid.y * grid.z);
  for (size_t i = 0; i < which.size(); ++i) which[i] = unsigned(i);
  uint64_t seed = (c.seed * 0x9E3779B97F4A7C15ull) ^ (++launches * 0xBF58476D1CE4E5B9ull);
  if (!seed) seed = 1;
  Sched& s0 = sched(0);
  s0.rng = seed;
  if (c.order == Order::reverse) std::reverse(which.begin(), which.end());
  if (c.order == Order::random)
    for (size_t i = which.size(); i > 1; --i) std::swap(which[i - 1], which[s0.rand() % i]);
  size_t nt = coop ? 1 : std::min<size_t>(size_t(std::max(1, c.os_threads)), which.size());
#ifdef SIM_CHECK
  nt = 1;
  g_launch_gen = ++g_gen;
  g_fences.assign(which.size(), {0, UINT64_MAX});
#endif
  auto prep = [&](Sched& s, uint64_t k) {
    s.rng = seed + k * 0x94D049BB133111EBull;
    if (!s.rng) s.rng = 1;
    s.order = c.order;
    s.smem = smem;
    s.body = body;
    s.args = args;
    s.args_bytes = args_bytes;
    s.kernel = kernel;
  };
  if (nt == 1) {
    prep(s0, 0);
    Sched* keep = S;
    struct R {
      Sched* k;
      ~R() { S = k; }
    } r{keep};
    run_some(s0, grid, dim, which, 0, which.size(), coop);
    return;
  }
  for (size_t t = 0; t < nt; ++t) prep(sched(t), t);
  std::vector<std::thread> th;
  std::vector<std::string> err(nt);
  for (size_t t = 0; t < nt; ++t)
    th.emplace_back([&, t] {
      try {
        run_some(sched(t), grid, dim, which, which.size() * t / nt, which.size() * (t + 1) / nt,
                 false);
      } catch (const std::exception& e) {
        err[t] = e.what();
      }
    });
  for (auto& t : th) t.join();
  for (auto& e : err)
    if (!e.empty()) throw Error(e);
}
}  // namespace sim
#include "check_impl.h"
#include "rt_impl.h"
