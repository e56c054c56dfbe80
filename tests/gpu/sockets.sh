#!/usr/bin/env bash
# sockets.sh PACK [OUT] [STEPS]: two ranks whose gradients go through sockets, as between two hosts without RDMA, beside the
# same run over NVLink. Peer access and shared memory are off and each rank says that it is on a host of its own, so NCCL has
# no other way. Prints the proof, both breakdowns (exposed communication), and whether losses are equal bit for bit: two ranks add
# once an element, whatever carries it. Logs in OUT (default: ./gpu-sockets).
set -euo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-gpu-sockets}"
out=$(cd "${2:-gpu-sockets}" && pwd)
steps=${3:-15}
here=$(cd "$(dirname "$0")" && pwd)
. "$pack/env"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=/bin/true OMP_NUM_THREADS=1
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
if [ "$gpus" -lt 2 ]; then
  echo "SKIP needs 2 GPUs, this machine has $gpus"
  exit 0
fi
rm -rf "$out"/run-* "$out"/nccl-*
python3 "$here/make_random_tokens.py" "$out/tokens.bin" 4e6 50257

# train NAME COMMAND_PREFIX: trains in OUT/run-NAME.
train() {
  local name=$1 prefix=$2
  echo "== $name"
  # The rank's own name for its host and its log must be known before NCCL starts: hence a shell for each rank.
  mpirun --bind-to none -n 2 sh -c "$prefix exec \"\$@\"" sh "$pack/bin/strake" train "$pack/examples/gpt2-124m.toml" \
    "run.dir=$out/run-$name" "data.train=$out/tokens.bin" "train.steps=$steps" optimizer.warmup_steps=5 train.deterministic=true \
    > "$out/$name.log" 2>&1 || { tail "$out/$name.log"; exit 1; }
  sed -n '/step breakdown/,/run folder/p' "$out/$name.log"
}
train nvlink ''
export NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1
# shellcheck disable=SC2016 # expanded by each rank's shell
train sockets 'export NCCL_HOSTID=rank$OMPI_COMM_WORLD_RANK NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=INIT,NET,GRAPH \
  NCCL_DEBUG_FILE='"$out"'/nccl-$OMPI_COMM_WORLD_RANK.log;'
echo "== what NCCL says it uses"
cat "$out"/nccl-*.log | grep -E 'via NET/Socket' | sort | uniq -c | sort -rn | tail -4
if ! grep -q 'via NET/Socket' "$out"/nccl-0.log || grep -qE 'via (P2P|SHM)' "$out"/nccl-*.log; then
  echo "FAIL not all gradients went through sockets: $out/nccl-0.log"
  exit 1
fi
echo "== results"
python3 "$here/compare_runs.py" "$out/run-nvlink" "$out/run-sockets"
rm -rf "$out"/run-* "$out/tokens.bin"
