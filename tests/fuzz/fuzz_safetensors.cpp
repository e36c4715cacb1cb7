// Fuzz target: any bytes as safetensors, every tensor converted, then as a data set.
#include <cstddef>
#include <cstdint>

#include "data/dataset_file.h"
#include "data/safetensors.h"
#include "tests/fuzz/load_options.h"

using namespace decalign;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView source{std::as_bytes(std::span(data, size)), "fuzz.safetensors", nullptr};
  try {
    const Safetensors file(source);
    for (const auto& [name, view] : file.tensors()) {
      (void)file.floats(name);
      (void)file.doubles(name);
      try {
        (void)file.integers(name);
      } catch (const input_error&) {
      }
    }
    (void)file.has("x");
    (void)file.view("x");
  } catch (const input_error&) {
  }
  try {
    check_loaded(load_dataset(source, options_for(size)));
  } catch (const input_error&) {
  }
  return 0;
}
