#!/usr/bin/env bash
# tools/kernel_report finds no spill and no stack in this build's kernels, and finds planted ones;
# what tools/kernel_model says of counts that are known.
# Usage: test_kernel_report.sh BUILD
set -uo pipefail
report=("$(dirname "$0")/../tools/kernel_report")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
# expect STATUS FOLDER PATTERN: how the report of a folder ends, and a line that it has.
expect() {
  local output status
  output=$("${report[@]}" "$2" 2>&1)
  status=$?
  if [ $status -ne "$1" ] || ! grep -qE "$3" <<<"$output"; then
    echo "status $status instead of $1, or no line like '$3':" >&2
    echo "$output" >&2
    failures=$((failures + 1))
  fi
}
# record REGISTERS STACK SPILL SHARED: what ptxas would say of a kernel.
record() {
  cat >"$folder/one.cu.o.ptxas" <<EOF
.entry _ZN8decalign3f328k_kernelEi
.maxntid 256, 1, 1
ptxas info    : Compiling entry function '_ZN8decalign3f328k_kernelEi' for 'sm_90'
ptxas info    : Function properties for _ZN8decalign3f328k_kernelEi
    $2 bytes stack frame, $3 bytes spill stores, $3 bytes spill loads
ptxas info    : Used $1 registers, used 1 barriers, $4 bytes smem
EOF
}

expect 2 "$folder" 'no CUDA kernels'
record 32 0 0 64
expect 0 "$folder" '^one: k_kernel +sm_90 +32 +0 +0 +64 +256 +100 %$'
record 54 0 0 64  # registers: four blocks
expect 0 "$folder" ' 50 %$'
record 32 0 0 47104  # shared memory: four blocks
expect 0 "$folder" ' 50 %$'
record 255 0 8 0
expect 1 "$folder" 'k_kernel +sm_90 +255 +16 +0 +0 +256 +12 % +<- local memory'
record 32 24 0 0
expect 1 "$folder" 'k_kernel +sm_90 +32 +0 +24 .*local memory'
expect 0 "$1" '^adam: clipped_kernel +sm_[0-9]+ '

report=("$(dirname "$0")/../tools/kernel_model")
# costs SOURCE:LINE WAYS: a scattered read there, and a bank conflict.
costs() {
  cat >"$folder/costs" <<EOF
{"kernel": "decalign::f32::(anonymous namespace)::k_kernel<(int)2>", "file": "mmd.cu", "launches": 2, "blocks": 66, \
"distinct_read": 6880000, "distinct_written": 1720000, "flops": null, "barriers": 20, \
"scattered": [{"at": "$1 read", "accesses": 9, "used": 20, "ideal": 10, "ways": 0}], \
"conflicting": [{"at": "mmd.cu:1 read", "accesses": 9, "used": 20, "ideal": 10, "ways": $2}]}
EOF
}
# The line of the statement below the comment, wherever it moves to.
at=$(grep -n '// scattered:' "$(dirname "$0")/../kernels/cuda/gmm.cu" | head -1 | cut -d: -f1)
costs "gmm.cu:$((at + 1))" 2
# 1.3 + 2 x 4.3 MB / 4.3 TB/s + 10 barriers
expect 0 "$folder/costs" '^\| modelled \| mmd.cu: k_kernel<2> \| 2 \| 66 \| 4.30 \| - \| 10 \| 3.60 \| 7.2 \|$'
expect 0 "$folder/costs" '^\| modelled \| \*\*the step\*\* .* \*\*7\*\* \|$'
expect 0 "$folder/costs" "^\\| gmm.cu:$((at + 1)) \\| read \\| 9 \\| 2.00 \\| [^*]"
expect 0 "$folder/costs" '^None\.$'
costs gmm.cu:1 2
expect 1 "$folder/costs" '^\| gmm.cu:1 .*not explained'
costs "gmm.cu:$((at + 1))" 3
expect 1 "$folder/costs" '^\| mmd.cu:1 \| read \| 9 \| 3 \| \*\*not explained'

report+=(--bars)
for bar in sinkhorn mot bures sqrtm mmd mmd-products moments gmm gmm-full gmm-large; do
  cat >"$folder/$bar" <<EOF
{"kernel": "k_kernel", "launches": 2, "blocks": 66, "threads": 512, "dynamic_shared_bytes": 100000, \
"distinct_read": 6880000, "distinct_written": 1720000, "flops": null, "shared_passes": 1000, "barriers": 20}
EOF
done
# 2 x 1.3 + 8.6 MB / 4.3 TB/s x 132 / 66 + 20 barriers
expect 0 "$folder" '^\| modelled \| sinkhorn.* \| 2 \| 7 \| bytes of 66 blocks \| 40 us \| 40 \| 0.18 \|$'
# 500 times the work, and 20 barriers for each of 125 waves of two blocks a multiprocessor
expect 0 "$folder" '^\| modelled \| bures.* \| 2 \| 1078 \| bytes \| cuSOLVER / 30 \| - \| - \|$'
exit $((failures > 0))
