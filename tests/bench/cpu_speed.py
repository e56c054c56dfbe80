#!/usr/bin/python3
"""Is training on the CPU as fast as PyTorch's?

Tokens per second of a model (examples/quickstart.toml) on two ranks under mpirun, beside torch_cpu_peer.py: the same
shape, batch, optimizer and clipping, data parallel over gloo, as many ranks, one thread a rank. The peer is tuned
first: each way of writing its attention, its optimizer and its vector width is tried, and the fastest is measured. Then
the two run in turn, and the medians over the repeats are compared.

Both report the median step of a run. Needs Debian's python3-torch and libopenblas0-pthread (without the latter torch
computes its matrix products with a library of 3 GFLOP/s, and this program says so and stops).
"""
import argparse
import itertools
import json
import os
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOKENS = 1 << 20
VOCAB = 256  # bytes
MODEL_KEYS = ("vocab", "layers", "channels", "heads")
TRAIN_KEYS = ("sequence", "micro_batch", "global_batch")


def core_type():
    """OpenBLAS picks its kernels by a list of known CPUs; newer ones need to be told."""
    flags = next((l for l in open("/proc/cpuinfo") if l.startswith("flags")), "").split()
    return "SkylakeX" if "avx512f" in flags else "Haswell" if "avx2" in flags else None


def environment(**more):
    out = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    out.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    if core_type():
        out["OPENBLAS_CORETYPE"] = core_type()
    out.update(more)
    return out


def write_tokens(path):
    numbers = random.Random(1)
    with open(path, "wb") as file:
        file.write(struct.pack("<256i", 20240520, 1, TOKENS, *[0] * 253))
        file.write(b"".join(bytes((numbers.randrange(VOCAB), 0)) for _ in range(TOKENS)))


class Ours:
    name = "strake"

    def __init__(self, arguments, scratch, steps, shape):
        self.arguments, self.scratch, self.steps, self.shape, self.runs = arguments, scratch, steps, shape, 0

    def run(self):
        folder = self.scratch / f"run-{self.runs}"
        self.runs += 1
        command = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", str(self.arguments.ranks)]
        command += [str(self.arguments.strake), "train", str(self.arguments.config)]
        command += [f"model.{key}={self.shape[key]}" for key in MODEL_KEYS]
        command += [f"train.{key}={self.shape[key]}" for key in TRAIN_KEYS]
        command += [f"run.dir={folder}", f"data.train={self.scratch / 'train.bin'}", "data.val="]
        command += [f"train.steps={self.steps}", "optimizer.warmup_steps=1", "checkpoint.every=0", "eval.every=0"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
        lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
        steps = [line for line in lines if "loss" in line][self.arguments.warmup :]
        return {"tokens_per_s": statistics.median(s["tokens_per_s"] for s in steps), "last_loss": steps[-1]["loss"]}


class Peer:
    name = "torch"

    def __init__(self, arguments, scratch, steps, shape):
        self.arguments, self.scratch, self.steps, self.shape = arguments, scratch, steps, shape
        self.choice = {"attention": "batched", "foreach": True, "static_graph": False, "capability": "default"}

    def run(self, steps=None, **choice):
        choice = {**self.choice, **choice}
        command = ["/usr/bin/python3", str(HERE / "torch_cpu_peer.py"), "--shape", json.dumps(self.shape)]
        command += ["--data", str(self.scratch / "train.bin"), "--ranks", str(self.arguments.ranks)]
        command += ["--steps", str(steps or self.steps), "--warmup", str(self.arguments.warmup)]
        command += ["--attention", choice["attention"], "--foreach" if choice["foreach"] else "--no-foreach"]
        command += ["--static-graph"] if choice["static_graph"] else []
        more = {} if choice["capability"] == "default" else {"ATEN_CPU_CAPABILITY": choice["capability"]}
        done = subprocess.run(command, env=environment(**more), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def tune(self, steps, say):
        """One choice after the other, the best of two runs each; keeps the fastest."""
        options = {
            "attention": ["batched", "plain", "library"],
            "capability": ["default", "avx2", "avx512"] if core_type() == "SkylakeX" else ["default"],
            "foreach": [True, False],
            "static_graph": [False, True],
        }
        for name, values in options.items():
            rates = {value: 0.0 for value in values}
            for value, _ in itertools.product(values, range(2)):
                rates[value] = max(rates[value], self.run(steps, **{name: value})["tokens_per_s"])
            self.choice[name] = max(rates, key=rates.get)
            say("peer, " + name + ": " + ", ".join(f"{value} {rate:.0f}" for value, rate in rates.items()) + " tokens/s")


def has_torch():
    return subprocess.run(["/usr/bin/python3", "-c", "import torch"], capture_output=True).returncode == 0


def spread(samples):
    return {"median": statistics.median(samples), "low": min(samples), "high": max(samples), "samples": samples}


def machine():
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "os": " ".join(os.uname()[i] for i in (0, 2, 4))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strake", type=pathlib.Path, default=ROOT / "build/release/bin/strake")
    parser.add_argument("--config", type=pathlib.Path, default=ROOT / "examples/quickstart.toml")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="a few steps, judges nothing; without torch, only ours")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.repeats, arguments.steps, arguments.warmup = 1, 3, 1
    said = []

    def say(line):
        said.append(line)
        if not arguments.json:
            print("   " + line, flush=True)

    with open(arguments.config, "rb") as file:
        config = tomllib.load(file)
    shape = {key: config["model"].get(key, VOCAB) for key in MODEL_KEYS}
    shape |= {key: config["train"][key] for key in TRAIN_KEYS}
    if arguments.smoke:
        shape |= {"layers": 1, "sequence": 16, "micro_batch": 1, "global_batch": arguments.ranks}
    result = {"bench": "cpu_speed", "machine": machine(), "shape": shape, "ranks": arguments.ranks, "said": said}
    if not arguments.json:
        print(f"== cpu_speed: is training on the CPU as fast as PyTorch's?\n   {machine()}\n   {shape}", flush=True)

    with tempfile.TemporaryDirectory(prefix="strake-bench-") as name:
        scratch = pathlib.Path(name)
        write_tokens(scratch / "train.bin")
        ours = Ours(arguments, scratch, arguments.warmup + arguments.steps, shape)
        rates = {ours.name: []}
        if not has_torch():
            say("python3-torch is not installed: only strake is measured")
            if not arguments.smoke:
                sys.exit(2)
            rates[ours.name].append(ours.run()["tokens_per_s"])
        else:
            peer = Peer(arguments, scratch, arguments.steps, shape)
            first = peer.run(2)
            say(f"torch {first['torch']} with {first['blas']}, OPENBLAS_CORETYPE={core_type()}: 1024^3 product "
                f"{first['matmul_gflop_per_s']:.1f} GFLOP/s on one thread")
            if "openblas" not in first["blas"] and not arguments.smoke:
                sys.exit("torch computes without OpenBLAS: install libopenblas0-pthread")
            if not arguments.smoke:
                peer.tune(max(arguments.steps // 2, 3), say)
            result["peer"] = {**first, **peer.choice}
            say(f"peer as measured: {peer.choice}")
            rates[peer.name] = []
            for _ in range(arguments.repeats):
                for side in (ours, peer):
                    rates[side.name].append(side.run()["tokens_per_s"])
            ratios = [a / b for a, b in zip(rates[ours.name], rates[peer.name])]
            result["ratio"] = spread(ratios)
    result["tokens_per_s"] = {side: spread(values) for side, values in rates.items()}
    for side, values in result["tokens_per_s"].items():
        say(f"{side:<8} {values['median']:>10.0f} tokens/s ({values['low']:.0f} .. {values['high']:.0f}, "
            f"n = {len(values['samples'])})")
    if "ratio" in result:
        ratio = result["ratio"]
        say(f"strake / torch {ratio['median']:.3f} ({ratio['low']:.3f} .. {ratio['high']:.3f})")
        word = "not judged" if arguments.smoke else "holds" if ratio["median"] >= 1 else "DOES NOT HOLD"
        result["verdict"] = word
        if not arguments.json:
            print(f"   verdict: at least as many tokens/s as PyTorch: {word} ({ratio['median']:.3f}x)")
    if arguments.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
