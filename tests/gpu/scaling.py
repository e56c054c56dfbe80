#!/usr/bin/env python3
"""What ranks on several GPUs of a host take, beside one GPU, beside PyTorch and beside what their link allows.

scaling.py PACK [OUT] [--ranks N] [--rounds N] [--peer FILE] [--only NAME]...

w1, w2:   GPT-2 124M (64 x 1024 tokens a GPU), and the shape of Llama-3.2-1B (2 x 4096) with train.shard=optimizer:
          each on one GPU, on N, on N with what communication costs (bench step --calibrate), and the peer on N, in turn.
strong:   GPT-2 124M, 64 sequences over all GPUs, and the peer.
sockets:  GPT-2 124M where NCCL has only sockets: with overlap, without, and the least that the link allows (T*); the
          peer in the same mode.
predict:  there, the exposed time of five bucket sizes as predicted from one recording, and as measured.
alone:    one rank, train.shard none and optimizer.

PACK is what pack.sh made. --peer: a PyTorch program with --model, --mode, --micro-batch, --seq, --steps that prints a
line of JSON with step_ms_median; without it there is no peer. Medians over rounds; OUT (default: ./scaling) has the JSON of every run.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

from overlap_bound import Recording, backward_ms, bound_ms, exposed_ms, transfer_ms

BUCKETS_MIB = (4, 16, 32, 64, 256)
EVERY_PARAMETER_MIB = 1e-6
SOCKETS = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
LLAMA = ("train.micro_batch=2", "train.recompute=none", "train.shard=optimizer")


class Bench:
    def __init__(self, arguments):
        self.pack, self.out = arguments.pack.resolve(), arguments.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.peer, self.ranks, self.taken = arguments.peer, arguments.ranks, 0
        self.environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_plm_rsh_agent="/bin/true")
        self.environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    def run(self, name, command, environment):
        """The last line of JSON of what the command prints; None, and a word, if it fails."""
        self.taken += 1
        done = subprocess.run(command, env=dict(self.environment, **environment), capture_output=True, text=True)
        stem = self.out / f"{self.taken:03}-{name}"
        stem.with_suffix(".log").write_text(done.stderr)
        if done.returncode != 0:
            print(f"FAIL {name}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            return None
        stem.with_suffix(".json").write_text(done.stdout)
        if command[0] == "mpirun":
            return json.loads(done.stdout)
        return json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])

    def ours(self, name, config, *keys, ranks=None, sockets=False, options=(), steps=12):
        """A step of ours; None if it fails."""
        # A rank's name for its host must be known before NCCL starts: hence a shell for each.
        prefix = "export NCCL_HOSTID=rank$OMPI_COMM_WORLD_RANK; " if sockets else ""
        command = ["mpirun", "--bind-to", "none", "-n", str(ranks or self.ranks), "sh", "-c", prefix + 'exec "$0" "$@"']
        command += [str(self.pack / "run"), "strake", "bench", "step", str(self.pack / "examples" / config)]
        command += ["--random-data", "--json", "--warmup", "6", "--steps", str(steps), "--repeats", "2", *options]
        return self.run(name, [*command, f"run.dir={self.out}/run", *keys], SOCKETS if sockets else {})

    def torch(self, name, *options, sockets=False):
        if self.peer is None:
            return None
        command = ["torchrun", f"--nproc_per_node={self.ranks}", "--no-python", "sh", "-c"]
        command += [("export NCCL_HOSTID=rank$RANK; " if sockets else "") + 'exec python3 "$0" "$@"', str(self.peer.resolve())]
        return self.run(name, [*command, *options, "--steps", "20", "--warmup", "10"], SOCKETS if sockets else {})


def milliseconds(step):
    return step["step_ms_median"] if "step_ms_median" in step else step["step_ms"]["median"]


class Rounds:
    """What was measured in turn, by name."""

    def __init__(self):
        self.steps = {}

    def add(self, name, step):
        if step is not None:
            self.steps.setdefault(name, []).append(step)

    def median(self, name, value=milliseconds):
        return statistics.median(map(value, self.steps[name])) if name in self.steps else None

    def say(self, title):
        for name, steps in self.steps.items():
            values = ", ".join(f"{milliseconds(step):.2f}" for step in steps)
            print(f"{title:8} {name:28} {self.median(name):9.2f} ms a step  ({values})", flush=True)


def ratio(title, what, above, below):
    if above is not None and below is not None:
        print(f"{title:8} {what}: {above / below:.4f}", flush=True)


def weak(bench, title, config, sequences, keys, peer, rounds):
    found = Rounds()
    one = ["train.global_batch=" + str(sequences), *keys]
    all_ranks = ["train.global_batch=" + str(sequences * bench.ranks), *keys]
    for _ in range(rounds):
        found.add("one GPU", bench.ours(f"{title}-one", config, *one, ranks=1))
        found.add("all GPUs", bench.ours(f"{title}-all", config, *all_ranks))
        found.add("peer", bench.torch(f"{title}-peer", *peer))
    calibrated = bench.ours(f"{title}-calibrated", config, *all_ranks, options=("--calibrate",), steps=8)
    found.say(title)
    ratio(title, "one GPU over all GPUs (weak scaling)", found.median("one GPU"), found.median("all GPUs"))
    ratio(title, "peer over ours", found.median("peer"), found.median("all GPUs"))
    if calibrated is not None:
        c = calibrated["calibration"]
        print(f"{title:8} exposed + contention {100 * c['efficiency_loss']:.2f} % of a step ({c['step_ms']:.2f} beside "
              f"{c['stubbed_step_ms']:.2f} ms), exposed {c['exposed_ms']:.2f} ms, compute x {c['compute_dilation']:.4f}")


def bench_w1(bench, rounds):
    peer = ("--model", "gpt2-124m", "--mode", "bf16", "--micro-batch", "64", "--seq", "1024")
    weak(bench, "w1", "gpt2-124m.toml", 64, (), peer, rounds)


def bench_w2(bench, rounds):
    peer = ("--model", "llama-1b", "--mode", "fsdp", "--tuned", "--micro-batch", "2", "--seq", "4096")
    weak(bench, "w2", "llama-1b.toml", 2, LLAMA, peer, rounds)


def bench_strong(bench, rounds):
    found, each = Rounds(), 64 // bench.ranks
    for _ in range(rounds):
        found.add("ours", bench.ours("strong", "gpt2-124m.toml", "train.global_batch=64", f"train.micro_batch={each}"))
        options = ("--model", "gpt2-124m", "--mode", "bf16", "--micro-batch", str(each), "--seq", "1024")
        found.add("peer", bench.torch("strong-peer", *options))
    found.say("strong")
    ratio("strong", "peer over ours", found.median("peer"), found.median("ours"))


def bench_sockets(bench, rounds):
    found, bounds = Rounds(), []
    batch = f"train.global_batch={64 * bench.ranks}"
    for _ in range(rounds):
        off = bench.ours("sockets-off", "gpt2-124m.toml", batch, "comm.overlap=false", sockets=True)
        on = bench.ours("sockets", "gpt2-124m.toml", batch, sockets=True)
        options = ("--model", "gpt2-124m", "--mode", "bf16", "--micro-batch", "64", "--seq", "1024")
        found.add("without overlap", off)
        found.add("ours", on)
        found.add("peer", bench.torch("sockets-peer", *options, sockets=True))
        if on is not None and off is not None:
            bounds.append(milliseconds(on) / bound_ms(off, on, on))
            print(f"sockets  reductions alone {transfer_ms(off):.1f} ms, backward {backward_ms(off):.1f} alone, "
                  f"{backward_ms(on):.1f} beside them; exposed {exposed_ms(on):.2f} ms; T* {bound_ms(off, on, on):.2f} ms")
    found.say("sockets")
    if bounds:
        print(f"sockets  step / T*: {statistics.median(bounds):.4f} ({', '.join(f'{b:.4f}' for b in bounds)})")
    ratio("sockets", "peer over ours", found.median("peer"), found.median("ours"))


def bench_predict(bench, rounds):
    batch, config = f"train.global_batch={64 * bench.ranks}", "gpt2-124m.toml"
    off, on = [], []
    for mib in (EVERY_PARAMETER_MIB, None, 65536):  # None: a fifth of all
        mib = mib or off[0]["comm"]["bytes"] / 5 / 2**20
        key = f"comm.bucket_mib={mib}"
        off.append(bench.ours(f"predict-off-{mib:.3g}", config, batch, key, "comm.overlap=false", sockets=True))
        if off[-1] is None:
            return
        if mib != 65536:
            on.append(bench.ours(f"predict-on-{mib:.3g}", config, batch, key, sockets=True))
            if on[-1] is None:
                return
    recording = Recording(off, on)
    print(f"predict  reductions of {recording.alone[-1][0] / 2**20:.0f} MiB: {recording.alone[-1][1]:.1f} ms alone; of "
          f"{recording.beside[-1][0] / 2**20:.0f} MiB beside backward: {recording.beside[-1][1]:.1f}; backward beside "
          f"reductions takes {recording.dilation:.3f} times as long")
    order = {}
    for mib in BUCKETS_MIB:
        steps = [bench.ours(f"predict-{mib}", config, batch, f"comm.bucket_mib={mib}", sockets=True) for _ in range(rounds)]
        steps = [step for step in steps if step is not None]
        if not steps:
            continue
        cuts = [bucket["bytes"] for bucket in steps[0]["comm"]["timeline"]["buckets"]]
        predicted, measured = recording.predict_ms(cuts), statistics.median(map(exposed_ms, steps))
        order[mib] = (predicted, measured)
        print(f"predict  {mib:5} MiB, {len(cuts):3} buckets: exposed, predicted {predicted:7.2f} ms, measured {measured:7.2f} ms: "
              f"{100 * (predicted / measured - 1):+.1f} %", flush=True)
    ranking = [sorted(order, key=lambda mib, i=i: order[mib][i]) for i in (0, 1)]
    print(f"predict  ranking {'right' if ranking[0] == ranking[1] else 'WRONG'}: {ranking[0]} predicted, {ranking[1]} measured")


def bench_alone(bench, rounds):
    found = Rounds()
    for _ in range(rounds):
        for shard in ("none", "optimizer"):
            step = bench.ours(f"alone-{shard}", "gpt2-124m.toml", "train.global_batch=64", f"train.shard={shard}", ranks=1)
            found.add(f"train.shard={shard}", step)
    found.say("alone")
    ratio("alone", "sharded over replicated", found.median("train.shard=optimizer"), found.median("train.shard=none"))


BENCHES = {"w1": bench_w1, "w2": bench_w2, "strong": bench_strong, "sockets": bench_sockets, "predict": bench_predict,
           "alone": bench_alone}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path, nargs="?", default=pathlib.Path("scaling"))
    parser.add_argument("--ranks", type=int, help="GPUs; all of them unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=pathlib.Path)
    parser.add_argument("--only", action="append", choices=BENCHES)
    arguments = parser.parse_args()
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout if arguments.ranks is None else ""
    arguments.ranks = arguments.ranks or listed.count("GPU ")
    if arguments.ranks == 0:
        sys.exit("SKIP no GPU")
    bench = Bench(arguments)
    for name in arguments.only or BENCHES:
        if name != "alone" and arguments.ranks < 2:
            print(f"SKIP {name}: needs 2 GPUs")
            continue
        BENCHES[name](bench, arguments.rounds)


if __name__ == "__main__":
    main()
