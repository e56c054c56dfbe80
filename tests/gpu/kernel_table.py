#!/usr/bin/env python3
"""Where a training step's time goes on the GPU, kernel by kernel, from a trace of kernel_trace.cc.

kernel_table.py TRACE [--bench FILE] [--kernels FILE] [--peer TRACE] [--peer-name NAME] [--steps N] [--marker REGEX]
                [--stream N] [--device N] [--top N] [--json FILE]

TRACE was written while `strake bench step CONFIG --json > FILE` ran with
    CUDA_INJECTION64_PATH=.../libkernel_trace.so STRAKE_KERNEL_TRACE=TRACE
--bench FILE: what that run printed. Its steps are those that are looked at, and the times of its step account are
compared with the trace: they must agree within 1 % (exit code 1 if they do not).
--kernels FILE: what `strake bench kernels CONFIG --json` printed, for the bytes and FLOPs of our own kernels.
--peer TRACE: the same of another program (PyTorch under the same library), whose table stands beside ours.
--steps N: the last N steps of a trace are looked at (default: all of --bench, else 8).

A step is what repeats: between two neighbouring calls of some kernel, the same kernels in the same order, N times, on
the stream on which that takes longest. --marker names the kernel if the longest such interval is not a step.
"""

import argparse
import collections
import csv
import functools
import json
import re
import statistics
import sys

# The parts of a step, by what kernels are called: ours (by the file they are in), cuBLASLt's, cuDNN's, NCCL's, and those
# of PyTorch and its compiler, whose name lists everything that was fused. The first
# that fits counts.
PARTS = (
    ("communication", r"nccl"),
    ("attention", r"sdpa|flash|fmha|attention|compute_dot_do_o|convert_dq"),
    ("matrix products", r"nvjet|gemm|cutlass|xmma|cublas|split_?k"),
    ("cross-entropy", r"cross_entropy|pipelined_row|log_softmax|nll_loss"),
    ("optimizer", r"optimizer\.cu|adam|multi_tensor_apply|foreach|clip_grad|lerp"),
    ("norm", r"layer_norm|rms_norm|norm_backward|norm_combine|batch_norm"),
    ("activation", r"gelu|swiglu|silu|tanh|elementwise\.cu::map"),
    ("rotary", r"rotary|rope"),
    ("bias gradients", r"column_sums|bgrad"),
    ("embedding", r"embedding|index_put|indexing"),
    ("copies and memsets", r"^memcpy|^memset|copy_kernel|cast_kernel|CatArray|FillFunctor"),
)
TOLERANCE = 0.01
# Marks of the account lie some microseconds beside what they stand for.
LEAST_TOLERANCE_MS = 0.02


class BadTrace(Exception):
    pass


Activity = collections.namedtuple("Activity", "kind start_ns end_ns device stream grid bytes name")


def read_trace(path):
    """Activities by time; BadTrace if the file is not a whole trace."""
    activities, end = [], None
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.reader(file)
            header = next(rows, None)
            if header != ["kind", "start_ns", "end_ns", "device", "stream", "grid", "block", "bytes", "name"]:
                raise BadTrace(f"{path}: no trace of kernel_trace.cc: the header is another")
            for row in rows:
                if len(row) != 9:
                    raise BadTrace(f"{path}:{rows.line_num}: {len(row)} fields instead of 9")
                kind, start, stop, device, stream, grid, _, size, name = row
                try:
                    if kind == "end":
                        end = (int(size), int(start))
                        continue
                    activities.append(Activity(kind, int(start), int(stop), int(device), int(stream), grid,
                                               int(size) if size else 0, name))
                except ValueError as error:
                    raise BadTrace(f"{path}:{rows.line_num}: {error}") from None
    except (OSError, csv.Error) as error:
        raise BadTrace(f"{path}: {error}") from None
    if end is None:
        raise BadTrace(f"{path}: the last line is missing: the traced program did not end by itself")
    written, lost = end
    if lost or written != len(activities):
        raise BadTrace(f"{path}: {lost} activities were lost, {len(activities)} of {written} lines are here")
    return sorted(activities, key=lambda activity: activity.start_ns)


def streams_of(activities, device=None, stream=None):
    """Activities of each stream that computes."""
    streams = collections.defaultdict(list)
    for activity in activities:
        if device in (None, activity.device) and stream in (None, activity.stream):
            streams[activity.device, activity.stream].append(activity)
    computing = [each for each in streams.values()
                 if any(one.kind == "kernel" and part_of(one.name) != "communication" for one in each)]
    if not computing:
        raise BadTrace("no kernel ran there")
    return computing


def longest_steps(streams, steps, marker=None):
    """steps_of() of the compute stream: the one on which they take longest. Before the first step another may compute
    longer than all steps, to choose algorithms."""
    found = []
    for activities in streams:
        try:
            found.append(steps_of(activities, steps, marker))
        except BadTrace as error:
            problem = error
    if not found:
        raise problem
    return max(found, key=lambda each: each[-1][-1].end_ns - each[0][0].start_ns)


def steps_of(activities, steps, marker=None):
    """The last `steps` steps, each a list of activities: the longest intervals between neighbouring calls of a kernel
    that are the same `steps` times, at the end of the trace. Each is what the stream did from one step's end to the
    next's."""
    names = {}
    sequence = [names.setdefault((activity.kind, activity.name, activity.grid), len(names)) for activity in activities]
    places = collections.defaultdict(list)
    for place, name in enumerate(sequence):
        places[name].append(place)
    best = None
    for (kind, text, _), name in names.items():
        if marker is not None and not re.search(marker, text):
            continue
        found = places[name]
        # From the back: what comes behind the last step (an evaluation, a copy of results) is no whole interval.
        for last in range(len(found) - 1, max(steps - 1, len(found) - 4), -1):
            cuts = found[last - steps:last + 1]
            first = sequence[cuts[0] + 1:cuts[1] + 1]
            if len(sequence) - cuts[-1] > 4 * len(first) or len(set(first)) < 2:
                break  # from before the first step, or one kernel over and over
            if all(sequence[a + 1:b + 1] == first for a, b in zip(cuts[1:], cuts[2:])):
                span_ns = activities[cuts[-1]].end_ns - activities[cuts[0]].end_ns
                if best is None or span_ns > best[0]:
                    best = (span_ns, cuts)
                break
    if best is None:
        raise BadTrace(f"no {steps} steps were found that are made of the same kernels; give --steps or --marker")
    cuts = best[1]
    shift = behind_optimizer(activities[cuts[0] + 1:cuts[1] + 1])
    cuts = [cut - shift for cut in cuts if cut >= shift]
    return [activities[a + 1:b + 1] for a, b in zip(cuts, cuts[1:])]


def behind_optimizer(period):
    """How many activities before the end of `period` its step ends, if it goes round: behind the optimizer and the
    copies of results to the host. 0: there is no optimizer."""
    places = [place for place, activity in enumerate(period) if part_of(activity.name) == "optimizer"]
    if not places:
        return 0
    # What lies between it and the next step's optimizer is longest there.
    following = places[1:] + [places[0] + len(period)]
    end = max(zip(places, following), key=lambda pair: pair[1] - pair[0])[0]
    while period[(end + 1) % len(period)].name == "memcpy DtoH":
        end += 1
    return (len(period) - 1 - end) % len(period)


@functools.lru_cache(maxsize=None)
def part_of(name):
    for part, pattern in PARTS:
        if re.search(pattern, name, re.IGNORECASE):
            return part
    return "other"


def short(name, width=72):
    """A kernel's name without the arguments of its templates and of itself."""
    out, depth = [], 0
    for c in name.replace("(anonymous namespace)::", "").replace("strake::kernels::", "").removeprefix("void "):
        if c in "<(":
            depth += 1
        if depth == 0:
            out.append(c)
        if c in ">)":
            depth -= 1
    text = "".join(out).strip() or name
    return text if len(text) <= width else text[:width - 1] + "…"


def idle_ns(step, begin_ns):
    """Gaps of the stream from `begin_ns` to the end of the step."""
    gaps, end = [], begin_ns
    for activity in step:
        if activity.start_ns > end:
            gaps.append(activity.start_ns - end)
        end = max(end, activity.end_ns)
    return gaps


def table_of(path, steps, marker=None, device=None, stream=None):
    """What the steps of a trace took: ms are means over steps."""
    found = longest_steps(streams_of(read_trace(path), device, stream), steps, marker)
    rows = {}
    for step in found:
        for activity in step:
            row = rows.setdefault((short(activity.name), part_of(activity.name)), {"calls": 0, "ms": 0.0, "bytes": 0,
                                                                                   "name": activity.name})
            row["calls"] += 1 / len(found)
            row["ms"] += (activity.end_ns - activity.start_ns) / 1e6 / len(found)
            row["bytes"] += activity.bytes / len(found)
    walls = [(b[-1].end_ns - a[-1].end_ns) / 1e6 for a, b in zip(found, found[1:])]
    gaps = [idle_ns(b, a[-1].end_ns) for a, b in zip(found, found[1:])]
    wall = statistics.median(walls)
    kernels = [{"kernel": name, "part": part, "calls": round(row["calls"], 3), "ms": row["ms"],
                "share": row["ms"] / wall, "bytes": row["bytes"], "name": row["name"]}
               for (name, part), row in rows.items()]
    kernels.sort(key=lambda row: -row["ms"])
    parts = collections.Counter()
    for row in kernels:
        parts[row["part"]] += row["ms"]
    return {"trace": str(path), "steps": len(found), "step_ms": wall, "activities": len(found[0]),
            "busy_ms": sum(row["ms"] for row in kernels),
            "idle_ms": statistics.median(sum(gap) / 1e6 for gap in gaps),
            "gaps_over_1us": statistics.median(sum(1 for each in gap if each > 1000) for gap in gaps),
            "longest_gap_us": max(max(gap, default=0) for gap in gaps) / 1e3,
            "parts": dict(parts.most_common()), "kernels": kernels, "found": found}


def add_rates(table, kernels):
    """GB/s and TFLOP/s of kernels whose operations `strake bench kernels` knows the cost of."""
    cost = collections.defaultdict(lambda: [0.0, 0.0])
    products = [0.0, 0.0]
    for row in kernels["operations"]:
        of = cost[row["operation"]]
        of[0] += row["bytes"] * row["calls"]
        of[1] += row["flops"] * row["calls"]
        if row["operation"].startswith("linear_"):
            products[0] += row["bytes"] * row["calls"]
            products[1] += row["flops"] * row["calls"]

    for row in table["kernels"]:
        row["operation"] = operation_of(row, cost)
        row["gb_per_s"] = row["bytes"] / row["ms"] / 1e6 if row["bytes"] and row["ms"] > 0 else None
        row["tflops"] = None
    for operation, (total_bytes, flops) in cost.items():
        rows = [row for row in table["kernels"] if row["operation"] == operation]
        ms = sum(row["ms"] for row in rows)
        if ms == 0:
            continue
        # Of several kernels of an operation the longest says it for all.
        if flops:
            rows[0]["tflops"] = flops / ms / 1e9
        elif total_bytes:
            rows[0]["gb_per_s"] = total_bytes / ms / 1e6
    table["products_tflops"] = None
    products_ms = table["parts"].get("matrix products", 0)
    if products_ms > 0 and products[1] > 0:
        table["products_tflops"] = products[1] / products_ms / 1e9


def operation_of(row, operations):
    """The operation of `strake bench kernels` that a kernel is of; None: it is none of ours, or several could be."""
    function = short(row["name"])
    found = re.search(r"(\w+)\.cuh?::", function)
    stem = "attention" if row["part"] == "attention" else found[1] if found else None
    if stem is None:
        return None
    mine = [each for each in operations if stem in each]
    if stem == "optimizer":
        mine = [each for each in operations if each + "_kernel" in function]
    if stem == "cross_entropy" and "loss_kernel" in function:
        mine = ["accumulate_loss"]
    if len(mine) > 1:
        forward = re.search(r"forward|fprop|fwd", row["name"]) is not None
        mine = [each for each in mine if each.endswith("_forward") == forward]
    return mine[0] if len(mine) == 1 else None


def classes_of(found):
    """Medians of what the step account calls forward, backward, exposed_comm and optimizer, from the steps of a trace:
    forward from the end of the step before to that of the loss, backward to the last kernel before the gradient norm."""
    classes = collections.defaultdict(list)
    for before, step in zip(found, found[1:]):
        losses = [i for i, each in enumerate(step) if "cross_entropy.cu::loss_kernel" in each.name]
        norm = next((i for i, each in enumerate(step) if "square_sums_kernel" in each.name), None)
        if not losses or norm is None or losses[-1] >= norm:
            raise BadTrace("these are no steps of strake: no loss, or no gradient norm behind it")
        begin, forward, backward = before[-1].end_ns, 0, 0
        for loss, end in zip(losses, losses[1:] + [norm]):
            # Backward of a micro-batch ends where the next one's tokens are looked up.
            last = next((k for k in range(loss + 1, end) if "embedding.cu::forward_kernel" in step[k].name), end) - 1
            forward += step[loss].end_ns - begin
            backward += step[last].end_ns - step[loss].end_ns
            begin = step[last].end_ns
        classes["forward"].append(forward / 1e6)
        classes["backward"].append(backward / 1e6)
        classes["exposed_comm"].append((step[norm].start_ns - begin) / 1e6)
        classes["optimizer"].append((step[-1].end_ns - step[norm].start_ns) / 1e6)
    return {name: statistics.median(times) for name, times in classes.items()}


def compare_account(table, bench):
    """Rows (class, account ms, trace ms, agree). What comes before forward (the wait for a batch, the host) is part of
    the trace's forward; where nothing is exposed, the account's optimizer begins where backward ends."""
    trace, said = classes_of(table["found"]), bench["breakdown_ms"]
    account = {"forward": said["forward"] + said["h2d"] + said["data_wait"] + said["host_gap"],
               "backward": said["backward"], "exposed_comm": said["exposed_comm"], "optimizer": said["optimizer"]}
    if len(bench["ranks"]) == 1:
        for times in (trace, account):
            times["optimizer"] += times.pop("exposed_comm")
    rows = []
    for name, account_ms in account.items():
        trace_ms = trace[name]
        agree = abs(trace_ms - account_ms) <= max(TOLERANCE * account_ms, LEAST_TOLERANCE_MS)
        rows.append({"class": name, "account_ms": account_ms, "trace_ms": trace_ms, "agree": agree})
    step_ms = bench["step_ms"]["median"]
    rows.append({"class": "step", "account_ms": step_ms, "trace_ms": table["step_ms"],
                 "agree": abs(step_ms - table["step_ms"]) <= TOLERANCE * step_ms})
    return rows


def text_of(table, peer, peer_name, account, top):
    lines = [f"{table['trace']}: {table['steps']} steps of {table['step_ms']:.3f} ms, {table['activities']} activities "
             f"each; busy {table['busy_ms']:.3f} ms, idle {table['idle_ms']:.3f} ms ({table['gaps_over_1us']:.0f} gaps "
             f"over 1 us, longest {table['longest_gap_us']:.1f} us)"]
    if peer:
        lines.append(f"{peer['trace']}: {peer['steps']} steps of {peer['step_ms']:.3f} ms, {peer['activities']} "
                     f"activities each; busy {peer['busy_ms']:.3f} ms, idle {peer['idle_ms']:.3f} ms")
    lines += ["", f"| part | ms a step | share |" + (f" {peer_name} ms | difference |" if peer else ""),
              "|---|---|---|" + ("---|---|" if peer else "")]
    names = list(table["parts"]) + [part for part in (peer or {"parts": {}})["parts"] if part not in table["parts"]]

    def row(name, mine, other):
        text = f"| {name} | {mine:.3f} | {100 * mine / table['step_ms']:.1f} % |"
        return text + (f" {other:.3f} | {mine - other:+.3f} |" if peer else "")

    for name in names:
        lines.append(row(name, table["parts"].get(name, 0), peer["parts"].get(name, 0) if peer else 0))
    lines.append(row("idle", table["idle_ms"], peer["idle_ms"] if peer else 0))
    lines.append(row("step", table["step_ms"], peer["step_ms"] if peer else 0))
    if table.get("products_tflops"):
        lines.append(f"\nmatrix products: {table['products_tflops']:.1f} TFLOP/s over all")
    for each in (table, peer):
        if not each:
            continue
        lines += ["", f"{each['trace']}:", "", "| kernel | part | calls | ms a step | us a call | share | rate |",
                  "|---|---|---|---|---|---|---|"]
        for kernel in each["kernels"][:top]:
            rate = ""
            if kernel.get("tflops"):
                rate = f"{kernel['tflops']:.1f} TFLOP/s"
            elif kernel.get("gb_per_s"):
                rate = f"{kernel['gb_per_s']:.0f} GB/s"
            lines.append(f"| {kernel['kernel']} | {kernel['part']} | {kernel['calls']:g} | {kernel['ms']:.3f} | "
                         f"{1e3 * kernel['ms'] / kernel['calls']:.1f} | {100 * kernel['share']:.1f} % | {rate} |")
        rest = each["kernels"][top:]
        if rest:
            lines.append(f"| {len(rest)} more | | {sum(kernel['calls'] for kernel in rest):g} | "
                         f"{sum(kernel['ms'] for kernel in rest):.3f} | | | |")
    if account:
        lines += ["", "| class | account ms | trace ms | |", "|---|---|---|---|"]
        for each in account:
            lines.append(f"| {each['class']} | {each['account_ms']:.3f} | {each['trace_ms']:.3f} | "
                         f"{'agree' if each['agree'] else 'DIFFER'} |")
    return "\n".join(lines)


def read_json(path, form):
    try:
        with open(path, encoding="utf-8") as file:
            out = json.load(file)
    except (OSError, ValueError) as error:
        raise BadTrace(f"{path}: {error}") from None
    if not isinstance(out, dict) or out.get("format") != form:
        raise BadTrace(f"{path}: not of the format {form}")
    return out


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--bench")
    parser.add_argument("--kernels")
    parser.add_argument("--peer")
    parser.add_argument("--peer-name", default="peer")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--marker")
    parser.add_argument("--stream", type=int)
    parser.add_argument("--device", type=int)
    parser.add_argument("--top", type=int, default=30)
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    try:
        bench = read_json(options.bench, "strake-bench-step-1") if options.bench else None
        steps = options.steps or (bench["steps"] * bench["repeats"] if bench else 8)
        if steps < 2:
            raise BadTrace("--steps: at least two, of which the first is where the second begins")
        table = table_of(options.trace, steps, options.marker, options.device, options.stream)
        peer = table_of(options.peer, options.steps or 8) if options.peer else None
        if options.kernels:
            add_rates(table, read_json(options.kernels, "strake-bench-kernels-1"))
        account = compare_account(table, bench) if bench else None
    except BadTrace as error:
        print(f"kernel_table.py: {error}", file=sys.stderr)
        return 2
    print(text_of(table, peer, options.peer_name, account, options.top))
    if options.json:
        for each in (table, peer):
            if each:
                del each["found"]
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"table": table, "peer": peer, "account": account}, file, indent=1)
    return 1 if account and not all(each["agree"] for each in account) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
