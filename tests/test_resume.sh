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

little_endian() {
  local i value=$1
  for ((i = 0; i < $2; i++)); do
    printf "\\x$(printf %02x $((value & 255)))"
    value=$((value >> 8))
  done
}
# safetensors FILE "NAME DTYPE SHAPE KIND"...: KIND says how it is drawn: bytes, or tokens (both I8); weights within
# [-.4, .4], or ones (both F32).
safetensors() {
  local file=$1 header='' offset=0 entry name dtype shape kind size
  shift
  : >data.part
  for entry; do
    read -r name dtype shape kind <<<"$entry"
    size=$((${shape//,/*} * (${#dtype} == 3 ? 4 : 1)))
    header+=",\"$name\":{\"dtype\":\"$dtype\",\"shape\":[$shape],\"data_offsets\":[$offset,$((offset + size))]}"
    offset=$((offset + size))
    LC_ALL=C awk -v n=$size -v kind="$kind" -v seed=$offset '
      function draw() { x = (x * 16807) % 2147483647; return int(x / 4096) }
      function put(b) { printf "%c", b ? b : 255 } # not every awk writes 0
      BEGIN {
        x = seed
        if (kind == "bytes") while (n--) put(1 + draw() % 255)
        if (kind == "weights") while (n > 0) { put(draw() % 255); put(draw() % 255); put(128 + draw() % 72); put(draw() % 2 ? 190 : 62); n -= 4 }
        if (kind == "ones") while (n > 0) { put(0); put(0); put(128); put(63); n -= 4 }
        # Clips of three rows of 6: ids of 16 words, a mask of 2 to 6 tokens, segments.
        if (kind == "tokens") while (n > 0) {
          for (t = 0; t < 6; t++) put(1 + draw() % 15)
          long = 2 + draw() % 5
          for (t = 0; t < 6; t++) put(t < long)
          for (t = 0; t < 6; t++) put(0)
          n -= 18
        }
      }' | if [ "$kind" = bytes ]; then cat; else tr '\377' '\000'; fi >>data.part
  done
  header="{${header:1}}"
  { little_endian ${#header} 8 && printf %s "$header" && cat data.part; } >"$file"
  rm data.part
}

# A data set of 48, 16 and 16 samples whose entries are bytes, with token ids too.
entries=()
for split in train:48 valid:16 test:16; do
  n=${split#*:} split=${split%:*}
  entries+=("$split.text I8 $n,6,5 bytes" "$split.audio I8 $n,8,3 bytes" "$split.vision I8 $n,4,4 bytes" "$split.labels I8 $n bytes"
    "$split.text_bert I8 $n,3,6 tokens")
done
safetensors data.safetensors "${entries[@]}"

# A text encoder of two layers.
mkdir bert
printf '{"vocab_size":16,"hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":12,
  "max_position_embeddings":6}' >bert/config.json
entries=("embeddings.word_embeddings.weight F32 16,8 weights" "embeddings.position_embeddings.weight F32 6,8 weights"
  "embeddings.token_type_embeddings.weight F32 2,8 weights" "embeddings.LayerNorm.weight F32 8 ones" "embeddings.LayerNorm.bias F32 8 weights")
for layer in 0 1; do
  for part in attention.self.query:8,8 attention.self.key:8,8 attention.self.value:8,8 attention.output.dense:8,8 \
    intermediate.dense:12,8 output.dense:8,12; do
    stem=encoder.layer.$layer.${part%:*} shape=${part#*:}
    entries+=("$stem.weight F32 $shape weights" "$stem.bias F32 ${shape%,*} weights")
  done
  for stem in attention.output.LayerNorm output.LayerNorm; do
    entries+=("encoder.layer.$layer.$stem.weight F32 8 ones" "encoder.layer.$layer.$stem.bias F32 8 weights")
  done
done
safetensors bert/model.safetensors "${entries[@]}"

common=(--dataset data.safetensors --seeds 3 dst_feature_dim_nheads=[8,2] nlevels=1 pde_dim=8 num_prototypes=2 gmm_em_iters=2
  ot_num_iters=5 batch_size=10 early_stop_patience=100 learning_rate=0.003 scheduler_patience=1 factor=0.9
  embed_dropout=0.1 attn_dropout=0.1 res_dropout=0.1 need_feature_standardized=true)
floats=("${common[@]}" num_epochs=14 use_bert=false feature_standardize_modalities=text,audio,vision)
tuned=("${common[@]}" num_epochs=8 use_bert=true pretrained=bert mask_source=lengths accumulation_steps=2 bert_learning_rate=0.001
  bert_warmup=0.3 bert_layer_decay=0.8 feature_standardize_modalities=audio,vision)
files=(seed_3/checkpoint.safetensors seed_3/state.safetensors seed_3/predictions.csv seed_3/metrics.json metrics.json config.json)

same() { # KIND RUN
  local file
  for file in "${files[@]}"; do
    cmp "$1/$file" "$2/$file" || { echo "FAILED: $2/$file differs from an uninterrupted run" >&2; exit 1; }
  done
  [ -z "$(find "$2" -name '*.tmp')" ] || { echo "FAILED: $2 holds a temporary file" >&2; exit 1; }
}

milliseconds() { echo $((($(date +%s%N) - $1) / 1000000)); }

# kill_and_resume KIND KILLS SETTINGS...
kill_and_resume() {
  local kind=$1 kills=$2 started span moment status run=0 killed=0 before=$resumed arguments
  shift 2
  started=$(date +%s%N)
  "$decalign" train "$@" --out "$kind" --threads 2 >/dev/null || exit 1
  span=$(milliseconds "$started") # of a whole run
  "$decalign" train "$@" --out "${kind}_one" --threads 1 >/dev/null || exit 1
  same "$kind" "${kind}_one"
  echo "$kind, 1 and 2 threads: the same bits"
  while [ $killed -lt "$kills" ]; do
    if [ -f $kind$run/run.json ]; then arguments=(--resume $kind$run); else arguments=("$@" --out $kind$run); fi
    [ "${arguments[0]}" = --resume ] && resumed=$((resumed + 1))
    moment=$((RANDOM % span + 1)) started=$(date +%s%N)
    timeout -s KILL "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))" \
      "$decalign" train "${arguments[@]}" --threads $((killed % 2 + 1)) >/dev/null 2>$kind$run.err
    status=$?
    if [ $status -eq 137 ]; then
      killed=$((killed + 1))
      continue
    fi
    [ $status -eq 0 ] || { echo "FAILED: exit status $status: $(cat $kind$run.err)" >&2; exit 1; }
    same "$kind" $kind$run
    run=$((run + 1))
    span=$(milliseconds "$started") # it ended before its moment: moments within what it took
  done
  if [ -f $kind$run/run.json ]; then
    resumed=$((resumed + 1))
    "$decalign" train --resume $kind$run >/dev/null || exit 1
    same "$kind" $kind$run
  fi
  echo "$kind, $killed kills, $((resumed - before)) times resumed: the same bits"
}

resumed=0
kill_and_resume floats $((kills - kills / 2)) "${floats[@]}"
kill_and_resume tuned $((kills / 2)) "${tuned[@]}"
[ $resumed -gt 0 ] || { echo "FAILED: no run was resumed" >&2; exit 1; }
grep -q "fine-tuned" tuned/log.txt || { echo "FAILED: the encoder was not fine-tuned" >&2; exit 1; }
