// The bytes of a stored array in order, undoing the Latin-1 coding and releasing pages that were
// read.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "data/array_view.h"

namespace decalign {

/// Reads an array's bytes from the first to the last.
class ByteStream {
 public:
  /// `view` must outlive the stream; `what` names the array in messages.
  ByteStream(const ArrayView& view, std::string what);

  /// Fills `out` with the next bytes. Throws input_error if fewer are left or the coding is broken.
  void read(std::span<std::byte> out);

  /// Releases what is left. Throws input_error if bytes were left.
  void finish();

 private:
  void read_latin1(std::span<std::byte> out);

  const ArrayView& view_;
  std::string what_;
  size_t position_ = 0;
  size_t released_ = 0;
};

}  // namespace decalign
