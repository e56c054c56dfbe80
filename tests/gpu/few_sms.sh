#!/usr/bin/env bash
# few_sms.sh PACK [OUT] [RANKS] [quick]: what each switch of [comm] that says how many multiprocessors communication takes is
# worth, on RANKS GPUs (default: all) of one host, in one call: the collectives' rates alone, and beside a matrix product what each
# takes from the other (`strake bench comm --beside`); then the whole step of examples/gpt2-124m.toml, 64 sequences a GPU, replicated
# and sharded, all variants in turn for as many rounds as fit into BUDGET seconds (default: 350; one at least).
# Prints tables of medians; OUT (default: ./few-sms) has them as few_sms.json, and each measurement.
# quick: small sizes and one round, to see that everything runs; without a GPU on CPU ranks, where switches have no effect.
set -euo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-few-sms}"
out=$(cd "${2:-few-sms}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
. "$pack/env"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=/bin/true OMP_NUM_THREADS=1
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
quick=${4:-}
if [ "$gpus" -lt 2 ] && [ "$quick" != quick ]; then
  echo "SKIP needs 2 GPUs, this machine has $gpus"
  exit 0
fi
ranks=${3:-$gpus} budget=${BUDGET:-350}
if [ "$ranks" -lt 2 ]; then ranks=2; fi
rm -f "$out"/comm-*.json "$out"/step-*.json "$out"/*.log

if [ "$quick" = quick ]; then
  sizes=(--min 64KiB --max 512KiB --factor 8 --iterations 3 --warmup 1 --beside 256x256x256)
  shape=(model.layers=2 model.channels=128 model.heads=2 train.sequence=128 train.micro_batch=2
    "train.global_batch=$((2 * ranks))" optimizer.warmup_steps=1)
  steps=(--warmup 2 --steps 3 --repeats 1)
else
  sizes=(--min 4MiB --max 256MiB --factor 8 --iterations 20 --seconds 1 --beside 8192x16384x2048)
  shape=("train.global_batch=$((64 * ranks))")
  steps=(--warmup 8 --steps 15 --repeats 1)
fi
dtype=bf16
if [ "$gpus" -eq 0 ]; then dtype=f32; fi
start() { mpirun --bind-to none --oversubscribe -n "$ranks" "$pack/bin/strake" "$@"; }
failed=0
# measure NAME ARGUMENTS...: its JSON in OUT/NAME.json. What fails is told and left out.
measure() {
  local name=$1
  shift
  if ! start "$@" --json > "$out/$name.json" 2> "$out/$name.log"; then
    echo "FAIL $name: $(grep -m1 'strake: ' "$out/$name.log" || tail -1 "$out/$name.log")"
    rm -f "$out/$name.json"
    failed=1
  fi
}

symmetric=comm.buffers=symmetric
# Name, and the keys behind it.
comm_variants=(
  "plain"
  "ctas-16 comm.max_ctas=16"
  "ctas-8 comm.max_ctas=8"
  "registered comm.buffers=registered"
  "registered-ctas-8 comm.buffers=registered comm.max_ctas=8"
  "symmetric $symmetric"
  "symmetric-ctas-8 $symmetric comm.max_ctas=8"
  "symmetric-ctas-8-spare-8 $symmetric comm.max_ctas=8 comm.spare_sms=8"
  "copy-engines $symmetric comm.max_ctas=8 comm.copy_engines=true"
)
for variant in "${comm_variants[@]}"; do
  read -ra words <<< "$variant"
  measure "comm-${words[0]}" bench comm "${words[@]:1}" --only all_reduce,reduce_scatter,all_gather --dtype "$dtype" "${sizes[@]}"
done

shard=train.shard=optimizer
step_variants=(
  "plain"
  "ctas-16 comm.max_ctas=16"
  "ctas-8 comm.max_ctas=8"
  "ctas-8-spare-8 comm.max_ctas=8 comm.spare_sms=8"
  "registered comm.buffers=registered"
  "symmetric $symmetric"
  "symmetric-ctas-8 $symmetric comm.max_ctas=8"
  "symmetric-ctas-8-spare-8 $symmetric comm.max_ctas=8 comm.spare_sms=8"
  "sharded-plain $shard"
  "sharded-symmetric-ctas-8 $shard $symmetric comm.max_ctas=8"
  "sharded-copy-engines $shard $symmetric comm.max_ctas=8 comm.copy_engines=true"
)
round=0 longest=0
while [ "$round" -eq 0 ] || { [ "$quick" != quick ] && [ $((SECONDS + longest)) -le "$budget" ]; }; do
  begin=$SECONDS
  for variant in "${step_variants[@]}"; do
    read -ra words <<< "$variant"
    measure "step-${words[0]}-round-$round" bench step "$pack/examples/gpt2-124m.toml" "${words[@]:1}" --random-data \
      "run.dir=$out/run" "${shape[@]}" "${steps[@]}"
  done
  longest=$((SECONDS - begin > longest ? SECONDS - begin : longest))
  round=$((round + 1))
done
python3 "$here/few_sms.py" "$out"
echo "$round round(s) of steps, $SECONDS s; logs in $out"
exit "$failed"
