#!/usr/bin/env bash
# clang-format, and clang's warnings as errors on every C++ file, in float: g++ compiles both precisions, with -Werror too.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.cu')
[ ${#files[@]} -gt 0 ] || { echo "style: no files; is this a git checkout?" >&2; exit 1; }

# Compared, because clang-format 14 --dry-run complains of unchanged comments after `inline namespace`.
printf '%s\0' "${files[@]}" | xargs -0 -n 8 -P "$jobs" bash -c '
  for file; do
    clang-format "$file" | diff -u --label "$file" "$file" --label "formatted: clang-format -i $file" - >&2 || exit 255
  done' style || exit 1

# -Wno-unknown-warning-option: g++'s names in pragmas. The definitions are CMakeLists.txt's.
export flags="-fsyntax-only -std=c++20 -Wall -Wextra -Wpedantic -Werror -I. -isystem /usr/include/eigen3 -fopenmp \
-DDECALIGN_VERSION=\"style\" -DDECALIGN_CONFIG_DIR=\".\" -DDECALIGN_CONFIGS=\".\" -DDECALIGN_GOLDEN=\".\" -DDECALIGN_TEST_SEEDS=\".\" -DDECALIGN_RUNS="
jobs_of() {
  local file
  for file in "${files[@]}"; do
    [[ $file == *.cpp ]] || continue
    case $file in
      kernels/cuda/* | tests/sim/* | tests/test_sim.cpp) continue ;;  # g++ and nvcc compile these, both with warnings as errors
      bench/*) [ -e /usr/include/benchmark/benchmark.h ] || continue ;;
    esac
    printf '%s\0' "$file"
  done
}
jobs_of | xargs -0 -n 1 -P "$jobs" bash -c 'clang++ $flags $1 || exit 1' style || exit 1
echo "style: ${#files[@]} files passed"
