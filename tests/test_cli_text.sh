#!/usr/bin/env bash
# The command line on text: token ids, text encoders, what bad ones get. Usage: test_cli_text.sh DECALIGN
source "$(dirname "$0")/cli_support.sh"

data_set good.safetensors ''
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

finish
