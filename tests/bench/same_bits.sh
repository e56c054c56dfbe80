#!/bin/sh
# Do two builds of the program train to the same bits? Trains fixed runs with both, on 1 to 4 ranks with one micro-batch
# and with two a step, and compares their checkpoints (every byte of every tensor) and losses.
#
#   tests/bench/same_bits.sh BEFORE/bin/strake AFTER/bin/strake [WORLDS] [KEY=VALUE...]
#
# WORLDS: "1 2 3 4". On a GPU: same_bits.sh BEFORE AFTER 1 run.device=cuda train.deterministic=true
set -eu
before=$(realpath "$1") after=$(realpath "$2")
worlds=${3:-1 2 3 4}
shift 2
[ $# -gt 0 ] && shift
here=$(realpath "$(dirname "$0")/../..")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -c '
import random, sys
random.seed(5)
words = ["".join(random.choices("abcdefghij", k=random.randint(2, 9))) for _ in range(300)]
sys.stdout.write(" ".join(random.choice(words) for _ in range(40000)))' >"$scratch/text"
"$before" data prepare "$scratch/text" --train "$scratch/train.bin" --val "$scratch/val.bin" >/dev/null
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
failed=0
for ranks in $worlds; do
  for accumulation in 1 2; do
    for which in before after; do
      eval "program=\$$which"
      launcher=
      [ "$ranks" -gt 1 ] && launcher="mpirun --bind-to none --oversubscribe -n $ranks"
      # shellcheck disable=SC2086
      $launcher "$program" train "$here/examples/quickstart.toml" run.dir="$scratch/$which-$ranks-$accumulation" \
        data.train="$scratch/train.bin" data.val="$scratch/val.bin" eval.batches=4 eval.every=0 checkpoint.every=0 \
        model.layers=3 model.channels=64 model.heads=4 train.sequence=48 train.steps=6 train.micro_batch=2 \
        train.global_batch=$((2 * ranks * accumulation)) comm.bucket_mib=0.05 log.format=lines "$@" >"$scratch/log" 2>&1 ||
        { cat "$scratch/log"; exit 1; }
    done
    python3 - "$scratch/before-$ranks-$accumulation" "$scratch/after-$ranks-$accumulation" <<'PYTHON' || failed=1
import hashlib, json, pathlib, sys

def payloads(run):
    newest = max(path for path in pathlib.Path(run, "ckpt").iterdir() if (path / "manifest.json").exists())
    manifest = json.loads((newest / "manifest.json").read_text())["manifest"]
    files = [(newest / file["name"]).read_bytes() for file in manifest["files"]]
    return {
        tensor["name"]: hashlib.sha256(
            b"".join(files[part["file"]][part["offset"] : part["offset"] + part["bytes"]] for part in tensor["shards"])
        ).hexdigest()
        for tensor in manifest["tensors"]
    }

def losses(run):
    lines = [json.loads(line) for line in pathlib.Path(run, "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss"), line.get("grad_norm"), line.get("val_loss")) for line in lines]

before, after = sys.argv[1:]
name = pathlib.Path(after).name.replace("after-", "")
a, b = payloads(before), payloads(after)
different = [tensor for tensor in sorted(a.keys() | b.keys()) if a.get(tensor) != b.get(tensor)]
same_losses = losses(before) == losses(after)
print(f"ranks-accumulation {name}: {len(a)} tensors, {len(different)} differ; losses {'equal' if same_losses else 'DIFFER'}")
for tensor in different[:5]:
    print(f"  {tensor}")
sys.exit(bool(different) or not same_losses)
PYTHON
  done
done
exit $failed
