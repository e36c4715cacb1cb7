# Shared by tools/train and tools/test: Debian packages, configuration, build. Sourced.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${DECALIGN_BUILD:-$root/build}

# Installs what is missing of the named Debian packages; without root, says how and ends with status 2.
need_packages() {
  command -v dpkg-query >/dev/null || return 0  # not Debian: CMake will say what it misses
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "decalign needs some packages; as root run:" >&2
    echo "apt-get install -y ${missing[*]}" >&2
    exit 2
  fi
  echo "installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
    { apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; } ||
    { echo "apt-get install ${missing[*]} failed" >&2; exit 2; }
}

# The CMake option for CUDA: for the GPU that is there, else for one architecture, and off without nvcc.
cuda_option() {
  local compute
  command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || { echo -DDECALIGN_CUDA=OFF; return; }
  compute=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
  echo "-DCMAKE_CUDA_ARCHITECTURES=${compute:-90}"
}

# configure DIR CMAKE_OPTIONS...: only if DIR was not configured with these options before.
configure() {
  local dir=$1 stamp=$1/configured
  shift
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$*" ] && return 0
  mkdir -p "$dir"
  cmake -S "$root" -B "$dir" "$@" >"$dir/configure.log" 2>&1 || { cat "$dir/configure.log" >&2; exit 2; }
  echo "$*" >"$stamp"
}

# compile DIR TARGETS...: quiet if nothing is to be done.
compile() {
  local dir=$1
  shift
  if ! cmake --build "$dir" -j "$(nproc)" --target "$@" >"$dir/build.log" 2>&1; then
    grep -E -A5 'error|Error' "$dir/build.log" >&2
    exit 2
  fi
}
