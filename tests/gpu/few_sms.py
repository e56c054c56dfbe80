#!/usr/bin/env python3
"""few_sms.py OUT: what few_sms.sh has measured, as tables, and as few_sms.json in OUT. Times of steps are medians over rounds."""
import json
import pathlib
import statistics
import sys

out = pathlib.Path(sys.argv[1])


def read(pattern):
    paths = sorted(out.glob(pattern), key=lambda path: ("plain" not in path.stem, path.stem))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def said(value, digits=1):
    return "-" if value is None else f"{value:.{digits}f}"


comm = {name.removeprefix("comm-"): one for name, one in read("comm-*.json").items()}
rounds = {}
for name, one in read("step-*.json").items():
    rounds.setdefault(name.removeprefix("step-").rsplit("-round-", 1)[0], []).append(one)
steps = {}
for name, found in rounds.items():
    def median(of):
        return statistics.median(of(one) for one in found)

    steps[name] = {
        "switches": found[0]["switches"],
        "rounds_ms": [one["step_ms"]["median"] for one in found],
        "step_ms": median(lambda one: one["step_ms"]["median"]),
        "forward_ms": median(lambda one: one["breakdown_ms"]["forward"]),
        "backward_ms": median(lambda one: one["breakdown_ms"]["backward"]),
        "exposed_ms": median(lambda one: one["comm"]["exposed_ms"]),
        "busy_ms": median(lambda one: one["comm"]["busy_ms"]),
    }

results = [{"variant": name, "switches": one["switches"], "product": one["product"], "results": one["results"]} for name, one in comm.items()]
first = next(iter(comm.values()), None) or next(iter(rounds.values()), [{}])[0]
(out / "few_sms.json").write_text(json.dumps({
    "format": "strake-few-sms-1", "comm": results, "steps": steps, "hardware": first.get("hardware"), "libraries": first.get("libraries"),
}, indent=2) + "\n")

print(f"{'collective':15} {'size B':>12} {'variant':26} {'busbw GB/s':>11} {'beside us':>10} {'product us':>11} {'alone us':>9} {'product':>8}")
keys = sorted({(each["collective"], each["size_bytes"]) for one in comm.values() for each in one["results"]})
for key in keys:
    for name, one in comm.items():
        for each in one["results"]:
            if (each["collective"], each["size_bytes"]) != key:
                continue
            beside = each["beside"] or {}
            product, alone = beside.get("product_us"), beside.get("product_alone_us")
            longer = f"{100 * (product / alone - 1):+.1f} %" if product and alone else "-"
            print(f"{key[0]:15} {key[1]:12} {name:26} {each['busbw_gb_s']:11.1f} {said(beside.get('time_us')):>10} "
                  f"{said(product):>11} {said(alone):>9} {longer:>8}")
print(f"\n{'step':28} {'ms':>8} {'beside plain':>13} {'forward':>8} {'backward':>9} {'exposed':>8} {'comm busy':>10}  rounds")
for name, one in steps.items():
    plain = steps.get("sharded-plain" if name.startswith("sharded-") else "plain")
    beside = f"{100 * (one['step_ms'] / plain['step_ms'] - 1):+.2f} %" if plain else "-"
    print(f"{name:28} {one['step_ms']:8.2f} {beside:>13} {one['forward_ms']:8.2f} {one['backward_ms']:9.2f} {one['exposed_ms']:8.2f} "
          f"{one['busy_ms']:10.2f}  {' '.join(f'{ms:.2f}' for ms in one['rounds_ms'])}")
