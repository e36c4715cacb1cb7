#!/usr/bin/env bash
# test_docs.sh DECALIGN: pages that repeat the program say what the program says.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
"$1" info --keys | diff -u "$root/docs/configuration.md" - ||
  { echo "docs/configuration.md differs; write it with: decalign info --keys > docs/configuration.md"; exit 1; }
diff -u <(sed -n '/^```cpp$/,/^```$/p' "$root/README.md" | sed '1d;$d') \
  <(sed -n '/^\/\/ README$/,/^\/\/ README$/p' "$root/tests/test_readme.cpp" | sed '1d;$d') ||
  { echo "the README's example differs from tests/test_readme.cpp"; exit 1; }
