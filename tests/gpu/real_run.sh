#!/usr/bin/env bash
# real_run.sh CORPUS WORK [key=value ...]: trains examples/gpt2-bytes.toml on every GPU of this machine, stops the run once
# by a signal, resumes it, and lets the model write.
#   CORPUS   folder with gcide.txt and linux.txt, or the same with .xz behind (docs/benchmarks.md says where they come from)
#   WORK     folder for token files and the run: a fast disk with 3 GB free
#   STRAKE   command that starts the program (default: build/release/bin/strake)
#   STOP_AT  step behind which the signal is sent (default 800)
set -euo pipefail
corpus=$1 work=$2
shift 2
here=$(cd "$(dirname "$0")/../.." && pwd)
config=${CONFIG:-$here/examples/gpt2-bytes.toml}
read -ra strake <<<"${STRAKE:-$here/build/release/bin/strake}"
gpus=$(nvidia-smi -L | wc -l)
run=$work/run
mkdir -p "$work"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

for text in gcide linux; do
  [ -s "$work/$text.txt" ] && continue
  if [ -s "$corpus/$text.txt" ]; then cp "$corpus/$text.txt" "$work/"; else xz -dc "$corpus/$text.txt.xz" >"$work/$text.txt"; fi
done
# The last 2 % of each text are held out: `data prepare` takes the end of what it is given, so both ends go there.
python3 - "$work" <<'PYTHON'
import pathlib, sys
work = pathlib.Path(sys.argv[1])
heads, tails = [], []
for name in "gcide", "linux":
    text = (work / f"{name}.txt").read_bytes()
    cut = text.rfind(b"\n", 0, int(0.98 * len(text))) + 1
    heads.append(text[:cut])
    tails.append(text[cut:])
(work / "corpus.txt").write_bytes(b"".join(heads + tails))
(work / "fraction").write_text(repr(sum(map(len, tails)) / sum(map(len, heads + tails))))
PYTHON
[ -s "$work/val.bin" ] || "${strake[@]}" data prepare "$work/corpus.txt" --train "$work/train.bin" --val "$work/val.bin" \
  --val-fraction "$(cat "$work/fraction")" --source "gcide 0.48.5, linux-doc 6.1"

# exec: the process that is waited for and signalled is mpirun itself.
train() {
  exec mpirun --bind-to none -n "$gpus" "${strake[@]}" train "$config" run.dir="$run" data.train="$work/train.bin" \
    data.val="$work/val.bin" train.global_batch=$((64 * gpus)) "$@"
}

echo "== until behind step ${STOP_AT:-800}"
train "$@" &
pid=$!
until [ -s "$run/metrics.jsonl" ] && [ "$(wc -l <"$run/metrics.jsonl")" -ge "${STOP_AT:-800}" ]; do
  kill -0 "$pid" || break
  sleep 0.2
done
pkill -USR1 -o -P "$pid" -x strake || true  # one rank is enough: they agree to stop
code=0
wait "$pid" || code=$?
[ "$code" -eq 18 ] || { echo "real_run: the stopped run exited with $code, not with 18" >&2; exit 1; }
echo "== resumed"
(train "$@")
"${strake[@]}" ckpt verify "$run"
echo "== samples"
for prompt in "The word \"freedom\" " $'Locking\n=======\n\n'; do
  echo "-- prompt: $prompt"
  "${strake[@]}" generate "$run" --prompt "$prompt" --tokens 500 --temperature 0.8 --seed 1
done
echo "== held-out loss"
python3 - "$run/metrics.jsonl" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    entry = json.loads(line)
    if "val_loss" in entry:
        print(f"step {entry['step']:5} attempt {entry['attempt']} held-out {entry['val_loss']:.4f} nats a byte")
PYTHON
