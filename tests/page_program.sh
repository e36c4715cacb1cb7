#!/usr/bin/env bash
# page_program.sh PAGE: the C++ of a page of docs/kernels as a test. Its `cpp` blocks are one program, in a namespace of
# its own; main returns 0 where the result is right.
set -euo pipefail
name=$(basename "$1" .md)
awk -v page="$1" -v name="$name" '
  /^```/ { in_code = !in_code && $0 == "```cpp"; if (in_code) body = body "#line " NR + 1 " \"" page "\"\n"; next }
  !in_code { next }
  { code = 1 }
  /^#include/ { includes = includes $0 "\n"; body = body "\n"; next }
  /^int main\(\)/ { runs = 1 }
  { body = body $0 "\n" }
  END {
    if (!code) { print page ": no block of C++ (```cpp)" > "/dev/stderr"; exit 1 }
    printf "#include <catch2/catch.hpp>\n%snamespace page_%s {\n%s}\n", includes, name, body
    if (runs)
      printf "TEST_CASE(\"docs: the program of kernels/%s.md finds what it says\", \"[docs]\") {\n" \
             "  REQUIRE(page_%s::main() == 0);\n}\n", name, name
  }' "$1"
