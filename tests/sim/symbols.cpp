#include "tests/sim/symbols.h"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

// Given by the linker.
extern "C" const char __executable_start;
extern "C" const Elf64_Ehdr __ehdr_start;

namespace sim {
namespace {

// The output of addr2line for offsets from the program's start, line by line.
std::vector<std::string> addr2line(const std::string& options,
                                   const std::vector<uint64_t>& places) {
  const uint64_t base =
      __ehdr_start.e_type == ET_EXEC ? reinterpret_cast<uint64_t>(&__executable_start) : 0;
  std::string command = "addr2line " + options + " -e /proc/" + std::to_string(getpid()) + "/exe";
  for (const uint64_t place : places) {
    char hex[32];
    snprintf(hex, sizeof hex, " 0x%llx", static_cast<unsigned long long>(base + place));
    command += hex;
  }
  command += " 2>/dev/null";
  std::vector<std::string> lines;
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return lines;
  char line[8192];
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

constexpr size_t kPlacesAtOnce = 500;

std::map<uint32_t, std::string>& known_lines() {
  static auto* known = new std::map<uint32_t, std::string>;
  return *known;
}

// Adds "gmm.cu:12" to what it is inlined from; true if that is not in a header. The simulator's own
// headers are left out.
bool add_frame(std::string& text, const std::string& line) {
  const bool header = line.find(".h:") != std::string::npos;
  if (header && line.find("tests/sim/") != std::string::npos) return false;
  text += (text.empty() ? "" : ", from ") + file_name(line);
  return !header;
}

}  // namespace

const KernelName& kernel_name(const void* function) {
  static auto* known = new std::map<const void*, KernelName>;
  const auto [entry, is_new] = known->try_emplace(function);
  if (!is_new) return entry->second;
  const auto lines =
      addr2line("-f -C", {uint64_t(static_cast<const char*>(function) - &__executable_start)});
  entry->second = {"?", "?"};
  if (lines.size() >= 2)
    entry->second = {short_name(lines[0]), file_name(lines[1].substr(0, lines[1].rfind(':')))};
  return entry->second;
}

void look_up_lines(const std::vector<uint32_t>& places) {
  std::vector<uint32_t> unknown;
  for (const uint32_t place : places)
    if (known_lines().try_emplace(place, "").second) unknown.push_back(place);
  for (size_t begin = 0; begin < unknown.size(); begin += kPlacesAtOnce) {
    const size_t end = std::min(begin + kPlacesAtOnce, unknown.size());
    std::vector<uint64_t> part;  // a return address is behind its call
    for (size_t i = begin; i < end; ++i) part.push_back(unknown[i] - 1);
    size_t next = begin;
    std::string* text = nullptr;
    bool complete = false;
    for (const std::string& full : addr2line("-a -i", part)) {
      if (full.starts_with("0x")) {  // the next address
        text = &known_lines()[unknown[next++]];
        complete = false;
      } else if (text && !complete) {
        complete = add_frame(*text, full.substr(0, full.find(' ')));
      }
    }
  }
}

const std::string& source_line(uint32_t place) {
  look_up_lines({place});
  return known_lines()[place];
}

std::string site_text(Site site) { return file_name(site.file) + ":" + std::to_string(site.line); }

}  // namespace sim
