// Stored numbers of any supported type and byte order as doubles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "data/array_view.h"

namespace decalign {

/// Whether `dtype` is one decode_scalars knows: f2 f4 f8, bf16, i and u of 1, 2, 4, 8 bytes, bool.
bool decodable(const DType& dtype);

/// out[i] = element i of `raw`, `count` elements; dtype must be decodable. int64 beyond 2^53
/// rounds.
void decode_scalars(const DType& dtype, const std::byte* raw, int64_t count, double* out);

}  // namespace decalign
