// What a run says: lines to the terminal and to the run's log, and one progress line that
// overwrites itself.
#pragma once

#include <chrono>
#include <fstream>
#include <string>

namespace decalign {

class RunLog {
 public:
  /// `path` empty: no file. Appends to what is there. Throws input_error if it cannot be opened.
  explicit RunLog(const std::string& path, bool quiet = false);

  void line(const std::string& text);
  void warn(const std::string& text) { line("warning: " + text); }
  /// Shown at once on a terminal; elsewhere as a plain line every `kPlainSeconds` seconds. Not
  /// logged.
  void progress(const std::string& text);

 private:
  static constexpr int kPlainSeconds = 15;
  using Clock = std::chrono::steady_clock;
  void clear_progress();

  std::ofstream file_;
  bool quiet_, terminal_;
  bool showing_ = false;
  Clock::time_point last_;
};

/// printf into a string.
std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace decalign
