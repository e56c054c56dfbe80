#!/usr/bin/env bash
# racecheck.sh PACK [OUT]: why compute-sanitizer's racecheck ends a bf16 training by itself on some machines: the case of run.sh
# in variants that differ in one thing each, and for each how it ended, what the program said, what the tool said last and how many
# reports there were. The logs are in OUT (default: ./gpu-racecheck). About 4 minutes on one GPU.
set -uo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-gpu-racecheck}"
out=$(cd "${2:-gpu-racecheck}" && pwd)
. "$pack/env"
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
if [ -z "$sanitizer" ] || ! nvidia-smi -L 2> /dev/null | grep -q '^GPU'; then
  echo "SKIP no compute-sanitizer or no GPU"
  exit 0
fi
"$sanitizer" --version | tail -1
nvidia-smi --query-gpu=name,driver_version,memory.free --format=csv,noheader
free -g | sed -n 2p
python3 "$here/make_random_tokens.py" "$out/racecheck-tokens.bin" 2e5 256 > /dev/null
cat > "$out/racecheck.toml" <<TOML
[run]
dir = "$out/run-racecheck"
device = "cuda"
[data]
train = "$out/racecheck-tokens.bin"
[model]
layers = 2
channels = 128
heads = 4
vocab = 256
[train]
steps = 3
global_batch = 8
micro_batch = 4
sequence = 128
deterministic = true
[optimizer]
warmup_steps = 1
TOML

# variant NAME TOOL_OPTIONS -- KEYS...: a training of three steps.
variant() {
  local name=$1 log=$out/racecheck-$1.log code=0 options=() begin=$SECONDS how
  shift
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  rm -rf "$out/run-racecheck"
  timeout --kill-after=5 90 "$sanitizer" --tool racecheck --error-exitcode 99 --print-limit 1000 "${options[@]}" \
    "$pack/bin/strake" train "$out/racecheck.toml" "$@" > "$log" 2>&1 || code=$?
  how="exit code $code"
  [ "$code" -gt 128 ] && [ "$code" -lt 160 ] && how="signal $(kill -l $((code - 128)))"
  [ "$code" -eq 124 ] && how="the limit of 90 s"
  echo "== $name: $how after $((SECONDS - begin)) s, $(grep -cE 'Race reported|hazard' "$log") reports," \
    "$(grep -E 'Race reported|hazard' "$log" | grep -v SUMMARY | grep -vc cudnn_generated) of them outside cuDNN"
  grep -E '^strake: (error|internal)|step breakdown|Internal Sanitizer Error' "$log" | head -3
  grep '=========' "$log" | grep -vE 'Race reported|hazard|Saved host|Host Frame|Device Frame| at |^=+ *$' | tail -4
}
no_tool() {
  local code=0
  rm -rf "$out/run-racecheck"
  "$pack/bin/strake" train "$out/racecheck.toml" train.dtype=bf16 > "$out/racecheck-no-tool.log" 2>&1 || code=$?
  echo "== without the tool: exit code $code: $(tail -1 "$out/racecheck-no-tool.log")"
}
no_tool
variant as-in-run -- train.dtype=bf16
variant f32 -- train.dtype=f32  # plain attention instead of cuDNN's
variant no-backtraces --show-backtrace no -- train.dtype=bf16  # host memory and time of a thousand reports
variant no-async-copies --racecheck-memcpy-async no -- train.dtype=bf16  # what it does not model in cuDNN's kernels
variant one-sequence -- train.dtype=bf16 train.micro_batch=1 train.global_batch=1  # a smaller grid of attention
rm -rf "$out/run-racecheck" "$out/racecheck-tokens.bin" "$out/racecheck.toml"
