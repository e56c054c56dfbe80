#!/usr/bin/env bash
# models.sh PACK [OUT] [BEFORE [PAIRS]]: what models of several kinds and every policy of recomputation take on one GPU, in time and
# memory, with random tokens; or, where BEFORE is another build's pack, the reference workload with both builds in turn.
# The JSON of each measurement is in OUT (default: ./gpu-models).
set -uo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-gpu-models}"
out=$(cd "${2:-gpu-models}" && pwd)
before=${3:-} pairs=${4:-10}
. "$pack/env"
export OMP_NUM_THREADS=1
if ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  echo "SKIP no GPU"
  exit 0
fi
# measure PACK NAME ARGUMENTS...
measure() {
  local from=$1 name=$2
  shift 2
  timeout 150 "$from/bin/strake" bench step "$@" --random-data --json "run.dir=$out/run" > "$out/$name.json" 2> "$out/$name.log" ||
    echo "$name: failed: $(tail -1 "$out/$name.log")"
}
if [ -n "$before" ]; then
  for ((round = 1; round <= pairs; ++round)); do
    for which in $([ $((round % 2)) -eq 1 ] && echo before after || echo after before); do
      from=$pack
      [ "$which" = before ] && from=$before
      measure "$from" "w1-$which-$round" "$from/examples/gpt2-124m.toml" --warmup 8 --steps 12 --repeats 2 \
        train.global_batch=64
    done
  done
else
  for policy in none norm_activation block; do
    measure "$pack" "gpt2-124m-$policy" "$pack/examples/gpt2-124m.toml" --warmup 4 --steps 6 --repeats 2 \
      train.global_batch=64 train.recompute=$policy
    measure "$pack" "llama-350m-$policy" "$pack/examples/llama-350m.toml" --warmup 4 --steps 6 --repeats 2 \
      train.global_batch=32 train.recompute=$policy
  done
  measure "$pack" llama-1b-block "$pack/examples/llama-1b.toml" --warmup 3 --steps 4 --repeats 2 train.global_batch=8
  measure "$pack" gpt2-1.5b-block "$pack/examples/gpt2-1.5b.toml" --warmup 3 --steps 4 --repeats 2 train.global_batch=32
fi
python3 - "$out" <<'PYTHON'
import json, pathlib, statistics, sys

out = pathlib.Path(sys.argv[1])
found = {}
for path in sorted(out.glob("*.json")):
    try:
        found[path.stem] = json.loads(path.read_text())
    except ValueError:
        continue
for name, one in found.items():
    memory = max(rank["device_memory_bytes"] for rank in one["ranks"])
    print(f"{name:28} {one['step_ms']['median']:9.2f} ms a step ({one['step_ms']['low']:.2f} .. {one['step_ms']['high']:.2f}), "
          f"{one['tokens_per_s']:11,.0f} tokens/s, {memory / 2**30:7.2f} GiB planned")
ratios = [found[f"w1-after-{i}"]["step_ms"]["median"] / found[f"w1-before-{i}"]["step_ms"]["median"]
          for i in range(1, 31) if f"w1-after-{i}" in found and f"w1-before-{i}" in found]
if len(ratios) > 1:
    mean, error = statistics.mean(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5
    # Student's t, two sides, 95 %.
    t = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}.get(len(ratios) - 1, 2.26)
    print(f"after / before: {mean:.4f}, 95 % interval {mean - t * error:.4f} .. {mean + t * error:.4f}, {len(ratios)} pairs")
PYTHON
