#!/usr/bin/env python3
"""Draws one step as `strake bench step CONFIG --json` measured it: overlap_picture.py FILE [COLUMNS].

A line for the compute stream and one for the communication stream, in time; then every bucket: from where its gradients
are final (.) to where its reduction begins, and its reduction (#).
"""

import json
import pathlib
import sys


def picture(step, columns=100):
    timeline = step["comm"]["timeline"]
    buckets, gathers = timeline["buckets"], timeline["gathers"]
    backward_begin, backward_end = timeline["backward_begin_ms"], timeline["backward_end_ms"]
    reduced = max([backward_end, *(bucket["end_ms"] for bucket in buckets)])
    end = max(reduced + step["breakdown_ms"]["optimizer"], step["step_ms"]["median"])
    at = lambda ms: max(0, min(columns - 1, round(ms / end * columns)))

    def line(*parts):
        text = [" "] * columns
        for begin, stop, sign in parts:
            for i in range(at(begin), max(at(begin) + 1, at(stop))):
                text[i] = sign
        return "".join(text).rstrip()

    def bars(each):
        return line((each["ready_ms"], each["begin_ms"], "."), (each["begin_ms"], each["end_ms"], "#"))

    compute = [(0, backward_begin, "F"), (backward_begin, backward_end, "B"), (reduced, end, "U")]
    if reduced > backward_end:
        compute.append((backward_end, reduced, "_"))
    rows = [f"0{f'{end:.1f} ms':>{columns - 1}}", "compute  " + line(*compute)]
    rows.append("comm     " + line(*((each["begin_ms"], each["end_ms"], "#") for each in gathers + buckets)))
    for kind, all_of_a_kind in (("gather", gathers), ("bucket", buckets)):
        for i, each in enumerate(all_of_a_kind):
            rows.append(f"{kind} {i:<2}{bars(each)}   {each['bytes'] / 2**20:.1f} MiB")
    rows[0] = " " * 9 + rows[0]
    return "\n".join(rows)


if __name__ == "__main__":
    print(picture(json.loads(pathlib.Path(sys.argv[1]).read_text()), int(sys.argv[2]) if len(sys.argv) > 2 else 100))
