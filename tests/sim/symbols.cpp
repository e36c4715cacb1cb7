#include "tests/sim/symbols.h"

#include <elf.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

// Given by the linker.
extern "C" const char __executable_start;
extern "C" const Elf64_Ehdr __ehdr_start;

namespace sim {
namespace {

// The output of addr2line for an offset from the program's start, line by line.
std::vector<std::string> addr2line(const char* options, uint64_t place) {
  if (__ehdr_start.e_type == ET_EXEC) place += reinterpret_cast<uint64_t>(&__executable_start);
  char command[256], line[8192];
  snprintf(command, sizeof command, "addr2line %s -e /proc/%d/exe 0x%llx 2>/dev/null", options,
           int(getpid()), static_cast<unsigned long long>(place));
  std::vector<std::string> lines;
  FILE* pipe = popen(command, "r");
  if (!pipe) return lines;
  while (fgets(line, sizeof line, pipe)) {
    line[strcspn(line, "\n")] = 0;
    lines.push_back(line);
  }
  pclose(pipe);
  return lines;
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The name without its result, its scopes and its parameters, of which template arguments may have
// some too.
std::string short_name(std::string name) {
  int depth = 0;
  size_t begin = 0, end = name.size();
  const std::string anonymous = "(anonymous namespace)";
  for (size_t at; (at = name.find(anonymous)) != std::string::npos;)
    name.replace(at, anonymous.size(), "-");
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '(' && depth == 0) {
      end = i;
      break;
    }
    if (c == '<' || c == '(') ++depth;
    if (c == '>' || c == ')') --depth;
    if (depth == 0 && (c == ' ' || c == ':')) begin = i + 1;
  }
  return name.substr(begin, end - begin);
}

}  // namespace

const KernelName& kernel_name(const void* function) {
  static auto* known = new std::map<const void*, KernelName>;
  const auto [entry, is_new] = known->try_emplace(function);
  if (!is_new) return entry->second;
  const auto lines =
      addr2line("-f -C", uint64_t(static_cast<const char*>(function) - &__executable_start));
  entry->second = {"?", "?"};
  if (lines.size() >= 2)
    entry->second = {short_name(lines[0]), file_name(lines[1].substr(0, lines[1].rfind(':')))};
  return entry->second;
}

const std::string& source_line(uint32_t place) {
  static auto* known = new std::map<uint32_t, std::string>;
  const auto [entry, is_new] = known->try_emplace(place);
  if (!is_new) return entry->second;
  std::string text;
  // A return address is behind its call.
  for (const std::string& full : addr2line("-i", uint64_t(place) - 1)) {
    const std::string line = full.substr(0, full.find(' '));
    const bool header = line.find(".h:") != std::string::npos;
    if (header && line.find("tests/sim/") != std::string::npos) continue;
    text += (text.empty() ? "" : ", from ") + file_name(line);
    if (!header) break;
  }
  return entry->second = text.empty() ? "?" : text;
}

std::string site_text(Site site) { return file_name(site.file) + ":" + std::to_string(site.line); }

}  // namespace sim
