// Vocabulary shared by every kernel: scalar type, span aliases, shapes, checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

// The same sources compile twice, as float and, with DECALIGN_F64, as double (gradient checks,
// parity). Each precision is an inline namespace of its own, so that one program can link both.
#ifdef DECALIGN_F64
#define DECALIGN_REAL f64
#else
#define DECALIGN_REAL f32
#endif

namespace decalign::inline DECALIGN_REAL {

#ifdef DECALIGN_F64
using real = double;
#else
using real = float;
#endif

using In = std::span<const real>;      // read only
using Out = std::span<real>;           // every element overwritten
using InOut = std::span<real>;         // added to; an empty span means "skip this output"
using Scratch = std::span<std::byte>;  // the caller's work space, 64-byte aligned, contents
                                       // undefined before and after

/// Throws std::invalid_argument naming `what` unless `ok`.
inline void expect(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

}  // namespace decalign::inline DECALIGN_REAL
