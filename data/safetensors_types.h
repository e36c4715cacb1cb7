// Names of element types in safetensors files.
#pragma once

#include <string_view>

#include "data/array_view.h"

namespace decalign {

/// "F32" -> float of 4 bytes; size 0 for an unknown name.
inline DType safetensors_dtype(std::string_view name) {
  if (name == "BOOL") return {'b', 1, false};
  if (name == "BF16") return {'B', 2, false};
  char kind = 'V';
  if (name.starts_with('F')) kind = 'f';
  if (name.starts_with('I')) kind = 'i';
  if (name.starts_with('U')) kind = 'u';
  const std::string_view bits = name.empty() ? name : name.substr(1);
  int64_t size = 0;
  if (bits == "8" && kind != 'f') size = 1;
  if (bits == "16") size = 2;
  if (bits == "32") size = 4;
  if (bits == "64") size = 8;
  return kind == 'V' ? DType{} : DType{kind, size, false};
}

}  // namespace decalign
