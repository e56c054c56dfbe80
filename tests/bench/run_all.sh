#!/bin/sh
# Every bench one after the other on a quiet machine, for docs/benchmarks.md. About 15 minutes on 2 cores.
#   tests/bench/run_all.sh [BUILD_FOLDER] [--smoke]
# Builds nothing. Prints what each bench found, then a summary of all verdicts.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/release
smoke=
for argument in "$@"; do
  case $argument in
    --smoke) smoke=--smoke ;;
    *) build=$argument ;;
  esac
done
export OMP_NUM_THREADS=1
found=$(mktemp)
trap 'rm -f "$found"' EXIT

echo "load average before: $(cut -d' ' -f1-3 /proc/loadavg) (1, 5, 15 minutes)"
for bench in "$build"/bench/*_bench; do
  "$bench" $smoke | tee -a "$found"
done
python3=/usr/bin/python3
if "$python3" -c 'import tomllib' 2>/dev/null; then
  "$python3" "$root/tests/bench/cpu_speed.py" --strake "$build/bin/strake" $smoke | tee -a "$found"
  "$python3" "$root/tests/bench/checkpoint_cost.py" --strake "$build/bin/strake" $smoke | tee -a "$found"
fi
echo "load average after: $(cut -d' ' -f1-3 /proc/loadavg)"
echo
echo "== verdicts"
grep 'verdict:' "$found" | sed 's/^ *verdict: /   /'
