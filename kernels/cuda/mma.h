// Products of small matrices on tensor cores, by a warp; on the simulated device in plain loops.
#pragma once

#include "kernels/cuda/launch.h"

namespace decalign::inline DECALIGN_REAL {

template <Precision P>
struct InPrecision {};

/// note_flops() counts an operation of tensor cores in tf32, which do 395 TFLOP/s, as so many.
inline constexpr double kTf32 = 67.0 / 395;

/// f(InPrecision<be.precision>()); the build in double knows no other than fp32.
template <class F>
void with_precision([[maybe_unused]] const Cuda& be, F f) {
#ifndef DECALIGN_F64
  if (be.precision == Precision::tf32) return f(InPrecision<Precision::tf32>());
  if (be.precision == Precision::bf16) return f(InPrecision<Precision::bf16>());
#endif
  f(InPrecision<Precision::fp32>());
}

#ifndef DECALIGN_F64

/// c += a b by the 32 lanes of a warp: a [16, kDepth], b [kDepth, 8] rounded to P, c [16, 8] in
/// float. Lane 4 g + t holds the slots t kSlots .. of the depth: of a in rows g ("low") and g + 8
/// ("high"), of b in column g. Which terms of a sum the slots are is the caller's choice, the same
/// for a and b. Of c it holds columns 2 t and 2 t + 1 of row g, then of row g + 8.
template <Precision P>
struct Mma {
  static_assert(P != Precision::fp32);
  static constexpr int kSlots = P == Precision::tf32 ? 2 : 4, kDepth = 4 * kSlots;
  using Slots = float[kSlots];
  struct A {
    uint32_t word[4];
  };
  struct B {
    uint32_t word[2];
  };
  struct C {
    float value[4] = {};
  };

  static __device__ A a(const Slots& low, const Slots& high) {
    return {{word(low, 0), word(high, 0), word(low, 1), word(high, 1)}};
  }
  static __device__ B b(const Slots& column) { return {{word(column, 0), word(column, 1)}}; }
  static __device__ void add(const A& a, const B& b, C& c);
  static __device__ float rounded(float x) {
    static_assert(P == Precision::tf32);
    return __uint_as_float(tf32(x));
  }

 private:
  // Half of the slots, rounded to nearest: one tf32 (ties away from 0) or two bf16 (ties to even).
  static __device__ uint32_t word(const Slots& slots, int half) {
    if constexpr (P == Precision::tf32) {
      return tf32(slots[half]);
    } else {
      return bf16(slots[2 * half], slots[2 * half + 1]);
    }
  }
  static __device__ uint32_t tf32(float x);
  static __device__ uint32_t bf16(float low, float high);
};

#ifdef __CUDACC__

template <Precision P>
__device__ inline uint32_t Mma<P>::tf32(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
template <Precision P>
__device__ inline uint32_t Mma<P>::bf16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
template <Precision P>
__device__ inline void Mma<P>::add(const A& a, const B& b, C& c) {
  float(&v)[4] = c.value;
  if constexpr (P == Precision::tf32)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(v[0]), "+f"(v[1]), "+f"(v[2]), "+f"(v[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]),
          "r"(b.word[1]));
}

#else

template <Precision P>
uint32_t Mma<P>::tf32(float x) {
  return std::isfinite(x) ? (__float_as_uint(x) + 0x1000u) & ~0x1fffu : __float_as_uint(x);
}
template <Precision P>
uint32_t Mma<P>::bf16(float low, float high) {
  const auto half = [](float x) {
    const uint32_t bits = __float_as_uint(x);
    if (std::isnan(x)) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return half(low) | half(high) << 16;
}

template <Precision P>
void Mma<P>::add(const A& a, const B& b, C& c) {
  struct Lane {
    const A& a;
    const B& b;
    C& c;
    // The value in slot j of word w.
    static float slot(uint32_t w, int j) {
      if constexpr (P == Precision::tf32) return __uint_as_float(w);
      return __uint_as_float(j == 0 ? w << 16 : w & 0xffff0000u);
    }
  } lane{a, b, c};
  const auto combine = [](::sim::Lanes& lanes) {
    const auto of = [&](int g, int t) -> Lane& {
      return *static_cast<Lane*>(lanes.payload[4 * g + t]);
    };
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < 8; ++column) {
        float& sum = of(row % 8, column / 2).c.value[row / 8 * 2 + column % 2];
        for (int half = 0; half < 2; ++half)
          for (int t = 0; t < 4; ++t)
            for (int j = 0; j < kSlots / 2; ++j)
              sum += Lane::slot(of(row % 8, t).a.word[2 * half + row / 8], j) *
                     Lane::slot(of(column, t).b.word[half], j);
      }
  };
  ::sim::warp_step("mma", 0xffffffffu, &lane, combine, false, {__builtin_FILE(), __builtin_LINE()});
}

#endif
#endif  // DECALIGN_F64

}  // namespace decalign::inline DECALIGN_REAL
