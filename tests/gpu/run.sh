#!/usr/bin/env bash
# run.sh PACK [OUT]: every GPU test on a machine with one or more GPUs, from what pack.sh put into PACK. Prints a line an item,
# PASS, FAIL or SKIP with the reason; the logs are in OUT (default: ./gpu-tests). Exits 1 if anything failed. About 10 minutes, and 4 more where there are two GPUs.
# ITEMS=REGEX in the environment: only items with such a name.
# What needs one GPU only runs while the sanitizers take another, where there is one.
set -uo pipefail
pack=$(cd "$1" && pwd)
mkdir -p "${2:-gpu-tests}"
out=$(cd "${2:-gpu-tests}" && pwd)
. "$pack/env"
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=/bin/true
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
: > "$out/results"

result() {  # WORD NAME SECONDS TEXT
  printf '%-4s  %-24s %4s s  %s\n' "$1" "$2" "$3" "$4" | tee -a "$out/results"
}
# item NAME SECONDS JUDGE COMMAND...: runs COMMAND for at most SECONDS, its output in OUT/NAME.log. JUDGE LOG EXIT_CODE prints
# the line's word and text.
item() {
  local name=$1 limit=$2 judge=$3 begin=$SECONDS code=0 word text
  shift 3
  [[ $name =~ ${ITEMS:-.} ]] || return 0
  timeout --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1 || code=$?
  if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
    word=FAIL text="ran into its limit of $limit s"
  else
    read -r word text < <("$judge" "$out/$name.log" "$code")
  fi
  result "$word" "$name" "$((SECONDS - begin))" "$text"
}

# A GoogleTest program: skipped if nothing ran.
by_gtest() {
  local passed skipped failed reason
  # The last of each: a test may run others as its children.
  passed=$(grep -oP '\[  PASSED  \] \K[0-9]+' "$1" | tail -1)
  skipped=$(grep -oP '\[  SKIPPED \] \K[0-9]+(?= test)' "$1" | tail -1)
  failed=$(grep -oP '\[  FAILED  \] \K\S+(?=,|$)' "$1" | sort -u | head -3 | tr '\n' ' ')
  reason=$(grep -m1 -E '^(no GPU|needs [0-9]+ GPUs)' "$1")
  if [ "$2" -ne 0 ]; then
    echo "FAIL exit code $2: ${failed:-$(tail -1 "$1")}"
  elif [ "${passed:-0}" -eq 0 ]; then
    echo "SKIP ${reason:-no test has this name}"
  else
    echo "PASS $passed passed${skipped:+, $skipped skipped}"
  fi
}
by_bench() {
  if [ "$2" -ne 0 ]; then
    echo "FAIL exit code $2: $(tail -1 "$1")"
  elif grep -q '^skipped:' "$1"; then
    echo "SKIP $(grep -m1 -oP '^skipped: \K.*' "$1")"
  elif grep -q 'DOES NOT HOLD' "$1"; then
    echo "FAIL $(grep -c 'DOES NOT HOLD' "$1") of $(grep -c 'verdict:' "$1") verdicts do not hold: $(grep -m1 'DOES NOT HOLD' "$1" | sed 's/.*verdict: //')"
  else
    echo "PASS $(grep -c 'verdict:' "$1") verdicts hold"
  fi
}
by_sanitizer() {
  local summary
  summary=$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$1" | sed 's/^=* *//' | sort -u | paste -sd'; ')
  # A program that was not instrumented proves nothing.
  if [ "$2" -eq 0 ] && [ -n "$summary" ]; then echo "PASS $summary"; else echo "FAIL exit code $2: ${summary:-$(tail -1 "$1")}"; fi
}
# How a program ended, for people: compute-sanitizer ends with the program's exit code, or 99 where it has something to report
# and the program ended with 0, or is itself ended by a signal.
ended_with() {  # EXIT_CODE
  if [ "$1" -gt 128 ] && [ "$1" -lt 160 ]; then echo "signal $(kill -l $(($1 - 128)))"; else echo "exit code $1"; fi
}
# Every kernel is instrumented: with a filter on names racecheck itself fails on cuBLASLt's bf16 kernels. It does not know how
# cuDNN's attention kernels order their asynchronous copies and reports them; that is not ours to judge.
by_racecheck() {
  local reports ours
  reports=$(grep -E 'Race reported|hazard' "$1" | grep -v SUMMARY)
  ours=$(grep -v 'cudnn_generated' <<<"$reports" | grep -c . || true)
  if grep -q 'Internal Sanitizer Error' "$1" || ! grep -q 'RACECHECK SUMMARY' "$1" || { [ "$2" -ne 0 ] && [ "$2" -ne 99 ]; }; then
    # What the program itself says comes first: the tool's line only says that it ended.
    echo "FAIL $(ended_with "$2"), $(grep -c . <<<"$reports") reports, $ours of them ours; $({
      grep -m1 '^strake: ' "$1"; grep -m1 'Internal Sanitizer Error' "$1"; grep '=========' "$1" | tail -2; } | paste -sd'|')"
  elif [ "$ours" -gt 0 ]; then
    echo "FAIL $ours reports: $(grep -v 'cudnn_generated' <<<"$reports" | head -1)"
  else
    echo "PASS 0 hazards outside cuDNN's kernels, $(grep -c . <<<"$reports" || true) reported in them"
  fi
}
by_exit_code() {
  if [ "$2" -eq 0 ]; then echo "PASS $(tail -1 "$1")"; else echo "FAIL exit code $2: $(tail -1 "$1")"; fi
}

# A model of quickstart's kind, every kernel of training and evaluation, both dtypes.
small_config() {
  python3 "$here/make_random_tokens.py" "$out/tokens.bin" 2e5 256 > "$out/tokens.log"
  cat > "$out/small.toml" <<TOML
[run]
device = "cuda"
[data]
train = "$out/tokens.bin"
val = "$out/tokens.bin"
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
[eval]
batches = 1
TOML
}
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
# sanitized NAME SECONDS TOOL COMMAND...
sanitized() {
  local name=$1 limit=$2 tool=$3
  shift 3
  if [ "$gpus" -eq 0 ] || [ -z "$sanitizer" ]; then
    result SKIP "$name" 0 "$([ "$gpus" -eq 0 ] && echo "no GPU" || echo "no compute-sanitizer on this machine")"
    return
  fi
  local options=(--tool "$tool" --error-exitcode 99 --print-limit 1000) judge=by_sanitizer
  # Calls that a library makes to find out what there is, and that fail, are no errors.
  [ "$tool" = memcheck ] && options+=(--report-api-errors no)
  [ "$tool" = racecheck ] && judge=by_racecheck
  item "$name" "$limit" "$judge" "$sanitizer" "${options[@]}" "$@"
}
sanitizers() {  # TOOL
  # With accumulation and without. racecheck's host memory grows with what cuDNN's attention does: 123 GiB for four sequences at
  # once, which the kernel of a machine with 128 GiB ends by SIGKILL, 70 GiB for one.
  local size=(train.micro_batch=4 train.global_batch=8)
  [ "$1" = racecheck ] && size=(train.micro_batch=1 train.global_batch=2)
  sanitized "$1-train-bf16" 100 "$1" "$pack/bin/strake" train "$out/small.toml" "run.dir=$out/run-$1-bf16" train.dtype=bf16 \
    "${size[@]}"
  sanitized "$1-train-f32" 100 "$1" "$pack/bin/strake" train "$out/small.toml" "run.dir=$out/run-$1-f32" train.dtype=f32 \
    train.global_batch=4
  # The products are cuBLASLt's, bf16 attention is cuDNN's.
  sanitized "$1-kernels" 400 "$1" "$pack/bin/cuda_tests" --gtest_filter='-*Linear*:*Products*:*Attention/bf16*:MatmulChoices*'
}
on_one_gpu() {
  item kernels 240 by_gtest "$pack/bin/cuda_tests"
  item device 120 by_gtest "$pack/bin/cuda_device_tests" --gtest_filter='Devices/*:CudaDevice.*'
  item beside-the-cpu 90 by_gtest "$pack/bin/cuda_run_tests" --gtest_filter='BesideTheCpu.*'
  item memory-table 60 by_gtest "$pack/bin/cuda_run_tests" --gtest_filter='MemoryTable.*'
  item equal-bits-one-gpu 90 by_gtest "$pack/bin/cuda_run_tests" --gtest_filter='Cells/*Gpus1*'
}
# Ranks are processes: cut and resumed with other buckets and no overlap, a run has every bit of the uncut one.
resumed_run() {
  set -e
  local ranks=$((gpus > 1 ? 2 : 1))
  train() {
    mpirun --bind-to none -n "$ranks" "$pack/bin/strake" train "$out/small.toml" train.steps=8 \
      train.global_batch=$((8 * ranks)) comm.bucket_mib=0.2 "$@"
  }
  rm -rf "$out/run-uncut" "$out/run-cut"
  train "run.dir=$out/run-uncut" checkpoint.every=8
  train "run.dir=$out/run-cut" checkpoint.every=8 train.stop_at=3
  train "run.dir=$out/run-cut" checkpoint.every=8 checkpoint.resume=true comm.overlap=false comm.bucket_mib=10
  python3 "$here/compare_runs.py" "$out/run-uncut" "$out/run-cut"
}
# Checkpoints of every strategy, behind every step, each proven by fingerprints: whoever goes on from one, by another strategy,
# ends as the run that was never cut; all of them are whole; and from a run whose processes were killed while they wrote the next
# start goes on.
checkpointed_runs() {
  set -e
  local ranks=$((gpus > 1 ? 2 : 1)) strategies=(sync pinned lazy device) shard strategy next name pid
  train() {
    mpirun --bind-to none -n "$ranks" "$pack/bin/strake" train "$out/small.toml" train.global_batch=$((8 * ranks)) \
      comm.bucket_mib=0.2 checkpoint.every=1 checkpoint.keep=100 checkpoint.paranoid=true "$@"
  }
  rm -rf "$out"/run-kept-*
  for shard in none optimizer; do
    [ "$shard" = none ] || [ "$ranks" -gt 1 ] || continue
    for strategy in "${strategies[@]}"; do
      name="$out/run-kept-$shard-$strategy"
      train "run.dir=$name" "train.shard=$shard" "checkpoint.strategy=$strategy" train.steps=8
      "$pack/bin/strake" ckpt verify "$name"
      # Bytes of every step are those that a run has which waits for each.
      for step in "$name"/ckpt/step-*; do
        "$pack/bin/strake" ckpt diff "$out/run-kept-none-sync/ckpt/${step##*/}" "$step" > /dev/null
      done
      case $strategy in sync) next=device ;; pinned) next=sync ;; lazy) next=pinned ;; device) next=lazy ;; esac
      train "run.dir=$name-cut" "train.shard=$shard" "checkpoint.strategy=$strategy" train.steps=8 train.stop_at=3
      train "run.dir=$name-cut" "train.shard=$shard" "checkpoint.strategy=$next" train.steps=8 checkpoint.resume=true
      python3 "$here/compare_runs.py" "$out/run-kept-none-sync" "$name-cut"
    done
  done
  for strategy in "${strategies[@]}"; do
    name="$out/run-kept-killed-$strategy"
    train "run.dir=$name" "checkpoint.strategy=$strategy" train.steps=1000000 checkpoint.keep=2 > "$name.log" 2>&1 &
    pid=$!
    until [ -s "$name/metrics.jsonl" ] && [ "$(wc -l < "$name/metrics.jsonl")" -ge 30 ]; do
      kill -0 "$pid" 2> /dev/null || { tail -1 "$name.log"; return 1; }
      sleep 0.1
    done
    pkill -KILL -P "$(pgrep -P "$pid" | head -1)" -x strake  # below the shell of train() and mpirun
    wait "$pid" || true
    "$pack/bin/strake" ckpt verify "$name"
    train "run.dir=$name" "checkpoint.strategy=$strategy" train.steps=1000000 train.stop_at=40 checkpoint.keep=2 \
      checkpoint.resume=true
  done
  echo "every strategy: the bytes of sync, resumed by another, killed and gone on, ${ranks} rank(s)"
}
# Ranks are processes that share a GPU, which is refused unless it is asked for: overlapped, serial with other buckets, and
# cut and resumed, a run has every bit of the uncut one.
staged_run() {  # RANKS
  set -e
  local ranks=$1 refused
  export CUDA_VISIBLE_DEVICES=0
  train() {
    mpirun --bind-to none --oversubscribe -n "$ranks" "$pack/bin/strake" train "$out/small.toml" train.steps=8 \
      train.global_batch=$((8 * ranks)) comm.bucket_mib=0.2 checkpoint.every=8 "$@"
  }
  rm -rf "$out/run-staged-$ranks"-*
  refused=$(train "run.dir=$out/run-staged-$ranks-refused" 2>&1) && { echo "ranks shared a GPU unasked"; return 1; }
  grep -q 'set comm.backend = staged' <<<"$refused" || { echo "$refused"; return 1; }
  train "run.dir=$out/run-staged-$ranks-uncut" comm.backend=staged
  train "run.dir=$out/run-staged-$ranks-serial" comm.backend=staged comm.overlap=false comm.bucket_mib=100
  train "run.dir=$out/run-staged-$ranks-cut" comm.backend=staged train.stop_at=3
  train "run.dir=$out/run-staged-$ranks-cut" comm.backend=staged checkpoint.resume=true comm.bucket_mib=0.05
  local sharded=(comm.backend=staged train.shard=optimizer)
  train "run.dir=$out/run-staged-$ranks-sharded" "${sharded[@]}"
  train "run.dir=$out/run-staged-$ranks-sharded-serial" "${sharded[@]}" comm.overlap=false comm.bucket_mib=100
  train "run.dir=$out/run-staged-$ranks-sharded-cut" "${sharded[@]}" train.stop_at=3
  train "run.dir=$out/run-staged-$ranks-sharded-cut" comm.backend=staged checkpoint.resume=true
  for other in serial cut sharded sharded-serial sharded-cut; do
    python3 "$here/compare_runs.py" "$out/run-staged-$ranks-uncut" "$out/run-staged-$ranks-$other"
  done
  # The pieces of these ranks in the hands of one, and of two.
  train "run.dir=$out/run-staged-$ranks-resharded" "${sharded[@]}" train.stop_at=3
  "$pack/bin/strake" train "$out/small.toml" "run.dir=$out/run-staged-$ranks-resharded" train.steps=8 \
    train.global_batch=$((8 * ranks)) checkpoint.every=8 train.shard=optimizer train.stop_at=5
  mpirun --bind-to none --oversubscribe -n 2 "$pack/bin/strake" train "$out/small.toml" \
    "run.dir=$out/run-staged-$ranks-resharded" train.steps=8 train.global_batch=$((8 * ranks)) checkpoint.every=8 "${sharded[@]}"
}
# Two ranks as processes, however many multiprocessors communication takes: the bits of the plain run, replicated and sharded; with
# products laid out for fewer, those of the same run without overlap.
switched_runs() {
  set -e
  local name
  train() {
    name=$1
    shift
    mpirun --bind-to none --oversubscribe -n 2 "$pack/bin/strake" train "$out/small.toml" train.steps=8 train.global_batch=16 \
      comm.bucket_mib=0.2 checkpoint.every=8 "run.dir=$out/run-switched-$name" "$@"
  }
  same() { python3 "$here/compare_runs.py" "$out/run-switched-$1" "$out/run-switched-$2"; }
  rm -rf "$out"/run-switched-*
  for shard in none optimizer; do
    train "$shard" "train.shard=$shard"
    train "$shard-ctas" "train.shard=$shard" comm.min_ctas=1 comm.max_ctas=2
    train "$shard-registered" "train.shard=$shard" comm.buffers=registered
    train "$shard-symmetric" "train.shard=$shard" comm.buffers=symmetric comm.max_ctas=4
    train "$shard-copied" "train.shard=$shard" comm.buffers=symmetric comm.copy_engines=true
    train "$shard-serial" "train.shard=$shard" comm.buffers=symmetric comm.copy_engines=true comm.overlap=false
    for other in ctas registered symmetric copied serial; do same none "$shard-$other"; done
    train "$shard-spared" "train.shard=$shard" comm.spare_sms=16
    train "$shard-spared-serial" "train.shard=$shard" comm.spare_sms=16 comm.overlap=false comm.bucket_mib=10
    same "$shard-spared" "$shard-spared-serial"
  done
  grep -q '"comm_switches":{"buffers":"symmetric"' <(tr -d ' \n' < "$out/run-switched-none-symmetric/manifest.json")
}
# One of two ranks is stopped or killed in the middle of a run: the run ends by itself, with its code and words, in time.
lost_rank() {  # SIGNAL WANTED_CODE WORDS [key=value...]
  local signal=$1 wanted=$2 words=$3 log=$out/lost-$1-run.log code=0 pid victim begin
  shift 3
  rm -rf "$out/run-lost"
  mpirun --bind-to none --oversubscribe -n 2 "$pack/bin/strake" train "$out/small.toml" "run.dir=$out/run-lost" \
    train.steps=1000000 train.global_batch=16 run.hang_s=10 "$@" > "$log" 2>&1 &
  pid=$!
  until [ -s "$out/run-lost/metrics.jsonl" ] && [ "$(wc -l < "$out/run-lost/metrics.jsonl")" -ge 20 ]; do
    kill -0 "$pid" 2> /dev/null || { echo "the run ended before step 20: $(tail -1 "$log")"; return 1; }
    sleep 0.2
  done
  victim=$(pgrep -P "$pid" -x strake | tail -1)
  kill "-$signal" "$victim"
  begin=$SECONDS
  wait "$pid" || code=$?
  kill -KILL "$victim" 2> /dev/null
  cat "$log"
  if { [ "$wanted" != any ] && [ "$code" -ne "$wanted" ]; } || [ "$code" -eq 0 ]; then
    echo "ended with $code, not with $wanted, $((SECONDS - begin)) s after SIG$signal"
    return 1
  fi
  grep -Eq "$words" "$log" || { echo "ended with $code, but nothing in the log says '$words'"; return 1; }
  echo "ended with $code $((SECONDS - begin)) s after SIG$signal: $(grep -E -m1 "$words" "$log")"
}
export -f resumed_run checkpointed_runs staged_run lost_rank switched_runs
export pack out here gpus

rm -rf "$out"/run-*
small_config
item info 30 by_exit_code "$pack/bin/strake" info
if [ "$gpus" -gt 1 ]; then
  CUDA_VISIBLE_DEVICES=$((gpus - 1)) sanitizers memcheck &
  CUDA_VISIBLE_DEVICES=$((gpus - 1)) sanitizers racecheck &
  CUDA_VISIBLE_DEVICES=0 on_one_gpu
  wait
else
  on_one_gpu
  sanitizers memcheck
  sanitizers racecheck
fi
item nccl 120 by_gtest "$pack/bin/cuda_device_tests" --gtest_filter='*Nccl*:CudaDevice.EachRankThreadHasItsOwnGpu:-NcclSwitches/*'
item nccl-switches 300 by_gtest "$pack/bin/cuda_device_tests" --gtest_filter='NcclSwitches/*'
item nccl-multicast-off 30 by_gtest env NCCL_NVLS_ENABLE=1 "$pack/bin/cuda_device_tests" --gtest_filter=Nccl.MulticastStaysOff
item equal-bits-two-gpus 180 by_gtest "$pack/bin/cuda_run_tests" --gtest_filter='Cells/*Gpus2*'
item runs-on-two-gpus 180 by_gtest "$pack/bin/cuda_run_tests" --gtest_filter='RunsOnTwoGpus.*'
if [ "$gpus" -eq 0 ]; then
  result SKIP resumed-processes 0 "no GPU"
  result SKIP checkpointed-runs 0 "no GPU"
else
  item resumed-processes 90 by_exit_code bash -c resumed_run
  item checkpointed-runs 300 by_exit_code bash -c checkpointed_runs
fi
if [ "$gpus" -lt 2 ]; then
  result SKIP stopped-rank 0 "needs 2 GPUs"
  result SKIP killed-rank 0 "needs 2 GPUs"
  result SKIP stopped-rank-symmetric 0 "needs 2 GPUs"
  result SKIP killed-rank-symmetric 0 "needs 2 GPUs"
else
  # Ten seconds of run.hang_s, and as many for whatever is being waited for to be given up.
  item stopped-rank 60 by_exit_code bash -c "lost_rank STOP 15 'hang: nothing moves at.*No answer from rank [01]'"
  item killed-rank 60 by_exit_code bash -c "lost_rank KILL any 'signal 9|Killed|rank [01]'"
  # Nothing ends a collective between symmetric buffers: the processes' end must do.
  item stopped-rank-symmetric 60 by_exit_code bash -c "lost_rank STOP 15 'hang: nothing moves at.*No answer from rank [01]' comm.buffers=symmetric"
  item killed-rank-symmetric 60 by_exit_code bash -c "lost_rank KILL any 'signal 9|Killed|rank [01]' comm.buffers=symmetric"
fi
if [ "$gpus" -lt 2 ]; then
  result SKIP switched-runs 0 "needs 2 GPUs"
  result SKIP few-sms 0 "needs 2 GPUs"
else
  item switched-runs 240 by_exit_code bash -c switched_runs
  item few-sms 240 by_exit_code "$here/few_sms.sh" "$pack" "$out/few-sms" 2 quick
fi
# On one GPU also where there are more.
for ranks in 2 4; do
  if [ "$gpus" -eq 0 ]; then
    result SKIP "staged-contract-$ranks" 0 "no GPU"
    result SKIP "staged-runs-$ranks" 0 "no GPU"
  else
    item "staged-contract-$ranks" 240 by_gtest mpirun --bind-to none --oversubscribe -n "$ranks" "$pack/bin/cuda_staged_tests"
    item "staged-runs-$ranks" 240 by_exit_code bash -c "staged_run $ranks"
  fi
done
if [ "$gpus" -eq 0 ]; then
  result SKIP staged-stopped-rank 0 "no GPU"
  result SKIP staged-killed-rank 0 "no GPU"
else
  item staged-stream 60 by_gtest "$pack/bin/cuda_staged_tests" --gtest_filter='StagedOnAGpu.*'
  item staged-stopped-rank 60 by_exit_code env CUDA_VISIBLE_DEVICES=0 bash -c "lost_rank STOP 15 'hang: nothing moves at.*No answer from rank [01]' comm.backend=staged"
  item staged-killed-rank 60 by_exit_code env CUDA_VISIBLE_DEVICES=0 bash -c "lost_rank KILL any 'signal 9|Killed|rank [01]' comm.backend=staged"
fi
# Every collective and size, of one rank at least; results are checked.
bench_comm() {
  set -e
  CUDA_VISIBLE_DEVICES=0 mpirun --bind-to none --oversubscribe -n 2 "$pack/bin/strake" bench comm run.device=cuda comm.backend=staged \
    --max 64MiB --factor 16 --seconds 1
  mpirun --bind-to none --oversubscribe -n "$gpus" "$pack/bin/strake" bench comm run.device=cuda --max 256MiB --factor 16 --seconds 1
}
export -f bench_comm
# What must change no bit: of two ranks on one GPU, and of as many ranks as there are GPUs.
verify_overlap() {
  set -e
  CUDA_VISIBLE_DEVICES=0 mpirun --bind-to none --oversubscribe -n 2 "$pack/bin/strake" verify-overlap "$out/small.toml" \
    comm.backend=staged
  [ "$gpus" -lt 2 ] || mpirun --bind-to none -n "$gpus" "$pack/bin/strake" verify-overlap "$out/small.toml"
}
export -f verify_overlap
if [ "$gpus" -eq 0 ]; then
  result SKIP verify-overlap 0 "no GPU"
else
  item verify-overlap 240 by_exit_code bash -c verify_overlap
fi
if [ "$gpus" -eq 0 ]; then result SKIP bench-comm 0 "no GPU"; else item bench-comm 120 by_exit_code bash -c bench_comm; fi
# The step account and the times of `bench kernels` beside what the driver saw: the table is in the log.
kernel_trace() {
  set -e
  export CUDA_VISIBLE_DEVICES=0
  step=("$pack/examples/gpt2-124m.toml" train.global_batch=64 --random-data "run.dir=$out/run-traced" --json)
  "$pack/bin/strake" bench kernels "${step[@]}" > "$out/kernels.json"
  "$pack/trace" "$out/trace.csv" "$pack/bin/strake" bench step "${step[@]}" --steps 10 --repeats 2 > "$out/traced-step.json"
  python3 "$here/kernel_table.py" "$out/trace.csv" --bench "$out/traced-step.json" --kernels "$out/kernels.json"
}
export -f kernel_trace
if [ "$gpus" -eq 0 ] || [ ! -e "$pack/lib/libkernel_trace.so" ]; then
  result SKIP kernel-trace 0 "no GPU, or built without CUPTI"
else
  item kernel-trace 180 by_exit_code bash -c kernel_trace
fi
item breakdown 150 by_bench "$pack/bin/breakdown_bench" --device cuda --repeats 3
rm -rf "$out"/run-* "$out/tokens.bin"
echo "$(grep -c '^PASS' "$out/results") passed, $(grep -c '^FAIL' "$out/results") failed, $(grep -c '^SKIP' "$out/results") skipped in $SECONDS s; logs in $out"
! grep -q '^FAIL' "$out/results"
