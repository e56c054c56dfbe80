#!/usr/bin/env bash
# checkpoints.sh PACK [OUT] [RANKS] [REPEATS]: what checkpoints of Llama-1B (14.8 GB of state) cost its training, by strategy, on a disk
# (DISK, default /tmp) and in memory (/dev/shm), beside what `dd` reaches there; and, if PACK/peers/torch_ceilings.py is there, what
# PyTorch's DCP takes for a state of that size in the same call. Random tokens. The logs are in OUT (default: ./gpu-checkpoints).
set -euo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-gpu-checkpoints}"
out=$(cd "${2:-gpu-checkpoints}" && pwd)
. "$pack/env"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=/bin/true OMP_NUM_THREADS=1
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
if [ "$gpus" -eq 0 ]; then
  echo "SKIP no GPU"
  exit 0
fi
ranks=${3:-1} repeats=${4:-1} disk=${DISK:-/tmp}
# Memory of both is touched first: a file that is written over asks the kernel for none.
for folder in "$disk" /dev/shm; do
  direct=()
  [ "$folder" = /dev/shm ] || direct=(oflag=direct)
  for attempt in 1 2; do
    dd if=/dev/zero of="$folder/strake-dd" bs=16M count=512 conv=fsync,notrunc "${direct[@]}" 2>&1 | tail -1 | sed "s|^|dd $folder: |"
  done
  rm -f "$folder/strake-dd"
done | tee "$out/dd.log"
for writers in ${WRITERS:-4 8}; do
  mpirun --bind-to none -n "$ranks" "$pack/bin/strake" bench checkpoint "$pack/examples/llama-1b.toml" --random-data \
    "run.dir=$out/run" train.micro_batch=2 "train.global_batch=$((2 * ranks))" train.sequence=4096 "checkpoint.writers=$writers" \
    checkpoint.keep=1 --every "${EVERY:-80}" --saves 2 --repeats "$repeats" --strategies "${STRATEGIES:-sync,lazy,device}" \
    --folder "$disk" --folder /dev/shm --json > "$out/bench-$writers.json" 2> "$out/bench-$writers.log" ||
    { tail "$out/bench-$writers.log"; exit 1; }
  python3 - "$out/bench-$writers.json" "$writers" <<'PYTHON'
import json, sys
bench = json.load(open(sys.argv[1]))
print(f"{sys.argv[2]} writers, {bench['ranks']} rank(s), {bench['checkpoint_bytes'] / 1e9:.2f} GB")
for row in bench["rows"]:
    def median(key): return row[key]["median"]
    print(f"  {row['strategy']:7} {row['folder']:9} step {row['undisturbed_step_ms']:.2f} ms, stall {median('stall_ms'):.1f}, interference "
          f"{median('interference_ms'):.1f} ({100 * row['interference_share']:.2f} %), snapshot {median('snapshot_ms'):.0f}, durable "
          f"{median('durable_ms'):.0f} ms, {row['write_bytes_per_s'] / 1e9:.2f} GB/s, load {row['load_warm_s']} s, cold {row['load_cold_s']}")
PYTHON
done
if [ -e "$pack/peers/torch_ceilings.py" ]; then
  torchrun --nproc-per-node "$ranks" "$pack/peers/torch_ceilings.py" 2> "$out/dcp.log" | grep dcp | tee "$out/dcp.txt"
fi
