// Fuzz target: any bytes as a pickle, every value looked at, then as an MMSA data set.
#include <cstddef>
#include <cstdint>

#include "data/mmsa.h"
#include "data/pickle.h"
#include "tests/fuzz/load_options.h"

namespace {

using namespace decalign;

/// Looks at a value and what is below it; `budget` bounds the work, for values may contain
/// themselves.
void touch(const PickleDocument& document, PickleDocument::Handle handle, int& budget) {
  if (--budget <= 0) return;
  try {
    (void)document.describe(handle);
    (void)document.number(handle);
    (void)document.text(handle);
    if (const auto array = document.array(handle); array && array->dtype.text()) {
      (void)read_texts(*array, "array");
    } else if (array) {
      (void)read_floats(*array, "array");
    }
  } catch (const input_error&) {
  }
  if (const auto items = document.items(handle)) {
    for (const auto item : *items) {
      if (budget <= 0) return;
      touch(document, item, budget);
    }
  }
  for (const auto& [key, value] : document.entries(handle)) {
    if (budget <= 0) return;
    (void)document.find(handle, key);
    touch(document, value, budget);
  }
}

void load(const ByteView& source) {
  try {
    check_loaded(load_mmsa(source, options_for(source.bytes.size())));
  } catch (const input_error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteView source{std::as_bytes(std::span(data, size)), "fuzz.pkl", nullptr};
  try {
    const PickleDocument document(source);
    int budget = 200;
    touch(document, document.root(), budget);
  } catch (const input_error&) {
    return 0;
  }
  load(source);
  return 0;
}
