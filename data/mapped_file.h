// Read-only memory-mapped files, and byte views that carry a name for messages.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace decalign {

/// A regular file mapped read-only for the life of the object. Pages are read when touched.
class MappedFile {
 public:
  /// Throws input_error naming the file if it cannot be opened or mapped, or is not a regular file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  /// Gives the whole pages inside `range` (a part of bytes()) back to the system: they leave the
  /// resident memory and are read again if touched again.
  void release(std::span<const std::byte> range) const;

 private:
  std::span<const std::byte> bytes_;
};

/// Bytes to parse, with the name that messages use. The owner of the bytes must outlive it.
struct ByteView {
  std::span<const std::byte> bytes;
  std::string name;
  const MappedFile* mapped = nullptr;  ///< set if `bytes` belong to a mapped file

  void release(std::span<const std::byte> range) const {
    if (mapped != nullptr) mapped->release(range);
  }
};

/// The whole of a mapped file under the name `path`.
inline ByteView view_of(const MappedFile& file, std::string path) {
  return {file.bytes(), std::move(path), &file};
}

}  // namespace decalign
