#!/usr/bin/env bash
# The same seed gives the same bits: with 1 and 2 threads, and across kill -9 and --resume at random moments.
# Usage: test_resume.sh DECALIGN [KILLS] [SEED of the moments]
set -uo pipefail
decalign=$(realpath "$1")
kills=${2:-20}
RANDOM=${3:-$(date +%N | sed 's/^0*//')}
seed=$RANDOM
RANDOM=$seed
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
echo "moments from seed $seed"

# A data set of 48, 16 and 16 samples whose entries are bytes.
little_endian() {
  local i value=$1
  for ((i = 0; i < $2; i++)); do
    printf "\\x$(printf %02x $((value & 255)))"
    value=$((value >> 8))
  done
}
header= offset=0
for split in train:48 valid:16 test:16; do
  n=${split#*:}
  for tensor in text:$n,6,5 audio:$n,8,3 vision:$n,4,4 labels:$n; do
    shape=${tensor#*:}
    size=$((${shape//,/*}))
    header+=",\"${split%:*}.${tensor%:*}\":{\"dtype\":\"I8\",\"shape\":[$shape],\"data_offsets\":[$offset,$((offset + size))]}"
    offset=$((offset + size))
  done
done
header="{${header:1}}"
{
  little_endian ${#header} 8
  printf %s "$header"
  LC_ALL=C awk -v n=$offset 'BEGIN { x = 1; while (n--) { x = (x * 16807) % 2147483647; printf "%c", 1 + int(x / 4096) % 255 } }'
} >data.safetensors

settings=(--dataset data.safetensors --seeds 3 dst_feature_dim_nheads=[8,2] nlevels=1 pde_dim=8 num_prototypes=2 gmm_em_iters=2
  ot_num_iters=5 batch_size=10 num_epochs=30 early_stop_patience=100 learning_rate=0.003 scheduler_patience=1 factor=0.9
  embed_dropout=0.1 attn_dropout=0.1 res_dropout=0.1 need_feature_standardized=true use_bert=false
  feature_standardize_modalities=text,audio,vision)
files=(seed_3/checkpoint.safetensors seed_3/state.safetensors seed_3/predictions.csv seed_3/metrics.json metrics.json config.json)

same() { # RUN
  local file
  for file in "${files[@]}"; do
    cmp "reference/$file" "$1/$file" || { echo "FAILED: $1/$file differs from an uninterrupted run" >&2; exit 1; }
  done
  [ -z "$(find "$1" -name '*.tmp')" ] || { echo "FAILED: $1 holds a temporary file" >&2; exit 1; }
}

started=$(date +%s%N)
"$decalign" train "${settings[@]}" --out reference --threads 2 >/dev/null || exit 1
span=$((($(date +%s%N) - started) / 1000000)) # of a whole run, in milliseconds
"$decalign" train "${settings[@]}" --out one --threads 1 >/dev/null || exit 1
same one
echo "1 and 2 threads: the same bits"

run=0 killed=0 resumed=0
while [ $killed -lt "$kills" ]; do
  if [ -f run$run/run.json ]; then arguments=(--resume run$run); else arguments=("${settings[@]}" --out run$run); fi
  [ "${arguments[0]}" = --resume ] && resumed=$((resumed + 1))
  moment=$((RANDOM % span + 1)) started=$(date +%s%N)
  timeout -s KILL "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))" \
    "$decalign" train "${arguments[@]}" --threads $((killed % 2 + 1)) >/dev/null 2>run$run.err
  status=$?
  if [ $status -eq 137 ]; then
    killed=$((killed + 1))
    continue
  fi
  [ $status -eq 0 ] || { echo "FAILED: exit status $status: $(cat run$run.err)" >&2; exit 1; }
  same run$run
  run=$((run + 1))
  span=$((($(date +%s%N) - started) / 1000000)) # it ended before its moment: moments within what it took
done
if [ -f run$run/run.json ]; then
  "$decalign" train --resume run$run >/dev/null || exit 1
  same run$run
fi
[ $resumed -gt 0 ] || { echo "FAILED: no run was resumed" >&2; exit 1; }
echo "$killed kills, $resumed times resumed: the same bits"
