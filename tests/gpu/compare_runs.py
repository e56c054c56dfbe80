"""compare_runs.py RUN OTHER: are the losses and gradient norms of two run folders equal in every bit?

For each step the line written last counts (docs/formats.md). Exits 1 with the first difference.
"""
import json
import pathlib
import sys


def steps(folder):
    out = {}
    for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "loss" in entry:
            out[entry["step"]] = (entry["loss"], entry["grad_norm"])
    return out


mine, other = steps(sys.argv[1]), steps(sys.argv[2])
if not mine or mine.keys() != other.keys():
    sys.exit(f"steps {sorted(mine)} and {sorted(other)}")
for step in sorted(mine):
    if mine[step] != other[step]:
        sys.exit(f"step {step}: loss and gradient norm {mine[step]} and {other[step]}")
print(f"{len(mine)} steps, losses and gradient norms equal in every bit, last loss {mine[max(mine)][0]:.6f}")
