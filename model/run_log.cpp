#include "model/run_log.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>

#include "data/dataset.h"

namespace decalign {

RunLog::RunLog(const std::string& path, bool quiet)
    : quiet_(quiet), terminal_(isatty(STDOUT_FILENO) != 0), last_(Clock::now()) {
  if (path.empty()) return;
  file_.open(path, std::ios::app);
  if (!file_) throw input_error(path + ": cannot be written");
}

void RunLog::clear_progress() {
  if (showing_) std::fputs("\r\033[K", stdout);
  showing_ = false;
}

void RunLog::line(const std::string& text) {
  clear_progress();
  if (!quiet_) {
    std::puts(text.c_str());
    std::fflush(stdout);
  }
  if (file_.is_open()) file_ << text << std::endl;
}

void RunLog::progress(const std::string& text) {
  if (quiet_) return;
  const auto now = Clock::now();
  if (terminal_) {
    if (now - last_ < std::chrono::milliseconds(100)) return;
    std::printf("\r\033[K%s", text.c_str());
    showing_ = true;
  } else {
    if (now - last_ < std::chrono::seconds(kPlainSeconds)) return;
    std::puts(text.c_str());
  }
  std::fflush(stdout);
  last_ = now;
}

std::string format(const char* pattern, ...) {
  va_list args, again;
  va_start(args, pattern);
  va_copy(again, args);
  std::string text(size_t(std::vsnprintf(nullptr, 0, pattern, args)), '\0');
  va_end(args);
  std::vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  return text;
}

}  // namespace decalign
