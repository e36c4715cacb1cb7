// check_impl.h - exact access checker. Kernels are compiled with -fsanitize=thread (the compiler
// then calls __tsan_read4(addr) & co. before each access), but libtsan is NOT linked: the calls
// land here. Finds: data races in shared and global memory (also between blocks), reads of shared
// or device memory nobody wrote, accesses outside every allocation, host pointers used in a kernel.
#pragma once
#ifndef SIM_CHECK
namespace sim {
void enter_runtime() {}
void leave_runtime() {}
void check_range(const void*, size_t, bool, void*) {}
static inline void* new_shadow(size_t) { return nullptr; }
}  // namespace sim
#else
namespace sim {
struct Acc {
  uint32_t gen, clk, lanes, pc;
  uint16_t tid;
  uint8_t many, atomic;
};
struct Cell {
  Acc w, r;
};
static void* new_shadow(size_t n) {
  void* p = mmap(nullptr, n * sizeof(Cell), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p;
}
void enter_runtime() {
  if (S) ++S->quiet;
}
void leave_runtime() {
  if (S) --S->quiet;
}
extern "C" char __executable_start, _end;
static std::string where(uint32_t pc) { return addr2line(&__executable_start + pc, false); }
static uint32_t rel(void* pc) { return uint32_t(static_cast<char*>(pc) - &__executable_start); }
static bool ordered(const Acc& a, const Fiber* f, bool global) {
  const Block& b = *f->blk;
  if (a.gen < g_launch_gen) return true;
  if (a.gen == b.gen) {
    if (a.many || a.tid / 32 != f->lin / 32) return false;
    for (int i = 0; i < 32; ++i)
      if (i != f->lane && a.lanes >> i & 1 && f->warp->vc[f->lane][i] < a.clk) return false;
    return true;
  }
  const uint32_t ob = g_gen_block[a.gen];
  if (ob == b.linear) return true;  // an earlier barrier interval of this block
  if (!global) return true;
  if (ob < g_fences.size() && a.gen <= g_fences[ob].first && g_fences[ob].second <= b.acq_time)
    return true;
  return false;
}
static std::string who(const Acc& a) {
  const uint32_t ob = g_gen_block[a.gen];
  return (a.many ? "several threads, one of them " : "") + std::string("thread ") +
         std::to_string(a.tid) + " of block " + std::to_string(ob) + " at " + where(a.pc);
}
static void access(const char* p, size_t n, bool write, bool atomic, void* pcp) {
  Sched* s = S;
  if (!s || !s->cur || s->quiet) return;
  Fiber* f = s->cur;
  if (p >= f->ctx.lo && p < f->ctx.lo + f->ctx.size) return;
  if (!write && p >= s->args && p < static_cast<char*>(s->args) + s->args_bytes)
    return;  // kernel parameters
  Block& b = *f->blk;
  const uint32_t pc = rel(pcp);
  Cell* cell = nullptr;
  const bool shared = p >= b.arena && p < b.arena + kArena;
  Alloc* al = nullptr;
  const char* what = write ? "write" : "read";
  auto name = [&]() -> std::string {
    if (!shared)
      return "device memory +" + std::to_string(p - al->p) + " of " + std::to_string(al->n) +
             " bytes";
    for (auto& v : b.vars)
      if (p >= v.p && p < v.p + v.bytes)
        return "shared `" + std::string(v.name) + "` byte " + std::to_string(p - v.p);
    return "shared ?";
  };
  auto stop = [&](const std::string& m) {
    ++s->quiet;
    std::string t = m + " at " + where(pc);
    --s->quiet;
    fail(t);
  };
  if (shared) {
    static std::map<char*, Cell*> per;
    static __thread char* last_a = nullptr;
    static __thread Cell* last_c = nullptr;
    if (last_a != b.arena) {
      auto& c = per[b.arena];
      if (!c) c = static_cast<Cell*>(new_shadow(kArena));
      last_a = b.arena;
      last_c = c;
    }
    cell = last_c + (p - b.arena);
    bool in = false;
    for (auto& v : b.vars)
      if (p >= v.p && p + n <= v.p + v.bytes) {
        in = true;
        break;
      }
    if (!in) {
      for (auto& v : b.vars)
        if (p < v.p + v.bytes + kGap && p + n > v.p)
          stop(std::string(what) + " of " + std::to_string(n) + " bytes outside shared `" + v.name +
               "` (byte " + std::to_string(p - v.p) + " of " + std::to_string(v.bytes) + ")");
      stop(std::string(what) + " in shared memory outside every variable");
    }
  } else if ((al = find_alloc(p)) && !al->host) {
    if (p + n > al->p + al->n)
      stop(std::string(what) + " of " + std::to_string(n) +
           " bytes runs past the end of a device allocation of " + std::to_string(al->n) +
           " bytes");
    cell = static_cast<Cell*>(al->shadow) + (p - al->p);
  } else if (al)
    return;  // pinned host memory is reachable from kernels
  else if (p >= &__executable_start && p < &_end)
    return;
  else {
    char* tp = static_cast<char*>(__builtin_thread_pointer());
    if (p > tp - (1 << 16) && p < tp + 4096) return;
    char m[64];
    snprintf(m, sizeof m, "%p", static_cast<const void*>(p));
    stop(std::string(what) + " of " + std::to_string(n) + " bytes at " + m +
         ", which is neither device nor shared memory (host pointer, or out of bounds)");
  }
  const uint32_t bit = 1u << f->lane, clk = f->warp->vc[f->lane][f->lane];
  if (atomic && !shared) b.acq_time = g_time;
  for (size_t i = 0; i < n; ++i) {
    Cell& c = cell[i];
    if (!write || atomic) {
      if (shared ? c.w.gen < b.start_gen : !(al->init[i + size_t(p - al->p)]))
        stop("read of uninitialised " + name());
    }
    if (c.w.gen && !(atomic && c.w.atomic) && !ordered(c.w, f, !shared))
      stop(std::string("data race: ") + what + " of " + name() + " against a write by " + who(c.w));
    if (write) {
      if (c.r.gen && !(atomic && c.r.atomic) && !ordered(c.r, f, !shared))
        stop("data race: write of " + name() + " against a read by " + who(c.r));
      c.w = {b.gen, clk, bit, pc, uint16_t(f->lin), 0, atomic};
      if (!shared) al->init[i + size_t(p - al->p)] = 1;
    } else if (c.r.gen == b.gen && !c.r.many) {
      if (c.r.tid / 32 != f->lin / 32)
        c.r.many = 1;
      else {
        c.r.lanes |= bit;
        c.r.clk = std::max(c.r.clk, clk);
        if (c.r.tid != f->lin) c.r.tid = uint16_t(f->lin);
      }
      c.r.pc = pc;
    } else if (c.r.gen != b.gen) {
      // a reader in another block of this launch must not be forgotten by a later writer
      c.r = {b.gen, clk, bit, pc, uint16_t(f->lin), 0, 0};
    }
  }
}
void check_range(const void* p, size_t n, bool write, void* pc) {
  if (n) access(static_cast<const char*>(p), n, write, false, pc);
}
}  // namespace sim
#define SIM_RA __builtin_return_address(0)
#define SIM_ACC(n)                                                                            \
  extern "C" void __tsan_read##n(void* p) { sim::access((char*)p, n, false, false, SIM_RA); } \
  extern "C" void __tsan_write##n(void* p) { sim::access((char*)p, n, true, false, SIM_RA); } \
  extern "C" void __tsan_unaligned_read##n(void* p) {                                         \
    sim::access((char*)p, n, false, false, SIM_RA);                                           \
  }                                                                                           \
  extern "C" void __tsan_unaligned_write##n(void* p) {                                        \
    sim::access((char*)p, n, true, false, SIM_RA);                                            \
  }                                                                                           \
  extern "C" void __tsan_volatile_read##n(void* p) {                                          \
    sim::access((char*)p, n, false, false, SIM_RA);                                           \
  }                                                                                           \
  extern "C" void __tsan_volatile_write##n(void* p) {                                         \
    sim::access((char*)p, n, true, false, SIM_RA);                                            \
  }
SIM_ACC(1)
SIM_ACC(2) SIM_ACC(4) SIM_ACC(8)
    SIM_ACC(16) extern "C" void __tsan_read_range(void* p, unsigned long n) {
  sim::access((char*)p, n, false, false, SIM_RA);
}
extern "C" void __tsan_write_range(void* p, unsigned long n) {
  sim::access((char*)p, n, true, false, SIM_RA);
}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit(void) {}
extern "C" void __tsan_init(void) {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}
extern "C" void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#define SIM_ATOMIC(bits, T)                                                                    \
  extern "C" T __tsan_atomic##bits##_load(const volatile T* p, int) {                          \
    sim::access((char*)p, sizeof(T), false, true, SIM_RA);                                     \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                               \
  }                                                                                            \
  extern "C" void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                       \
    sim::access((char*)p, sizeof(T), true, true, SIM_RA);                                      \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                            \
  extern "C" T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                      \
    sim::access((char*)p, sizeof(T), true, true, SIM_RA);                                      \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                         \
  }                                                                                            \
  extern "C" T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                       \
    sim::access((char*)p, sizeof(T), true, true, SIM_RA);                                      \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                        \
  }                                                                                            \
  extern "C" bool __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* e, T v, int, \
                                                                int) {                         \
    sim::access((char*)p, sizeof(T), true, true, SIM_RA);                                      \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);    \
  }                                                                                            \
  extern "C" bool __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* e, T v, int,   \
                                                              int) {                           \
    sim::access((char*)p, sizeof(T), true, true, SIM_RA);                                      \
    return __atomic_compare_exchange_n(p, e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);    \
  }
SIM_ATOMIC(8, unsigned char)
SIM_ATOMIC(16, unsigned short) SIM_ATOMIC(32, unsigned) SIM_ATOMIC(64, unsigned long)
#endif
