// Vectors of double from vectors of real: sums that must not lose digits.
#pragma once

#include "kernels/cpu/simd.h"

namespace decalign::inline DECALIGN_REAL {

typedef double vdouble __attribute__((vector_size(kVectorBytes)));
constexpr int kWides = int(sizeof(double) / sizeof(real));  // vectors of double in a vector's lanes
constexpr int64_t kWideLanes = kVectorBytes / int64_t(sizeof(double));

/// The lanes of a vreal as doubles.
struct Wide {
  vdouble part[kWides] = {};
};

#ifdef DECALIGN_F64
inline Wide widen(vreal v) { return {{v}}; }
inline vreal narrow(const Wide& w) { return w.part[0]; }
#else
typedef float vhalf __attribute__((vector_size(kVectorBytes / 2)));

namespace wide_detail {
template <int... Lane>
inline vhalf half(vreal v, int offset, std::integer_sequence<int, Lane...>) {
  return offset == 0 ? __builtin_shufflevector(v, v, Lane...)
                     : __builtin_shufflevector(v, v, (Lane + int(kWideLanes))...);
}
template <int... Lane>
inline vreal join(vhalf a, vhalf b, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(a, b, Lane...);
}
}  // namespace wide_detail

inline Wide widen(vreal v) {
  using Lanes = std::make_integer_sequence<int, int(kWideLanes)>;
  return {{__builtin_convertvector(wide_detail::half(v, 0, Lanes{}), vdouble),
           __builtin_convertvector(wide_detail::half(v, 1, Lanes{}), vdouble)}};
}
inline vreal narrow(const Wide& w) {
  return wide_detail::join(__builtin_convertvector(w.part[0], vhalf),
                           __builtin_convertvector(w.part[1], vhalf),
                           std::make_integer_sequence<int, int(kLanes)>{});
}
#endif

inline Wide& operator+=(Wide& a, const Wide& b) {
  for (int i = 0; i < kWides; ++i) a.part[i] += b.part[i];
  return a;
}

inline Wide load_wide(const double* p) {
  Wide w;
  std::memcpy(w.part, p, sizeof(w.part));
  return w;
}
inline void store_wide(double* p, const Wide& w) { std::memcpy(p, w.part, sizeof(w.part)); }

/// The sum over the lanes, in a fixed order.
inline double sum_lanes(const Wide& w) {
  double sum = 0;
  for (int i = 0; i < kWides; ++i)
    for (int64_t lane = 0; lane < kWideLanes; ++lane) sum += w.part[i][lane];
  return sum;
}

}  // namespace decalign::inline DECALIGN_REAL
