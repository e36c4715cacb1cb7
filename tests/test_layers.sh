#!/usr/bin/env bash
# Every floor includes only what lies below it, and every library has one door. Usage: test_layers.sh SOURCE_DIR
set -uo pipefail
cd "$1" || exit 1
failures=0

# only FOLDER FOLDERS...: files below FOLDER include, of our own files, only those below FOLDERS.
only() {
  local folder=$1 allowed found
  shift
  allowed=$(IFS='|'; echo "$*")
  found=$(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$folder" --include='*.h' --include='*.cpp' --include='*.cu' |
    grep -v 'kernels/cuda/launch.h.*"sim.h"' | grep -vE "\"($allowed)/[^.][^\"]*\"" | grep -v '\.\./' || true)
  found+=$(grep -rnE '#[[:space:]]*include[[:space:]]*[<"][^>"]*\.\./' "$folder" --include='*.h' --include='*.cpp' --include='*.cu' || true)
  [ -z "$found" ] && return
  echo "$folder/ may include only $*:" >&2
  echo "$found" >&2
  failures=$((failures + 1))
}

# door LIBRARY PATTERN ALLOWED: only files whose path matches ALLOWED include <PATTERN...>.
door() {
  local found
  found=$(grep -rnE "#[[:space:]]*include[[:space:]]*[<\"]($2)" kernels autograd model data tools --include='*.h' --include='*.cpp' --include='*.cu' |
    grep -vE "^($3)" || true)
  [ -z "$found" ] && return
  echo "$1 is included outside of $3:" >&2
  echo "$found" >&2
  failures=$((failures + 1))
}

for folder in kernels autograd model data tools; do
  [ -n "$(find $folder -name '*.cpp' | head -1)" ] || { echo "$folder: no sources in $1" >&2; exit 1; }
done
only kernels kernels
only autograd autograd kernels
only model model autograd kernels data
only data data
only tools tools model autograd kernels data
door Eigen 'Eigen/' 'kernels/cpu/|model/baselines\.cpp'
door nlohmann-json 'nlohmann/' 'data/|model/|tools/'
door CLI11 'CLI/' 'tools/'
door utf8proc 'utf8proc' 'data/unicode'
door CUDA '(cuda|cublas|cub/)' 'kernels/cuda/'
door Catch2 'catch2/' 'tests/'
door "Google Benchmark" 'benchmark/' 'bench/'
# What the others need not know stays out of headers.
found=$(grep -rlE '#include <(Eigen/|nlohmann/json\.hpp)' kernels autograd model data --include='*.h' | grep -v '^kernels/cpu/' || true)
[ -z "$found" ] || { echo "headers that include a whole library: $found" >&2; failures=$((failures + 1)); }

[ $failures -eq 0 ] || exit 1
echo "layers: every include goes down"
