// The bytes of a stored array in order.
#include "data/byte_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "data/dataset.h"

namespace decalign {
namespace {

constexpr size_t kReleaseStep = size_t(4) << 20;  // bytes read between two releases

}  // namespace

ByteStream::ByteStream(const ArrayView& view, std::string what)
    : view_(view), what_(std::move(what)) {}

void ByteStream::read(std::span<std::byte> out) {
  if (out.empty()) return;
  if (view_.latin1) {
    read_latin1(out);
  } else {
    if (view_.bytes.size() - position_ < out.size()) {
      throw input_error(what_ + ": holds fewer bytes than its shape " + view_.shape_text() +
                        " needs");
    }
    std::memcpy(out.data(), view_.bytes.data() + position_, out.size());
    position_ += out.size();
  }
  if (position_ - released_ >= kReleaseStep) {
    view_.source.release(view_.bytes.subspan(released_, position_ - released_));
    released_ = position_ - 4096;  // a page read in part stays and is released next time
  }
}

void ByteStream::read_latin1(std::span<std::byte> out) {
  const auto* text = reinterpret_cast<const unsigned char*>(view_.bytes.data());
  const size_t size = view_.bytes.size();
  for (std::byte& byte : out) {
    if (position_ >= size) {
      throw input_error(what_ + ": holds fewer bytes than its shape " + view_.shape_text() +
                        " needs");
    }
    const unsigned lead = text[position_];
    if (lead < 0x80) {
      byte = std::byte(lead);
      position_ += 1;
    } else if ((lead == 0xc2 || lead == 0xc3) && position_ + 1 < size &&
               (text[position_ + 1] & 0xc0) == 0x80) {
      byte = std::byte(((lead & 3) << 6) | (text[position_ + 1] & 0x3f));
      position_ += 2;
    } else {
      throw input_error(what_ + ": its bytes are not latin1 text");
    }
  }
}

void ByteStream::finish() {
  if (position_ != view_.bytes.size()) {
    throw input_error(what_ + ": holds more bytes than its shape " + view_.shape_text() + " needs");
  }
  view_.source.release(view_.bytes.subspan(released_));
}

}  // namespace decalign
