#!/usr/bin/env bash
# The command line: what bad input gets, and the commands on good input. Usage: test_cli.sh DECALIGN [SEEDS_DIR]
set -uo pipefail
decalign=$(realpath "$1")
seeds=$(realpath "${2:-$(dirname "$0")/seeds}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0
checks=0

fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# check NAME COMMAND...: the command succeeds.
check() {
  local name=$1
  shift
  checks=$((checks + 1))
  "$@" >check.out 2>check.err || fail "$name: $* ($(head -c 300 check.err))"
}

# refused NAME TEXT ARGUMENTS...: exit status 2, one line on stderr that holds TEXT, and no file or folder is new.
refused() {
  local name=$1 text=$2 before status
  shift 2
  checks=$((checks + 1))
  before=$(find . -not -name 'refused.*' | sort)
  "$decalign" "$@" >refused.out 2>refused.err
  status=$?
  [ $status -eq 2 ] || fail "$name: exit status $status, expected 2 ($(head -c 300 refused.err))"
  [ "$(wc -l <refused.err)" -eq 1 ] || fail "$name: stderr is not one line: $(head -c 600 refused.err)"
  grep -qF -- "$text" refused.err || fail "$name: \"$(cat refused.err)\" does not name \"$text\""
  [ "$before" = "$(find . -not -name 'refused.*' | sort)" ] || fail "$name: left files behind: $(
    diff <(echo "$before") <(find . -not -name 'refused.*' | sort) | tr '\n' ' ')"
}

little_endian() { # VALUE BYTES
  local i value=$1
  for ((i = 0; i < $2; i++)); do
    printf "\\x$(printf %02x $((value & 255)))"
    value=$((value >> 8))
  done
}

# safetensors FILE METADATA "NAME DTYPE SHAPE VALUES..."...: VALUES are little-endian hex words, the last one repeated.
safetensors() {
  local file=$1 header="{\"__metadata__\":{$2}" offset=0 entry name dtype shape count size
  shift 2
  : >data.part
  for entry; do
    set -- $entry
    name=$1 dtype=$2 shape=$3
    shift 3
    count=$((${shape//,/*}))
    size=$((count * 4))
    header+=",\"$name\":{\"dtype\":\"$dtype\",\"shape\":[$shape],\"data_offsets\":[$offset,$((offset + size))]}"
    offset=$((offset + size))
    while [ "$count" -gt 0 ]; do
      printf "\\x${1:0:2}\\x${1:2:2}\\x${1:4:2}\\x${1:6:2}"
      [ $# -gt 1 ] && shift
      count=$((count - 1))
    done >>data.part
  done
  header+="}"
  { little_endian ${#header} 8 && printf %s "$header" && cat data.part; } >"$file"
  rm data.part
}
one=0000803f two=00000040 five=0000a040 nan=0000c07f half=0000003f

# data_set FILE METADATA REPLACED...: three splits of two modalities; an entry "train.text ..." replaces that tensor,
# "-train.text" leaves it out.
data_set() {
  local file=$1 metadata=$2 split name entry
  shift 2
  local -A tensors=()
  for split in train valid test; do
    tensors[$split.text]="F32 3,2,2 $one $two $half"
    tensors[$split.audio]="F32 3,4,1 $half $two $one $two $five $one"
    tensors[$split.labels]="F32 3 $one $two 00000000"
  done
  for entry; do
    name=${entry%% *}
    if [ "${name:0:1}" = - ]; then unset "tensors[${name:1}]"; else tensors[$name]=${entry#* }; fi
  done
  local list=()
  for name in "${!tensors[@]}"; do list+=("$name ${tensors[$name]}"); done
  safetensors "$file" "$metadata" "${list[@]}"
}
tiny=(dst_feature_dim_nheads=[8,2] nlevels=1 num_prototypes=2 gmm_em_iters=2 ot_num_iters=5 num_epochs=2 use_bert=false)
classes='"labels":"classification_labels"'
train() { "$decalign" train --threads 2 "$@"; }

# ---- data files that cannot be used ----------------------------------------------------------------------------------
pickle=$seeds/pickle/mmsa_numpy2_protocol4.pkl
data_set good.safetensors ''
refused "missing pickle" "none.pkl" train --dataset none.pkl --out run
refused "missing file of a known data set" "data/MOSI/mosi_aligned_50.pkl" train --dataset mosi --out run
refused "missing data_dir" "nowhere/CH-SIMS/chsims.pkl" train --dataset ch-sims --data_dir nowhere --out run
for bytes in 1 100 2000; do
  head -c $bytes "$pickle" >truncated.pkl
  refused "pickle truncated to $bytes bytes" "truncated.pkl" train --dataset truncated.pkl --out run
done
: >empty.pkl
refused "empty file" "empty.pkl: is empty" train --dataset empty.pkl --out run
head -c 500 good.safetensors >short.safetensors
refused "truncated safetensors" "short.safetensors" train --dataset short.safetensors --out run
printf 'id,label\n' >text.pkl
refused "neither format" "text.pkl: is neither a pickle" train --dataset text.pkl --out run
printf '\x80\x02cos\nsystem\nX\x0d\x00\x00\x00touch executed\x85R.' >evil.pkl
refused "forbidden callable" "os.system" train --dataset evil.pkl --out run
printf '\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.' >eval.pkl
refused "forbidden builtin" "eval.pkl" convert eval.pkl out.safetensors
printf '\x80\x04X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93X\x0d\x00\x00\x00touch executed\x85R.' >stack.pkl
refused "forbidden callable by STACK_GLOBAL" "os.system" convert stack.pkl out.safetensors
[ ! -e executed ] || fail "a pickle was executed"

data_set n.safetensors '' "train.audio F32 4,4,1 $one"
refused "N of modalities" "n.safetensors: split train: audio has 4 samples, text has 3" train --dataset n.safetensors --out run
data_set n.safetensors '' "valid.labels F32 2 $one"
refused "N of labels" "valid: regression_labels has 2 entries, the features have 3" train --dataset n.safetensors --out run
data_set n.safetensors '' "test.audio_lengths I32 2 01000000"
refused "N of lengths" "test: audio_lengths has 2 entries" train --dataset n.safetensors --out run
data_set l.safetensors '' -valid.labels
refused "split without labels" "l.safetensors: split valid: has no labels 'regression_labels'" train --dataset l.safetensors --out run
data_set l.safetensors "$classes"
refused "labels of the other kind" "has no labels 'regression_labels'" train --dataset l.safetensors --out run
data_set l.safetensors '' -valid.labels -valid.text -valid.audio
refused "no split valid" 'l.safetensors: no split "valid"' train --dataset l.safetensors --out run
data_set t.safetensors '' "train.audio_lengths I32 3 01000000 05000000 02000000"
refused "lengths > T" "train: audio_lengths: entry 1 is 5, a whole number from 0 to 4" train --dataset t.safetensors --out run
data_set nan.safetensors '' "test.labels F32 3 $one $nan $one"
refused "labels with NaN" "nan.safetensors: split test: regression_labels: entry 1 is nan" train --dataset nan.safetensors --out run
data_set w.safetensors '' "test.audio F32 3,2,2 $one"
refused "widths of splits" "w.safetensors: splits test and train: audio is 2 and 1 wide" train --dataset w.safetensors --out run
data_set m.safetensors '' -train.audio -valid.audio -test.audio
refused "M = 1" "m.safetensors: split train: at least 2 modalities are needed, 1 found" train --dataset m.safetensors --out run
data_set c.safetensors "$classes"
refused "class outside the range" "c.safetensors: split test: classification_labels of sample test_1 is 2, expected a class in [0, 2)" \
  train --dataset c.safetensors --out run train_mode=classification num_classes=2
data_set c.safetensors "$classes" "train.labels F32 3 $half"
refused "a class that is no whole number" "train: classification_labels: entry 0 is 0.5, a class index is expected" \
  train --dataset c.safetensors --out run train_mode=classification num_classes=3
data_set b.safetensors '' -train.text -valid.text -test.text "train.text_bert I32 3,3,2 $one"
refused "only text_bert" "b.safetensors: split train: has only text_bert" train --dataset b.safetensors --out run

# ---- configs that cannot be used -------------------------------------------------------------------------------------
good=(train --dataset good.safetensors --out run)
printf '{"num_epoch": 3}' >typo.json
refused "unknown key" 'typo.json: unknown key "num_epoch" (nearest known key: "num_epochs")' "${good[@]}" --config typo.json
refused "unknown key=value" 'unknown key "learnig_rate" (nearest known key: "learning_rate")' "${good[@]}" learnig_rate=1
printf '{"alpha": "x"}' >type.json
refused "type" 'type.json: key "alpha" is "x", expected a number' "${good[@]}" --config type.json
printf '{"alpha": 1' >broken.json
refused "broken JSON" "broken.json: not valid JSON" "${good[@]}" --config broken.json
printf '[1]' >list.json
refused "no object" "list.json: a config is a JSON object" "${good[@]}" --config list.json
refused "missing config" "none.json" "${good[@]}" --config none.json
refused "heads" '7 heads do not divide width 40' "${good[@]}" dst_feature_dim_nheads=[40,7]
refused "kernel" 'good.safetensors: key "conv1d_kernel_size_a" is 5, longer than the 4 steps of audio' "${good[@]}" conv1d_kernel_size_a=5
refused "paper variant" "full covariances are not available yet" "${good[@]}" variant=paper
refused "active modality" '"active_modalities" names "vision"' "${good[@]}" active_modalities=text,vision
refused "no key=value" '"alpha" is neither an option nor key=value' "${good[@]}" alpha
refused "seeds end at the first word that is no integer" '"3x" is neither an option nor key=value' "${good[@]}" --seeds 1 2 3x
refused "unknown option" "--epochs" "${good[@]}" --epochs 3
refused "negative threads" "--threads" "${good[@]}" --threads -1
refused "no command" "subcommand"
refused "unknown command" 'no command "fly"' fly

# ---- good runs -------------------------------------------------------------------------------------------------------
check "train" train --dataset good.safetensors --out run --seeds 5 6 "${tiny[@]}"
for file in config.json run.json log.txt metrics.json seed_5/checkpoint.safetensors seed_6/predictions.csv seed_6/metrics.json; do
  [ -s "run/$file" ] || fail "train left no $file"
done
grep -q "mean predictor" run/log.txt && grep -q "ridge" run/log.txt && grep -q -- "+-" run/log.txt || fail "the table of run/log.txt"
grep -q '"num_epochs": 2' run/config.json || fail "overrides in run/config.json"
refused "a folder that holds a run" "run: holds a run already" "${good[@]}"
refused "resume of nothing" "nothing/run.json" train --resume nothing
refused "resume with keys" "--resume takes config and seeds from run" train --resume run alpha=1
check "resume of a complete run" train --resume run
check "test" "$decalign" test --checkpoint run
grep -q "mean" check.out && grep -q "MAE" check.out || fail "the table of test"
check "test of one checkpoint" "$decalign" test --checkpoint run/seed_5/checkpoint.safetensors --out again.csv
cmp again.csv run/seed_5/predictions.csv || fail "test gives other predictions than training did"
check "metrics" "$decalign" metrics --dataset mosi run/seed_5/predictions.csv
grep -q '"MAE":' check.out || fail "metrics prints no MAE"
mae=$(grep -o '"MAE": [0-9.]*' check.out)
grep -qF "$mae" run/seed_5/metrics.json || fail "metrics gives $mae, training did not"
data_set unlabelled.safetensors '' -test.labels -train.labels -train.text -train.audio -valid.labels -valid.text -valid.audio
check "predict" "$decalign" predict --checkpoint run/seed_5 --dataset unlabelled.safetensors --out p.csv
[ "$(cut -d, -f1,3 run/seed_5/predictions.csv)" = "$(cat p.csv)" ] || fail "predict gives other predictions than test"
refused "predict with several seeds" "run: holds several seeds" predict --checkpoint run
refused "test without labels" "unlabelled.safetensors: split test: has no labels" test --checkpoint run --dataset unlabelled.safetensors
refused "test of a missing split" "'dev'" test --checkpoint run --split dev
refused "no checkpoint" "nothing: no checkpoint file" test --checkpoint nothing
refused "a data set as checkpoint" "good.safetensors" test --checkpoint good.safetensors
data_set wide.safetensors '' "train.audio F32 3,4,2 $one" "valid.audio F32 3,4,2 $one" "test.audio F32 3,4,2 $one"
refused "data of another width" "wide.safetensors: split test: the checkpoint run/seed_5/checkpoint.safetensors expects modality audio of width 1" \
  test --checkpoint run/seed_5 --dataset wide.safetensors
# A checkpoint whose config promises a network of another shape: 8 becomes 4 in place.
sed 's/dst_feature_dim_nheads\\":\[8,2\]/dst_feature_dim_nheads\\":[4,2]/' run/seed_5/checkpoint.safetensors >shape.safetensors
refused "checkpoint of another shape" 'shape.safetensors: tensor "' test --checkpoint shape.safetensors --dataset good.safetensors
head -c 3000 run/seed_5/checkpoint.safetensors >half.safetensors
refused "truncated checkpoint" "half.safetensors" test --checkpoint half.safetensors --dataset good.safetensors
refused "metrics of a missing file" "none.csv" metrics --dataset mosi none.csv
printf 'id,label,prediction\na,1,x\n' >bad.csv
refused "metrics of no number" "bad.csv:2: column prediction" metrics --dataset mosi bad.csv
refused "replay of missing files" "none.safetensors" replay --config typo.json --weights none.safetensors --batch good.safetensors --out o.safetensors

# ---- NaN while training ----------------------------------------------------------------------------------------------
# Small batches meet the broken weights in the next step, one batch of everything only in the validation.
for case in "1:epoch 1, batch 2 (step 2): the task loss is not finite; no epoch was completed" \
  "100:epoch 1 (step 1): validation: .* is NaN or infinite, .*; no epoch was completed"; do
  train --dataset good.safetensors --out "nan${case%%:*}" "${tiny[@]}" learning_rate=1e30 "batch_size=${case%%:*}" \
    task_loss=mse >/dev/null 2>nan.err
  [ $? -eq 2 ] && [ "$(wc -l <nan.err)" -eq 1 ] && grep -q "seed 1111, ${case#*:}" nan.err ||
    fail "a loss that becomes NaN: $(cat nan.err)"
  [ -z "$(find "nan${case%%:*}" -name '*.safetensors*')" ] || fail "a diverged run left a checkpoint"
done
data_set inf.safetensors '' "train.text F32 3,2,2 $one $nan 0000807f $two"
check "features with NaN and infinity are cleaned" train --dataset inf.safetensors --out cleaned "${tiny[@]}"
grep -q "text \[2, 2\] (2 NaN or infinite entries set to 0)" cleaned/log.txt || fail "the log does not count cleaned entries"

# ---- a full disk -----------------------------------------------------------------------------------------------------
(ulimit -f 4 && train --dataset good.safetensors --out full "${tiny[@]}" >/dev/null 2>full.err)
[ $? -eq 2 ] && [ "$(wc -l <full.err)" -eq 1 ] && grep -q "full/seed_1111/checkpoint.safetensors: cannot be written" full.err ||
  fail "a full disk: $(cat full.err)"
[ -z "$(find full -name '*.tmp' -o -name 'checkpoint*')" ] || fail "a full disk left a part of a file"
"$decalign" train --dataset good.safetensors --out killed "${tiny[@]}" num_epochs=1000000 early_stop_patience=1000000 >/dev/null 2>&1 &
pid=$!
for ((i = 0; i < 600; i++)); do
  [ -s killed/seed_1111/state.safetensors ] && break
  sleep 0.1
done
kill -9 $pid
wait $pid 2>/dev/null
cp killed/seed_1111/checkpoint.safetensors before
cp killed/seed_1111/state.safetensors state_before
(ulimit -f 4 && train --resume killed >/dev/null 2>full.err)
[ $? -eq 2 ] && grep -q "cannot be written" full.err || fail "a full disk while resuming: $(cat full.err)"
cmp before killed/seed_1111/checkpoint.safetensors || fail "a full disk cost the previous checkpoint"
cmp state_before killed/seed_1111/state.safetensors || fail "a full disk cost the previous state"
(ulimit -f 4 && "$decalign" convert good.safetensors small.pkl >/dev/null 2>&1) || fail "convert below the limit"
(ulimit -f 4 && "$decalign" convert generated big.pkl >/dev/null 2>full.err)
[ $? -eq 2 ] && grep -q "big.pkl: cannot be written" full.err && [ ! -e big.pkl ] && [ ! -e big.pkl.tmp ] ||
  fail "convert on a full disk: $(cat full.err)"

# ---- convert, and both formats give the same training ----------------------------------------------------------------
for file in "$seeds"/pickle/mmsa_numpy[12]_protocol[2-5].pkl; do
  check "convert a pickle" "$decalign" convert "$file" first.safetensors
  check "convert back" "$decalign" convert first.safetensors second.pkl
  check "and forth" "$decalign" convert second.pkl third.safetensors
  cmp first.safetensors third.safetensors || fail "$file: there and back gives other bits"
done
refused "convert of nothing" "none.pkl" convert none.pkl out.safetensors
refused "convert into a missing folder" "nowhere/out.safetensors" convert good.safetensors nowhere/out.safetensors
mkdir -p one/MOSI two/MOSI
cp "$pickle" one/MOSI/mosi_aligned_50.pkl
check "convert" "$decalign" convert "$pickle" two/MOSI/x.safetensors
mv two/MOSI/x.safetensors two/MOSI/mosi_aligned_50.pkl # told apart by content
for format in one two; do
  check "train on format $format" train --dataset mosi --data_dir $format --out $format/run "${tiny[@]}" \
    conv1d_kernel_size_{l,a,v}=2 need_feature_standardized=true
done
for file in seed_1111/checkpoint.safetensors seed_1111/predictions.csv metrics.json; do
  cmp "one/run/$file" "two/run/$file" || fail "the formats give different $file"
done
[ "$(grep -c 'NaN or infinite' one/run/log.txt)" -eq 3 ] || fail "the log counts cleaned entries"

# ---- token ids -------------------------------------------------------------------------------------------------------
mkdir vocabulary broken
printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\n!\n' >vocabulary/vocab.txt
printf 'good\nfilm\n' >broken/vocab.txt
texts='"train.raw_text":"[\"Good film!\",\"\",\"f\u00eflm bad\"]","valid.raw_text":"[\"a\",\"b\",\"c\"]","test.raw_text":"[\"good\",\"x\",\"!\"]"'
data_set raw.safetensors "$texts"
data_set few.safetensors '"train.raw_text":"[\"a\"]"'
data_set odd.safetensors '"train.raw_text":"[1]"'
tokenize=(tokenize --pretrained vocabulary)
refused "no vocabulary" "nowhere/vocab.txt: cannot be opened" tokenize --pretrained nowhere raw.safetensors out.pkl
refused "a vocabulary without [PAD]" "broken/vocab.txt: has no token [PAD]" tokenize --pretrained broken raw.safetensors out.pkl
refused "no pretrained" "--pretrained" tokenize raw.safetensors out.pkl
refused "no raw_text" "good.safetensors: split train: has no raw_text" "${tokenize[@]}" good.safetensors out.pkl
refused "N of raw_text" "few.safetensors: split train: raw_text has 1 samples, text has 3" "${tokenize[@]}" few.safetensors out.pkl
refused "raw_text of numbers" "odd.safetensors: metadata 'train.raw_text' holds something that is not text" "${tokenize[@]}" odd.safetensors out.pkl
refused "one step" "--steps" "${tokenize[@]}" --steps 1 raw.safetensors out.pkl
refused "no output" "IN and a file OUT, or --lines FILE" "${tokenize[@]}" raw.safetensors
refused "lines and a data set" "IN and a file OUT, or --lines FILE" "${tokenize[@]}" --lines good.txt raw.safetensors out.pkl
refused "lines of nothing" "none.txt: cannot be read" "${tokenize[@]}" --lines none.txt
refused "tokenize into a missing folder" "nowhere/out.pkl: cannot be" "${tokenize[@]}" raw.safetensors nowhere/out.pkl
check "tokenize" "$decalign" "${tokenize[@]}" --steps 4 raw.safetensors tokens.pkl
grep -qx "train: 3 samples, 1 cut to 4 tokens" check.out || fail "tokenize reports: $(cat check.out)"
check "tokenize into safetensors" "$decalign" "${tokenize[@]}" --steps 4 raw.safetensors tokens.safetensors
check "convert keeps token ids" "$decalign" convert tokens.pkl converted.safetensors
cmp tokens.safetensors converted.safetensors || fail "convert changes token ids"
check "tokenize in place" "$decalign" "${tokenize[@]}" --steps 4 tokens.pkl tokens.pkl
check "convert back" "$decalign" convert converted.safetensors again.pkl
cmp tokens.pkl again.pkl || fail "tokenize of the result gives something else"
# [CLS] good film [SEP] of the first clip, little-endian
ids=$(printf '%08x' 2 4 5 3 | sed 's/\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/g')
od -An -v -tx1 tokens.safetensors | tr -d ' \n' | grep -q "$ids" || fail "tokenize writes other ids"
for name in raw_text text_bert text audio labels ids; do
  grep -q "\"train.$name\"" tokens.safetensors || fail "tokenize loses $name"
done
check "training on float text beside token ids" train --dataset tokens.safetensors --out tokens_run "${tiny[@]}"
data_set only.safetensors "$texts" -train.text -valid.text -test.text
check "tokenize where raw_text is the only text" "$decalign" "${tokenize[@]}" only.safetensors only.pkl
printf 'Good film!\nfilm\n\n' >lines.txt
check "tokenize lines" "$decalign" "${tokenize[@]}" --lines lines.txt
[ "$(cat check.out)" = $'2 4 5 6 3\n2 5 3\n2 3' ] || fail "tokenize --lines prints $(cat check.out)"
check "tokenize lines with a limit" "$decalign" "${tokenize[@]}" --steps 3 --lines lines.txt
[ "$(head -n 1 check.out)" = "2 4 3" ] || fail "tokenize --lines --steps 3 prints $(cat check.out)"
data_set negative.safetensors '' "train.text_bert I32 3,3,2 01000000 ffffffff 01000000"
refused "negative token ids" "train: text_bert: clip 0, row 0, position 1 is -1, a whole number" convert negative.safetensors out.pkl
(ulimit -f 1 && "$decalign" "${tokenize[@]}" raw.safetensors full.pkl >/dev/null 2>full.err)
[ $? -eq 2 ] && grep -q "full.pkl: cannot be written" full.err && [ ! -e full.pkl ] && [ ! -e full.pkl.tmp ] ||
  fail "tokenize on a full disk: $(cat full.err)"

# ---- the text encoder ------------------------------------------------------------------------------------------------
export HOME=$work HF_HOME='' HF_HUB_CACHE='' XDG_CACHE_HOME=''
words() { printf '%08x' "$@" | sed 's/\(..\)\(..\)\(..\)\(..\)/\4\3\2\1 /g'; } # I32 as hex words

# bert FOLDER REPLACED...: one layer of width 4 for 7 tokens at 8 positions; entries replace tensors as in data_set.
mixed="cdcccc3d cdcc4cbe $half cdcc4c3e 000000bf 9a99993e cdcccc3d 000080be 0000803e cdccccbd 9a9999be $half"
bert() {
  local folder=$1 layer=encoder.layer.0. stem name entry
  shift
  mkdir -p "$folder"
  printf '[PAD]\n[UNK]\n[CLS]\n[SEP]\ngood\nfilm\n!\n' >"$folder/vocab.txt"
  printf '{"vocab_size":7,"hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":6,
    "max_position_embeddings":8,"model_type":"bert"}' >"$folder/config.json"
  local -A tensors=([embeddings.word_embeddings.weight]="F32 7,4 $mixed $mixed $two" [pooler.dense.bias]="F32 4 $one"
    [embeddings.position_embeddings.weight]="F32 8,4 $mixed" [embeddings.token_type_embeddings.weight]="F32 2,4 $mixed")
  for stem in embeddings. ${layer}attention.output. ${layer}output.; do
    tensors[${stem}LayerNorm.weight]="F32 4 $one" tensors[${stem}LayerNorm.bias]="F32 4 $half 00000000"
  done
  for name in self.query self.key self.value output.dense; do
    tensors[${layer}attention.$name.weight]="F32 4,4 $mixed" tensors[${layer}attention.$name.bias]="F32 4 00000000 $half"
  done
  tensors[${layer}intermediate.dense.weight]="F32 6,4 $mixed $mixed" tensors[${layer}intermediate.dense.bias]="F32 6 $half"
  tensors[${layer}output.dense.weight]="F32 4,6 $mixed $mixed" tensors[${layer}output.dense.bias]="F32 4 $half"
  for entry; do
    name=${entry%% *}
    if [ "${name:0:1}" = - ]; then unset "tensors[${name:1}]"; else tensors[$name]=${entry#* }; fi
  done
  local list=()
  for name in "${!tensors[@]}"; do list+=("$name ${tensors[$name]}"); done
  safetensors "$folder/model.safetensors" '' "${list[@]}"
}
clips=$(words 2 4 5 3 1 1 1 1 0 0 0 0 2 4 3 0 1 1 1 0 0 0 0 0 2 3 0 0 1 1 0 0 0 0 0 0)
ids=() text=()
for split in train valid test; do
  ids+=("$split.text_bert I32 3,3,4 $clips")
  text+=("-$split.text")
done
data_set ids.safetensors '' "${text[@]}" "${ids[@]}" # token ids only
data_set both.safetensors '' "${ids[@]}"
data_set raw_only.safetensors "$texts" "${text[@]}"
bert models/tiny
encoder=("${tiny[@]}" use_bert=true)
found=("${encoder[@]}" pretrained=models/tiny)

check "fine-tuning" train --dataset ids.safetensors --model_dir models --out tuned "${encoder[@]}" pretrained=tiny
grep -qF "text encoder models/tiny: 1 layers of 4, fine-tuned; not used of its file: pooler.dense.bias" tuned/log.txt &&
  grep -qF "text tokens [4] -> 4" tuned/log.txt || fail "the log of fine-tuning: $(head -n 5 tuned/log.txt)"
check "resume of a complete fine-tuned run" train --resume tuned
check "test of a fine-tuned encoder" "$decalign" test --checkpoint tuned --dataset ids.safetensors --out again.csv
cmp again.csv tuned/seed_1111/predictions.csv || fail "test of a fine-tuned encoder gives other predictions than training did"
check "predict" "$decalign" predict --checkpoint tuned --dataset both.safetensors --out p.csv
[ "$(cut -d, -f1,3 again.csv)" = "$(cat p.csv)" ] || fail "predict with a fine-tuned encoder gives other predictions than test"
check "training on raw text" train --dataset raw_only.safetensors --out raw_run "${found[@]}" mask_source=lengths checkpoint_activations=true
grep -qF "text tokens [8] -> 4" raw_run/log.txt || fail "raw text is not cut to the encoder's positions: $(head -n 5 raw_run/log.txt)"
check "test on raw text" "$decalign" test --checkpoint raw_run --out again.csv --dataset raw_only.safetensors
cmp again.csv raw_run/seed_1111/predictions.csv || fail "test on raw text gives other predictions than training did"
check "frozen" train --dataset both.safetensors --out frozen "${found[@]}" use_finetune=false
grep -qF "1 layers of 4, frozen" frozen/log.txt || fail "the log of a frozen encoder: $(head -n 5 frozen/log.txt)"
! grep -q "text_model" frozen/seed_1111/checkpoint.safetensors || fail "a checkpoint holds the weights of a frozen encoder"
sha=$(sha256sum models/tiny/model.safetensors | cut -d' ' -f1)
grep -q "$sha" frozen/seed_1111/checkpoint.safetensors || fail "a checkpoint lacks the hash of the frozen encoder"
check "test of a frozen encoder" "$decalign" test --checkpoint frozen --dataset both.safetensors --out again.csv
cmp again.csv frozen/seed_1111/predictions.csv || fail "test of a frozen encoder gives other predictions than training did"

# The fine-tuned encoder is in the checkpoint; only its vocabulary and a frozen one are needed later.
mv models/tiny models/away
check "test without the pretrained folder" "$decalign" test --checkpoint tuned --dataset ids.safetensors
refused "test on raw text without a vocabulary" "raw_only.safetensors: split test: has only raw_text; a vocabulary" \
  test --checkpoint raw_run --dataset raw_only.safetensors
refused "test without the frozen encoder" '"models/tiny" was not found; looked for config.json in models/tiny' \
  test --checkpoint frozen --dataset both.safetensors
refused "resume without the frozen encoder" "" train --resume frozen
bert models/tiny "encoder.layer.0.output.dense.bias F32 4 $one"
refused "test with another frozen encoder" "models/tiny/model.safetensors: is not the encoder that frozen/seed_1111/checkpoint.safetensors" \
  test --checkpoint frozen --dataset both.safetensors
rm -r models/tiny
mv models/away models/tiny

# Where there is none.
for name in no-such-bert owner/no-such-bert; do
  check "a name that is not found, and float text" train --dataset both.safetensors --out "float_${name%%[-/]*}" "${encoder[@]}" \
    pretrained=$name --model_dir models
  grep -F 'warning: use_bert: the float features "text" are used instead: key "pretrained": "'$name'" was not found' \
    "float_${name%%[-/]*}/log.txt" | grep -qF "models/$name" || fail "the warning of an encoder that is not found"
done
check "no name, and float text" train --dataset both.safetensors --out float_none "${encoder[@]}"
check "an encoder, and float text alone" train --dataset good.safetensors --out float_data "${found[@]}"
grep -qF 'the data has neither token ids ("text_bert") nor "raw_text"' float_data/log.txt || fail "the warning of float text"
refused "a folder that is not there" 'key "pretrained": "/no/such/folder" was not found; looked for config.json in /no/such/folder;' \
  train --dataset both.safetensors --out run2 "${encoder[@]}" pretrained=/no/such/folder
refused "only token ids, no encoder" 'ids.safetensors: split train: has only text_bert (token ids); float '\''text'\'' [N, T, d] is needed: key "pretrained": "no-such-bert" was not found' \
  train --dataset ids.safetensors --out run2 "${encoder[@]}" pretrained=no-such-bert
vision=()
for split in train valid test; do vision+=("$split.vision F32 3,2,1 $half $one $two"); done
data_set three.safetensors "$texts" "${text[@]}" "${vision[@]}"
refused "only raw text, no encoder" 'three.safetensors: split train: has only raw_text; float '\''text'\'' [N, T, d] is needed: key "pretrained": "no-such-bert" was not found' \
  train --dataset three.safetensors --out run2 "${encoder[@]}" pretrained=no-such-bert
refused "only raw text, no encoder named" 'has only raw_text; float '\''text'\'' [N, T, d] is needed: key "pretrained" names no text encoder' \
  train --dataset three.safetensors --out run2 "${encoder[@]}" pretrained=
check "only raw text, use_bert off" train --dataset three.safetensors --out without_text "${tiny[@]}"
data_set two.safetensors '' "${text[@]}" "${vision[@]}"
check "no text at all" train --dataset two.safetensors --out no_text "${found[@]}"
grep -qx "warning: use_bert: the data has no text" no_text/log.txt || fail "the warning without text: $(cat no_text/log.txt)"
refused "only token ids, use_bert off" "has only text_bert (token ids); float 'text' [N, T, d] is needed" \
  train --dataset ids.safetensors --out run2 "${tiny[@]}"

# encoder_refused NAME TEXT DATA KEYS...: training with models/bad ends in a line, fine-tuned and frozen.
encoder_refused() {
  local name=$1 text=$2 data=$3 finetune
  shift 3
  for finetune in true false; do
    refused "$name, use_finetune=$finetune" "$text" train --dataset "$data" --out run2 "${encoder[@]}" pretrained=models/bad \
      use_finetune=$finetune "$@"
  done
}
bert models/bad
data_set outside.safetensors '' "${ids[@]}" "valid.text_bert I32 3,3,4 $(words 2 4 5 3 1 1 1 1 0 0 0 0 2 4 7 3 1 1 1 1 0)"
encoder_refused "a token id outside the vocabulary" \
  "outside.safetensors: split valid: text_bert: clip 1 (valid_1), position 2: token id 7 is outside the vocabulary [0, 7)" outside.safetensors
data_set outside.safetensors '' "${ids[@]}" "test.text_bert I32 3,3,4 $(words 2 4 5 3 1 1 1 1 0 2 0 0 2 4 5 3 1 1 1 1 0)"
encoder_refused "a segment outside" "split test: text_bert: clip 0 (test_0), position 1: segment id 2 is outside" outside.safetensors
data_set long.safetensors '' "${ids[@]}" "test.text_bert I32 3,3,9 $(words 0)"
encoder_refused "more tokens than positions" "long.safetensors: split test: text has 9 tokens, the encoder takes 8" long.safetensors
encoder_refused "a kernel longer than the tokens" "is 5, longer than the 4 steps of text" ids.safetensors conv1d_kernel_size_l=5
size=$(stat -c %s models/bad/model.safetensors)
for bytes in 0 4 300 $((size - 200)) $((size - 1)); do
  head -c "$bytes" models/tiny/model.safetensors >models/bad/model.safetensors
  encoder_refused "weights cut to $bytes bytes" "models/bad/model.safetensors" ids.safetensors
done
rm models/bad/model.safetensors
encoder_refused "no weights" "models/bad/model.safetensors: is missing" ids.safetensors
bert models/bad "encoder.layer.0.intermediate.dense.weight F32 4,6 $one"
encoder_refused "weights of another shape" \
  'models/bad/model.safetensors: tensor "encoder.layer.0.intermediate.dense.weight" is [4, 6]' ids.safetensors
bert models/bad -embeddings.LayerNorm.bias
encoder_refused "a missing weight" "models/bad/model.safetensors" ids.safetensors
grep -qF "'embeddings.LayerNorm.bias'" refused.err || fail "a missing weight is not named: $(cat refused.err)"
bert models/bad
printf '{"vocab_size":16777216,"hidden_size":16777216,"num_attention_heads":16}' >models/bad/config.json
encoder_refused "sizes beyond all memory" 'models/bad/model.safetensors: tensor "embeddings.word_embeddings.weight" is [7, 4]' both.safetensors
for text in '{"vocab_size":7,' '' '[]' '{"hidden_size":0}' '{"num_attention_heads":5}' '{"hidden_act":"relu"}' '{"vocab_size":"many"}'; do
  printf %s "$text" >models/bad/config.json
  encoder_refused "config.json $text" "models/bad/config.json" ids.safetensors
done
bert models/bad
for text in '[PAD]\n[UNK]\n[CLS]\n' '' '[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xff\xfe\n'; do
  printf "$text" >models/bad/vocab.txt
  encoder_refused "vocab.txt $text" "models/bad/vocab.txt" ids.safetensors
done

# ---- help ------------------------------------------------------------------------------------------------------------
for command in "" train test predict replay metrics convert tokenize info; do
  check "help of $command" "$decalign" $command --help
  [ "$(wc -l <check.out)" -ge 4 ] && [ ! -s check.err ] || fail "help of $command is empty"
done
check "info" "$decalign" info
check "info --keys" "$decalign" info --keys
grep -q '`num_prototypes`' check.out || fail "info --keys lists no num_prototypes"

[ $failures -eq 0 ] || { echo "$failures of $checks checks failed" >&2; exit 1; }
echo "$checks checks passed"
