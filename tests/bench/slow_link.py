#!/usr/bin/python3
"""How much of a step does a slow link cost, and how much must it?

Two ranks on two hosts (network namespaces of this machine, tests/support/two_hosts.py) with a link that needs 0.8 of
backward to carry all gradients: what hides behind backward only if it works all the time. Needs root.

bound:   a step with overlap, beside the least that the link allows. With ready_b (bucket b's gradients are final) and
         t_b (what its reduction takes with nothing beside it), e_b = max(ready_b, e_(b-1)) + t_b, and
         T* = max(end of backward, last e_b) + optimizer. t_b is read from a run with comm.overlap=false on the same
         link, ready_b from the step with overlap itself; and, for what communication takes from computation, from the
         other. Where weights are gathered under the next forward (train.shard=optimizer), so are the gathers.
peer:    a step over the same program's step without the link, beside PyTorch's DistributedDataParallel over gloo
         (torch_cpu_peer.py), each with the rate that makes the link take 0.8 of its own backward.
predict: the exposed communication of five bucket sizes, predicted as comm.bucket_mib=auto does: from when gradients are
         final, what reductions take by size, alone and beside backward, and how much longer backward takes beside
         them; beside the measured.
auto:    a step with comm.bucket_mib=auto, beside eight fixed sizes.

Runs come in blocks, in which what is compared takes turns; --log FILE keeps blocks, and the next call adds to them.
Summaries are medians over blocks, with the 95 % interval of the mean.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import tomllib

import cpu_speed
from overlap_bound import (
    alone_ms,
    backward_ms,
    bound_ms,
    exposed_ms,
    late_ms,
    Recording,
    stalled_ms,
    summary,
    text_of,
    transfer_ms,
)

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
import two_hosts  # noqa: E402

SHARE = 0.8  # of backward that the link needs
BUCKETS_MIB = (0.0625, 0.25, 0.5, 1.0, 4.0)  # whose exposed time is predicted
FIXED_MIB = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0)  # that auto is compared with
FASTEST_MBIT = 10_000  # about what the namespaces carry at all
EVERY_PARAMETER_MIB = 1e-6  # a bucket each


class Link:
    """The two hosts, at a rate that suits a program."""

    def __init__(self, hosts):
        self.hosts = hosts

    def calibrate(self, backward, gradient_bytes, measure):
        """Sets the rate at which gradients take SHARE of backward. `measure`: their time on the link as it is, ms."""
        target = SHARE * backward
        rate = gradient_bytes * 8e-3 / target  # Mbit/s
        for _ in range(4):
            self.hosts.set_rate(rate)
            found = measure()
            if abs(found - target) < 0.03 * target:
                break
            rate = min(rate * found / target, FASTEST_MBIT)
        return {"mbit_per_s": rate, "backward_ms": backward, "transfer_ms": found, "share": found / backward}


class Ours:
    name = "strake"

    def __init__(self, arguments, hosts, scratch):
        self.arguments, self.hosts, self.scratch = arguments, hosts, scratch

    def step(self, *keys, on_link=True, steps=None):
        """What `strake bench step` says of it."""
        if on_link:
            command = self.hosts.mpirun()
        else:
            command = self.hosts.on(0) + ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", "2"]
        command += [str(self.arguments.strake), "bench", "step", str(self.arguments.config), "--random-data", "--json"]
        command += ["--warmup", str(self.arguments.warmup), "--steps", str(steps or self.arguments.steps)]
        command += ["--repeats", "1", f"run.dir={self.scratch}/run", *self.arguments.keys, *keys]
        before = self.hosts.sent_bytes()
        found = json.loads(output_of(command, cpu_speed.environment()))
        if on_link:
            # An all-reduce sends as many bytes as it sums: half of them as they are, and half of the sums. Sharded, the
            # sums stay, and half of the weights are sent.
            timeline = found["comm"]["timeline"]
            bytes_a_step = sum(bucket["bytes"] for bucket in timeline["buckets"])
            if timeline["gathers"]:
                bytes_a_step = (bytes_a_step + sum(gather["bytes"] for gather in timeline["gathers"])) // 2
            must = bytes_a_step * (found["warmup"] + found["steps"] - 1)
            for sent in (b - a for a, b in zip(before, self.hosts.sent_bytes())):
                if sent < must:
                    sys.exit(
                        f"a rank sent {sent} bytes over the link, less than its gradients' {must}: they went elsewhere"
                    )
        return found

    def calibrate(self, link, bucket_keys=()):
        free = self.step(*bucket_keys, "comm.overlap=false", on_link=False)
        measure = lambda: transfer_ms(self.step(*bucket_keys, "comm.overlap=false", steps=8))
        return link.calibrate(backward_ms(free), free["comm"]["bytes"], measure)


class Peer:
    name = "torch"

    def __init__(self, arguments, hosts, scratch):
        self.arguments, self.hosts = arguments, hosts
        self.data = scratch / "train.bin"
        cpu_speed.write_tokens(self.data)
        with open(arguments.config, "rb") as file:
            config = tomllib.load(file)
        config["model"].setdefault("vocab", cpu_speed.VOCAB)
        for key in arguments.keys:
            name, value = key.split("=", 1)
            section, _, field = name.partition(".")
            if field in cpu_speed.MODEL_KEYS + cpu_speed.TRAIN_KEYS:
                config[section][field] = int(value)
        self.shape = {key: config["model"][key] for key in cpu_speed.MODEL_KEYS}
        self.shape |= {key: config["train"][key] for key in cpu_speed.TRAIN_KEYS}
        self.bucket_mib = None

    def step(self, on_link=True, steps=None, bucket_mib=None, silent=False):
        command = ["/usr/bin/python3", str(HERE / "torch_cpu_peer.py"), "--shape", json.dumps(self.shape)]
        command += ["--data", str(self.data), "--ranks", "2", "--steps", str(steps or self.arguments.steps)]
        command += ["--warmup", str(self.arguments.warmup), *(["--silent"] if silent else [])]
        bucket_mib = bucket_mib or self.bucket_mib
        command += ["--bucket-mib", str(bucket_mib)] if bucket_mib else []
        environment = cpu_speed.environment(GLOO_SOCKET_IFNAME=two_hosts.LINK if on_link else "lo")
        if not on_link:
            return json.loads(output_of(self.hosts.on(0) + command, environment).splitlines()[-1])
        command += ["--address", two_hosts.ADDRESSES[0], "--port", "29500"]
        ranks = [
            subprocess.Popen(
                self.hosts.on(rank) + command + ["--rank", str(rank)],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
            )
            for rank in range(2)
        ]
        said = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode != 0 for rank in ranks):
            sys.exit(f"{' '.join(command)} failed: {[rank.returncode for rank in ranks]}")
        return json.loads(said[0].splitlines()[-1])

    def calibrate(self, link):
        free = self.step(on_link=False, silent=True)
        measure = lambda: self.step(steps=3)["transfer_ms"]
        return link.calibrate(free["backward_ms"], sum(free["bucket_bytes"]), measure)


def output_of(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Blocks:
    """Of this call and, with a file, of those before it; a line each."""

    def __init__(self, path, kind):
        self.path, self.kind, self.all = path, kind, []
        if path is not None and path.exists():
            self.all = [block for block in map(json.loads, path.read_text().splitlines()) if block["kind"] == kind]

    def add(self, **block):
        self.all.append({"kind": self.kind, **block})
        if self.path is not None:
            with open(self.path, "a") as file:
                file.write(json.dumps(self.all[-1]) + "\n")

    def of(self, pick):
        return summary([pick(block) for block in self.all])


def bench_bound(arguments, hosts, scratch, say):
    ours, blocks = Ours(arguments, hosts, scratch), Blocks(arguments.log, "bound")
    link = rate_of(arguments, "bound", ours.calibrate, hosts, say)
    for _ in range(arguments.repeats):
        off, on = ours.step("comm.overlap=false"), ours.step()
        blocks.add(link=link, off_ms=off["step_ms"]["median"], on_ms=on["step_ms"]["median"],
                   bound_ms=bound_ms(off, on, on) - stalled_ms(on) + late_ms(on, off),
                   undisturbed_bound_ms=bound_ms(off, on, off) + late_ms(on, off),
                   transfer_ms=transfer_ms(off), backward_ms=backward_ms(off), busy_backward_ms=backward_ms(on),
                   exposed_ms=exposed_ms(on))
    found = {
        "step_over_bound": blocks.of(lambda b: b["on_ms"] / b["bound_ms"]),
        "step_over_undisturbed_bound": blocks.of(lambda b: b["on_ms"] / b["undisturbed_bound_ms"]),
        "off_over_on": blocks.of(lambda b: b["off_ms"] / b["on_ms"]),
        **{key: blocks.of(lambda b, key=key: b[key]) for key in
           ("on_ms", "off_ms", "bound_ms", "transfer_ms", "backward_ms", "busy_backward_ms", "exposed_ms")},
    }
    say(
        f"backward {text_of(found['backward_ms'], 1, ' ms')}, beside communication {text_of(found['busy_backward_ms'], 1, ' ms')}; "
        f"all reductions alone {text_of(found['transfer_ms'], 1, ' ms')}"
    )
    say(
        f"T* {text_of(found['bound_ms'], 1, ' ms')}; step with overlap {text_of(found['on_ms'], 1, ' ms')}, of it exposed "
        f"{text_of(found['exposed_ms'], 1, ' ms')}; without overlap {text_of(found['off_ms'], 1, ' ms')}, "
        f"{text_of(found['off_over_on'])}x"
    )
    say(
        f"step / T*: {text_of(found['step_over_bound'])}; had backward not been disturbed: "
        f"{text_of(found['step_over_undisturbed_bound'])}"
    )
    ratio = found["step_over_bound"]["median"]
    verdict(arguments, found, "a step within 10 % of what the link allows", ratio <= 1.1, f"{ratio:.3f}x")
    return found


def bench_peer(arguments, hosts, scratch, say):
    if not cpu_speed.has_torch():
        say("python3-torch is not installed: nothing to compare with")
        if not arguments.smoke:
            sys.exit(2)
        return {}
    ours, peer = Ours(arguments, hosts, scratch), Peer(arguments, hosts, scratch)
    blocks = Blocks(arguments.log, "peer")
    peer_link = rate_of(arguments, "peer-torch", peer.calibrate, hosts, say)
    if arguments.peer_bucket_mib:
        peer.bucket_mib = arguments.peer_bucket_mib
    elif not arguments.smoke:
        hosts.set_rate(peer_link["mbit_per_s"])
        times = {size: peer.step(steps=10, bucket_mib=size)["step_ms"] for size in (25, 1, 0.5, 0.25)}
        peer.bucket_mib = min(times, key=times.get)
        say("peer, bucket_cap_mb: " + ", ".join(f"{size} {ms:.0f} ms" for size, ms in times.items()))
    our_link = rate_of(arguments, "peer-strake", ours.calibrate, hosts, say)
    for _ in range(arguments.repeats):
        block = {"bucket_cap_mb": peer.bucket_mib, "links": {"strake": our_link, "torch": peer_link}}
        block["strake_free_ms"] = ours.step(on_link=False)["step_ms"]["median"]
        hosts.set_rate(our_link["mbit_per_s"])
        block["strake_ms"] = ours.step()["step_ms"]["median"]
        block["torch_free_ms"] = peer.step(on_link=False)["step_ms"]
        hosts.set_rate(peer_link["mbit_per_s"])
        block["torch_ms"] = peer.step()["step_ms"]
        blocks.add(**block)
    found = {key: blocks.of(lambda b, key=key: b[key]) for key in
             ("strake_free_ms", "strake_ms", "torch_free_ms", "torch_ms")}
    for side in ("strake", "torch"):
        found[side] = blocks.of(lambda b, side=side: b[f"{side}_ms"] / b[f"{side}_free_ms"])
        say(
            f"{side:<7} {text_of(found[side])}x: {text_of(found[f'{side}_free_ms'], 1, ' ms')} without the link, "
            f"{text_of(found[f'{side}_ms'], 1, ' ms')} with it"
        )
    better = found["strake"]["median"] < found["torch"]["median"]
    verdict(arguments, found, "a step suffers less from the link than PyTorch's", better,
            f"{found['strake']['median']:.3f}x beside {found['torch']['median']:.3f}x")
    return found


def bench_predict(arguments, hosts, scratch, say):
    ours, blocks = Ours(arguments, hosts, scratch), Blocks(arguments.log, "predict")
    link = rate_of(arguments, "bound", ours.calibrate, hosts, say)
    for _ in range(arguments.repeats):
        every = f"comm.bucket_mib={EVERY_PARAMETER_MIB}"
        fine = ours.step("comm.overlap=false", every)
        fifth = f"comm.bucket_mib={fine['comm']['bytes'] / 5 / 2**20}"
        off = [fine, *(ours.step("comm.overlap=false", key, steps=10) for key in (fifth, "comm.bucket_mib=65536"))]
        recording = Recording(off, [ours.step(every, steps=10), ours.step(fifth, steps=10)])
        sizes = []
        for mib in BUCKETS_MIB:
            step = ours.step(f"comm.bucket_mib={mib}")
            cuts = [bucket["bytes"] for bucket in step["comm"]["timeline"]["buckets"]]
            sizes.append({"mib": mib, "buckets": len(cuts), "predicted_ms": recording.predict_ms(cuts),
                          "measured_ms": exposed_ms(step), "step_ms": step["step_ms"]["median"]})
        blocks.add(link=link, dilation=recording.dilation, sizes=sizes)
        cost = lambda of: ", ".join(f"{size >> 10} KiB {ms:.1f}" for size, ms in of)
        say(f"reductions alone, ms: {cost(recording.alone)}; beside backward: {cost(recording.beside)}")
    found = {"dilation": blocks.of(lambda b: b["dilation"]), "sizes": []}
    say(f"backward beside reductions takes {text_of(found['dilation'], 2)} times as long")
    for i, mib in enumerate(BUCKETS_MIB):
        of = {
            key: blocks.of(lambda b, i=i, key=key: b["sizes"][i][key])
            for key in ("predicted_ms", "measured_ms", "step_ms")
        }
        error = (
            of["predicted_ms"]["median"] / of["measured_ms"]["median"] - 1 if of["measured_ms"]["median"] else math.inf
        )
        found["sizes"].append({"mib": mib, "error": error, **of})
        say(
            f"{mib:7.4f} MiB, {blocks.all[-1]['sizes'][i]['buckets']:3} buckets: exposed, predicted "
            f"{text_of(of['predicted_ms'], 2, ' ms')}, measured {text_of(of['measured_ms'], 2, ' ms')}: {100 * error:+.1f} %"
        )
    order = lambda key: sorted(
        BUCKETS_MIB, key=lambda mib: next(s[key]["median"] for s in found["sizes"] if s["mib"] == mib)
    )
    found["ranking_right"] = order("predicted_ms") == order("measured_ms")
    worst = max(abs(size["error"]) for size in found["sizes"])
    say(f"ranking {'right' if found['ranking_right'] else 'WRONG'}: predicted {order('predicted_ms')}, measured "
        f"{order('measured_ms')}")
    verdict(arguments, found, "exposed time predicted within 10 %, ranking right", worst <= 0.1 and found["ranking_right"],
            f"{100 * worst:.1f} % at worst")
    return found


def bench_auto(arguments, hosts, scratch, say):
    ours, blocks = Ours(arguments, hosts, scratch), Blocks(arguments.log, "auto")
    rate_of(arguments, "bound", ours.calibrate, hosts, say)
    for block in range(arguments.repeats):
        sizes = ["auto", *FIXED_MIB]
        turned = sizes[block % len(sizes) :] + sizes[: block % len(sizes)]
        steps = {size: ours.step(f"comm.bucket_mib={size}") for size in turned}
        blocks.add(ms={str(size): steps[size]["step_ms"]["median"] for size in sizes}, chosen=steps["auto"]["comm"]["buckets"])
    found = {str(size): blocks.of(lambda b, size=size: b["ms"][str(size)]) for size in ("auto", *FIXED_MIB)}
    best = min(FIXED_MIB, key=lambda size: found[str(size)]["median"])
    for size, of in found.items():
        say(f"{size:>7}{' MiB' if size != 'auto' else '    '}: {text_of(of, 1, ' ms')}{', the best' if size == str(best) else ''}")
    found["auto_over_best"] = blocks.of(lambda b: b["ms"]["auto"] / b["ms"][str(best)])
    say(f"auto (buckets: {[block['chosen'] for block in blocks.all]}) over the best: {text_of(found['auto_over_best'])}")
    ratio = found["auto_over_best"]["median"]
    verdict(arguments, found, "comm.bucket_mib=auto within 3 % of the best of eight", ratio <= 1.03, f"{ratio:.3f}x")
    return found


def rate_of(arguments, name, calibrate, hosts, say):
    """As measured, once for all blocks of a log. Leaves the link at that rate."""
    rates = Blocks(arguments.log, f"rate {name}")
    if not rates.all:
        rates.add(**calibrate(Link(hosts)))
    rate = {key: value for key, value in rates.all[-1].items() if key != "kind"}
    hosts.set_rate(rate["mbit_per_s"])
    say(
        f"link of {rate['mbit_per_s']:.0f} Mbit/s each way: all gradients take {rate['transfer_ms']:.1f} ms alone, "
        f"{rate['share']:.2f} of a backward of {rate['backward_ms']:.1f} ms ({name})"
    )
    return rate


def verdict(arguments, found, question, holds, how):
    found["verdict"] = "not judged" if arguments.smoke else "holds" if holds else "DOES NOT HOLD"
    if not arguments.json:
        print(f"   verdict: {question}: {found['verdict']} ({how})", flush=True)


BENCHES = {"bound": bench_bound, "peer": bench_peer, "predict": bench_predict, "auto": bench_auto}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "keys", nargs="*", metavar="KEY=VALUE", help="of the config of every run: train.shard=optimizer ..."
    )
    parser.add_argument("--bench", choices=BENCHES, action="append", help="all of them unless given")
    parser.add_argument("--strake", type=pathlib.Path, default=cpu_speed.ROOT / "build/release/bin/strake")
    parser.add_argument("--config", type=pathlib.Path, default=cpu_speed.ROOT / "examples/quickstart.toml")
    parser.add_argument("--repeats", type=int, default=7, help="blocks of this call; 0: only what the log has")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--peer-bucket-mib", type=float, help="instead of trying four sizes")
    parser.add_argument("--log", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="a few steps, judges nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.repeats, arguments.steps, arguments.warmup = 1, 3, 1
        arguments.keys += ["model.layers=1", "train.sequence=16", "train.micro_batch=1", "train.global_batch=2"]
    arguments.keys.insert(0, f"model.vocab={cpu_speed.VOCAB}")

    def say(line):
        if not arguments.json:
            print("   " + line, flush=True)

    missing = two_hosts.why_not()
    if missing:
        print(f"skipped: {missing}" if arguments.smoke else f"slow_link: {missing}", file=sys.stderr)
        return 0 if arguments.smoke else 2
    result = {"bench": "slow_link", "machine": cpu_speed.machine(), "keys": arguments.keys}
    if not arguments.json:
        print(
            f"== slow_link: how much of a step does a slow link cost?\n   {result['machine']}\n   {arguments.keys}",
            flush=True,
        )
    with two_hosts.TwoHosts() as hosts, tempfile.TemporaryDirectory(prefix="strake-bench-") as scratch:
        for name in arguments.bench or BENCHES:
            result[name] = BENCHES[name](arguments, hosts, pathlib.Path(scratch), say)
    if arguments.json:
        print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
