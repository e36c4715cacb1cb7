// Stored numbers of any supported type and byte order as doubles.
#include "data/scalar_decode.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace decalign {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian as memory is");

uint8_t swap_bytes(uint8_t x) { return x; }
uint16_t swap_bytes(uint16_t x) { return __builtin_bswap16(x); }
uint32_t swap_bytes(uint32_t x) { return __builtin_bswap32(x); }
uint64_t swap_bytes(uint64_t x) { return __builtin_bswap64(x); }

double half_to_double(uint16_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  if (exponent == 0x1f) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(double(mantissa), -24);
  return sign * std::ldexp(double(mantissa + 0x400), exponent - 25);
}

template <typename Bits, typename Convert>
void decode(const std::byte* raw, int64_t count, bool swapped, double* out, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, raw + size_t(i) * sizeof(Bits), sizeof(Bits));
    out[i] = convert(swapped ? swap_bytes(bits) : bits);
  }
}

template <typename Bits, typename Signed>
void decode_integers(const DType& dtype, const std::byte* raw, int64_t count, double* out) {
  if (dtype.kind == 'i') {
    decode<Bits>(raw, count, dtype.swapped, out, [](Bits b) { return double(Signed(b)); });
  } else {
    decode<Bits>(raw, count, dtype.swapped, out, [](Bits b) { return double(b); });
  }
}

void decode_floats(const DType& dtype, const std::byte* raw, int64_t count, double* out) {
  if (dtype.size == 2) {
    decode<uint16_t>(raw, count, dtype.swapped, out, half_to_double);
  } else if (dtype.size == 4) {
    decode<uint32_t>(raw, count, dtype.swapped, out,
                     [](uint32_t b) { return double(std::bit_cast<float>(b)); });
  } else {
    decode<uint64_t>(raw, count, dtype.swapped, out,
                     [](uint64_t b) { return std::bit_cast<double>(b); });
  }
}

}  // namespace

bool decodable(const DType& dtype) {
  const bool power = dtype.size == 2 || dtype.size == 4 || dtype.size == 8;
  if (dtype.kind == 'f') return power;
  if (dtype.kind == 'i' || dtype.kind == 'u') return power || dtype.size == 1;
  return (dtype.kind == 'b' && dtype.size == 1) || (dtype.kind == 'B' && dtype.size == 2);
}

void decode_scalars(const DType& dtype, const std::byte* raw, int64_t count, double* out) {
  if (dtype.kind == 'f') return decode_floats(dtype, raw, count, out);
  if (dtype.kind == 'b') {
    return decode<uint8_t>(raw, count, false, out, [](uint8_t b) { return b != 0 ? 1.0 : 0.0; });
  }
  if (dtype.kind == 'B') {
    return decode<uint16_t>(raw, count, dtype.swapped, out, [](uint16_t b) {
      return double(std::bit_cast<float>(uint32_t(b) << 16));
    });
  }
  if (dtype.size == 1) return decode_integers<uint8_t, int8_t>(dtype, raw, count, out);
  if (dtype.size == 2) return decode_integers<uint16_t, int16_t>(dtype, raw, count, out);
  if (dtype.size == 4) return decode_integers<uint32_t, int32_t>(dtype, raw, count, out);
  decode_integers<uint64_t, int64_t>(dtype, raw, count, out);
}

}  // namespace decalign
