#!/usr/bin/env bash
# The command line: what bad input gets, and the commands on good input. Usage: test_cli.sh DECALIGN [SEEDS_DIR]
source "$(dirname "$0")/cli_support.sh"

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
refused "paper variant" "set gmm_covariance=diagonal" "${good[@]}" variant=paper local_proto_mahalanobis=true
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

# ---- help ------------------------------------------------------------------------------------------------------------
for command in "" train test predict replay metrics convert tokenize info; do
  check "help of $command" "$decalign" $command --help
  [ "$(wc -l <check.out)" -ge 4 ] && [ ! -s check.err ] || fail "help of $command is empty"
done
check "info" "$decalign" info
check "info --keys" "$decalign" info --keys
grep -q '`num_prototypes`' check.out || fail "info --keys lists no num_prototypes"

finish
