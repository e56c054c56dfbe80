#!/usr/bin/python3
"""What do checkpoints cost a run on the CPU?

Trains a configuration (examples/quickstart.toml) on two ranks under mpirun: without checkpoints, and with one every so many
steps by each strategy, in blocks that run every variant once, in a random order. Two figures are told of each, with their 95 %
interval (Student's t):

- beside the run without: of each block, by the mean time of a step behind the warm-up, checkpoints included. Of blocks
  minutes apart: it has the machine's drift in it.
- by halves: of each checkpoint, the half interval that begins with it beside the half behind, which it does not reach as
  long as it is durable by then (the last column). Halves are a second apart. Of the run without, the same of the steps
  that would have had one: what the figure is of nothing.

A last checkpoint would be waited for and is not measured: the last step behind the warm-up keeps none.
"""
import argparse
import json
import math
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from cpu_speed import VOCAB, environment, write_tokens  # noqa: E402

TARGET_PERCENT = 2  # of speed that the default may cost
# Of Student's t, two-sided 95 %, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179,
       13: 2.160, 14: 2.145, 15: 2.131, 19: 2.093, 24: 2.064, 29: 2.045, 39: 2.023, 59: 2.001, 119: 1.980}


def interval(values):
    freedom = len(values) - 1
    t = T95[max(known for known in T95 if known <= freedom)] if freedom >= 1 else math.inf
    return t * statistics.stdev(values) / math.sqrt(len(values)) if freedom >= 1 else math.inf


def run(arguments, folder, strategy):
    steps = arguments.warmup + arguments.steps + arguments.every // 2
    command = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", str(arguments.ranks)]
    command += [str(arguments.strake), "train", str(arguments.config), f"run.dir={folder}"]
    command += [f"data.train={folder.parent / 'train.bin'}", "data.val=", f"model.vocab={VOCAB}", "eval.every=0",
                "checkpoint.at_end=false"]
    command += [f"train.steps={steps}", "optimizer.warmup_steps=1", "log.every=1000"]
    command += ["checkpoint.every=0"] if strategy == "none" else [
        f"checkpoint.every={arguments.every}", f"checkpoint.strategy={strategy}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    measured = [l for l in lines if "loss" in l and arguments.warmup < l["step"] <= arguments.warmup + arguments.steps]
    times = {l["step"]: l["step_ms"] for l in lines if "loss" in l}
    half, losses = arguments.every // 2, []
    for first in range(arguments.warmup, arguments.warmup + arguments.steps, arguments.every):
        with_it, behind = (sum(times[first + begin + i] for i in range(half)) for begin in (0, half))
        losses.append(100 * (1 - 2 * behind / (with_it + behind)))
    return {"step_ms": statistics.fmean(l["step_ms"] for l in measured),
            "losses": losses,
            "checkpoint_ms": statistics.fmean(l["checkpoint_ms"] for l in measured),
            "saves": [l for l in lines if "durable_ms" in l and l["step"] > arguments.warmup]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strake", type=pathlib.Path, default=HERE.parent.parent / "build" / "release" / "bin" / "strake")
    parser.add_argument("--config", type=pathlib.Path, default=HERE.parent.parent / "examples" / "quickstart.toml")
    parser.add_argument("--folder", type=pathlib.Path, help="where runs write; default: the folder of temporary files")
    parser.add_argument("--strategies", default="sync,lazy")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a few steps; judges nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.blocks, arguments.warmup, arguments.steps = 1, 10, 20
    if arguments.steps % arguments.every or arguments.warmup % arguments.every:
        parser.error("--steps and --warmup are multiples of --every")
    variants = ["none"] + arguments.strategies.split(",")
    results = {variant: [] for variant in variants}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        scratch = pathlib.Path(scratch)
        write_tokens(scratch / "train.bin")
        for block in range(arguments.blocks):
            for variant in random.sample(variants, len(variants)):
                folder = scratch / f"{variant}-{block}"
                results[variant].append(run(arguments, folder, variant))
                subprocess.run(["rm", "-r", str(folder)], check=True)
    none = [r["step_ms"] for r in results["none"]]
    print(f"== checkpoint_cost: what do checkpoints cost a run on the CPU?\n   {arguments.ranks} ranks, a checkpoint every {arguments.every} steps, "
          f"{arguments.blocks} blocks of {arguments.steps} steps; without: {statistics.fmean(none):.2f} ms a step")
    print("| strategy | loss of speed by halves | beside the run without | step, ms | class checkpoint, ms a step | "
          "returned, ms | snapshot, ms | durable, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for variant in variants:
        rows = results[variant]
        halves = [loss for r in rows for loss in r["losses"]]
        beside = [100 * (1 - without / r["step_ms"]) for r, without in zip(rows, none)]
        saves = [save for r in rows for save in r["saves"]]
        times = [f"{statistics.median(s[key] for s in saves):.2f}" if saves else ""
                 for key in ("returned_ms", "snapshot_ms", "durable_ms")]
        print(f"| {variant} | {statistics.fmean(halves):.2f} % ± {interval(halves):.2f} | "
              f"{statistics.fmean(beside):.2f} % ± {interval(beside):.2f} | "
              f"{statistics.fmean(r['step_ms'] for r in rows):.2f} | "
              f"{statistics.fmean(r['checkpoint_ms'] for r in rows):.2f} | {' | '.join(times)} |")
        if variant == arguments.strategies.split(",")[-1] and not arguments.smoke:
            most = statistics.fmean(halves) + interval(halves)
            verdict = "holds" if most <= TARGET_PERCENT else "does not hold" if most - 2 * interval(halves) > TARGET_PERCENT \
                else "is within the interval"
            print(f"   verdict: {variant}: {statistics.fmean(halves):.2f} % ± {interval(halves):.2f}, at most "
                  f"{TARGET_PERCENT} %: {verdict}")


if __name__ == "__main__":
    main()
