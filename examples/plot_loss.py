#!/usr/bin/env python3
"""The loss of a run over its steps: on the terminal as text, or as a picture where matplotlib is installed.

    python3 plot_loss.py RUN               # text
    python3 plot_loss.py RUN -o loss.png   # .png, .svg or .pdf

RUN is a run folder, or the metrics.jsonl in it. That has a line a step and a line an evaluation; after a crash steps are done again
under the next attempt, and of each step the line written last counts.
"""

import argparse
import json
import math
import pathlib
import shutil
import sys


def read_run(run):
    """losses by step, held-out losses by step, the first step of each attempt but the first."""
    losses, held_out, attempts = {}, {}, {}
    path = run / "metrics.jsonl" if run.is_dir() else run
    text = path.read_text(encoding="utf-8", errors="replace")
    for line in text.split("\n")[:-1]:  # what follows the last newline is a line torn by a crash
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # zeros, which a power loss may leave
        if not isinstance(entry, dict) or "step" not in entry or not ("val_loss" in entry or "loss" in entry):
            continue  # not written by a run
        into, value = (held_out, entry["val_loss"]) if "val_loss" in entry else (losses, entry["loss"])
        into[entry["step"]] = math.nan if value is None else value  # null: it was not finite
        if into is losses:
            attempts[entry["step"]] = entry.get("attempt")
    steps = sorted(attempts)
    resumed = [step for before, step in zip(steps, steps[1:]) if attempts[step] != attempts[before]]
    return losses, held_out, resumed


def summary(losses, held_out, resumed):
    steps = sorted(losses)
    lines = [f"loss (.) {losses[steps[0]]:.4f} in step {steps[0]}, {losses[steps[-1]]:.4f} in step {steps[-1]}"]
    if held_out:
        last = max(held_out)
        line = f"held-out loss (o) {held_out[last]:.4f} after step {last}"
        finite = {step: loss for step, loss in held_out.items() if math.isfinite(loss)}
        if finite:
            best = min(finite, key=finite.get)
            line += f", best {finite[best]:.4f} after step {best}"
        lines.append(line)
    if resumed:
        lines.append("resumed (^) before " + ", ".join(f"step {step}" for step in resumed))
    return lines


def draw_text(losses, held_out, resumed, columns, rows):
    """A mean of the steps that share a column, a mark in its row."""
    margin = 9
    width = max(columns - margin - 1, 10)
    first, last = min(losses), max(losses)

    def column(step):
        return round((step - first) / max(last - first, 1) * (width - 1))

    sums = {}
    for step, loss in losses.items():
        if math.isfinite(loss):
            sums.setdefault(column(step), []).append(loss)
    means = {x: sum(values) / len(values) for x, values in sums.items()}
    points = {column(step): loss for step, loss in held_out.items() if first <= step <= last and math.isfinite(loss)}
    values = [*means.values(), *points.values()]
    if not values:
        return ["no loss is finite"]
    low, high = min(values), max(values)

    def row(loss):
        return round((high - loss) / (high - low or 1) * (rows - 1))

    canvas = [[" "] * width for _ in range(rows)]
    for mark, series in ((".", means), ("o", points)):
        for x, loss in series.items():
            canvas[row(loss)][x] = mark
    out = []
    for y, cells in enumerate(canvas):
        label = f"{high - (high - low) * y / (rows - 1):.3f}" if y % 5 == 0 or y == rows - 1 else ""
        out.append(f"{label:>{margin - 2}} |{''.join(cells)}".rstrip())
    axis = ["-"] * width
    for step in resumed:
        axis[column(step)] = "^"
    out.append(" " * (margin - 1) + "+" + "".join(axis))
    out.append(" " * margin + f"{first}{last:>{width - len(str(first))}}")
    return out


def draw_picture(losses, held_out, resumed, title, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    steps = sorted(losses)
    axes.plot(steps, [losses[step] for step in steps], linewidth=0.8, label="training")
    if held_out:
        steps = sorted(held_out)
        axes.plot(steps, [held_out[step] for step in steps], "o-", label="held-out")
    for i, step in enumerate(resumed):
        axes.axvline(step, color="grey", linestyle=":", linewidth=0.8, label="resumed" if i == 0 else None)
    axes.set(title=title, xlabel="step", ylabel="loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN", help="run folder, or its metrics.jsonl")
    parser.add_argument("-o", "--out", type=pathlib.Path, metavar="FILE", help="picture to write; needs matplotlib")
    arguments = parser.parse_args()
    try:
        losses, held_out, resumed = read_run(arguments.run)
    except OSError as error:
        sys.exit(f"{arguments.run}: no run folder with a metrics.jsonl: {error.strerror}")
    if not losses:
        sys.exit(f"{arguments.run}: no step has ended yet")
    if arguments.out:
        try:
            draw_picture(losses, held_out, resumed, str(arguments.run), arguments.out)
            return
        except ImportError:
            print("matplotlib is not installed: the curve as text instead", file=sys.stderr)
    size = shutil.get_terminal_size()
    for line in draw_text(losses, held_out, resumed, size.columns, 21) + summary(losses, held_out, resumed):
        print(line)
    if arguments.out:
        sys.exit(1)  # the file is not there


if __name__ == "__main__":
    main()
