#!/usr/bin/env bash
# measure.sh PACK [OUT] [RANKS] [ROUNDS]: what deterministic mode costs: the step of examples/gpt2-124m.toml with and without
# it, in turn, on RANKS GPUs (default: all), random tokens. The JSON of each measurement is in OUT (default: ./gpu-measure).
set -euo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-gpu-measure}"
out=$(cd "${2:-gpu-measure}" && pwd)
. "$pack/env"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=/bin/true OMP_NUM_THREADS=1
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
if [ "$gpus" -eq 0 ]; then
  echo "SKIP no GPU"
  exit 0
fi
ranks=${3:-$gpus} rounds=${4:-2}
rm -f "$out"/step-*.json
for ((round = 1; round <= rounds; ++round)); do
  for deterministic in false true; do
    mpirun --bind-to none -n "$ranks" "$pack/bin/strake" bench step "$pack/examples/gpt2-124m.toml" --random-data --json \
      --warmup 8 --steps 15 --repeats 2 "run.dir=$out/run" "train.global_batch=$((64 * ranks))" \
      "train.deterministic=$deterministic" > "$out/step-$deterministic-$round.json" 2> "$out/step-$deterministic-$round.log" ||
      { tail "$out/step-$deterministic-$round.log"; exit 1; }
  done
done
python3 - "$out" <<'PYTHON'
import json, pathlib, statistics, sys
out = pathlib.Path(sys.argv[1])
found = {}
for mode in "false", "true":
    found[mode] = [json.loads(path.read_text()) for path in sorted(out.glob(f"step-{mode}-*.json"))]
    for one in found[mode]:
        print(f"deterministic = {mode:5}: {one['step_ms']['median']:8.2f} ms a step ({one['step_ms']['low']:.2f} .. "
              f"{one['step_ms']['high']:.2f}), {one['tokens_per_s']:,.0f} tokens/s")
free, fixed = (statistics.median(one["step_ms"]["median"] for one in found[mode]) for mode in ("false", "true"))
print(f"deterministic mode costs {100 * (fixed / free - 1):+.1f} % of a step on {len(found['true'][0]['ranks'])} GPU(s)")
PYTHON
