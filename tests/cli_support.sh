# The command line's tests share this: what bad input gets, data sets written byte by byte. Sourced with DECALIGN [SEEDS_DIR].
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

finish() {
  [ $failures -eq 0 ] || { echo "$failures of $checks checks failed" >&2; exit 1; }
  echo "$checks checks passed"
}
