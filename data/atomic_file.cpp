// Writing a file that appears whole or not at all.
#include "data/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "data/dataset.h"

namespace decalign {

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  struct stat info {};
  const bool direct = ::stat(path_.c_str(), &info) == 0 && !S_ISREG(info.st_mode);
  temporary_ = direct ? path_ : path_ + ".tmp";
  const int flags = direct ? O_WRONLY : O_WRONLY | O_CREAT | O_TRUNC;
  fd_ = ::open(temporary_.c_str(), flags | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("cannot be written");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (temporary_ != path_) ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what) const {
  throw input_error(path_ + ": " + what + ": " + std::strerror(errno));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  constexpr size_t kMost = size_t(1) << 30;  // one call writes at most 2 GB
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), std::min(bytes.size(), kMost));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot be written");
    bytes = bytes.subspan(size_t(written));
  }
}

void AtomicFile::commit() {
  // A pipe or a device knows no fsync.
  if (::fsync(fd_) != 0 && temporary_ != path_) fail("cannot be written to the disk");
  const int closed = ::close(fd_);
  fd_ = -1;
  if (temporary_ == path_) return;
  if (closed != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    errno = error;
    fail("cannot be written");
  }
}

}  // namespace decalign
