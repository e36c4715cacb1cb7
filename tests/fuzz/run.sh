#!/usr/bin/env bash
# Runs every fuzz target from its committed seeds, then lists the lines of the parsers that its corpus reaches.
#
#   tests/fuzz/run.sh [RUNS] [TARGET...]    RUNS inputs a target (1000000), all targets
#
# Needs clang and llvm-14's llvm-cov. Corpora, logs and what crashed lie in build-fuzz/corpus; the first report ends the run.
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${1:-1000000}
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || targets=(config safetensors pickle bert)
declare -A longest=([config]=2048 [safetensors]=4096 [pickle]=8192 [bert]=4400)
declare -A parsers=([config]='config|utf8' [safetensors]='safetensors|dataset_file|split_|mmsa|text_modality|array_view|utf8'
  [pickle]='pickle|mmsa|split_|text_modality|field_values|array_view|scalar_decode|utf8'
  [bert]='bert_config|bert_weights|safetensors')

build() { # DIR CXX_FLAGS
  cmake -B "$1" -DDECALIGN_FUZZ=ON -DDECALIGN_TESTS=OFF -DDECALIGN_CUDA=OFF -DCMAKE_CXX_COMPILER=clang++ "-DCMAKE_CXX_FLAGS=$2" >/dev/null
  cmake --build "$1" -j "$(nproc)" --target "${targets[@]/#/fuzz_}" >"$1/build.log" || { cat "$1/build.log" >&2; exit 2; }
}
build build-fuzz ''
build build-fuzz-coverage '-fprofile-instr-generate -fcoverage-mapping'
for target in "${targets[@]}"; do
  corpus=$PWD/build-fuzz/corpus/$target
  mkdir -p "$corpus"
  options=(-max_len="${longest[$target]:-4096}" -artifact_prefix="$corpus.")
  build-fuzz/tests/fuzz/fuzz_"$target" -runs="$runs" -print_final_stats=1 "${options[@]}" "$corpus" "tests/seeds/$target" >"$corpus.log" 2>&1 ||
    { tail -40 "$corpus.log" >&2; exit 1; }
  grep -E '^Done|average_exec' "$corpus.log"
  reached=build-fuzz-coverage/tests/fuzz/fuzz_$target
  LLVM_PROFILE_FILE=$corpus.profraw "$reached" -runs=0 "$corpus" "tests/seeds/$target" >/dev/null 2>&1
  llvm-profdata-14 merge -o "$corpus.profdata" "$corpus.profraw"
  llvm-cov-14 report "$reached" -instr-profile="$corpus.profdata" |
    awk -v wanted="(data|model)/(${parsers[$target]:-$target})[a-z_]*[.]cpp$" '$1 ~ wanted && $1 !~ /writer/ { print "  " $10, $1 }'
done
