// Writing a file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace decalign {

/// Writes to PATH.tmp; commit() flushes it to the disk and renames it to PATH. Without commit() the
/// temporary file is removed and what was at PATH stays. Something at PATH that is no regular file
/// (a pipe, a device) is written directly. Every failure is an input_error naming PATH.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_;
  std::string temporary_;  // where the bytes go
  int fd_ = -1;
};

}  // namespace decalign
