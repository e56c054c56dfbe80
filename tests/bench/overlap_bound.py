"""What `strake bench step --json` says of overlap, put together: the bound T*, the waits, and the prediction of comm/exposure.h.

`on` and `off` are steps with and without comm.overlap, on the same link. Times are in milliseconds.
"""

import math
import statistics

# Student's t, 97.5 %, by degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def summary(samples):
    """Median, and the 95 % interval of the mean; no interval of one sample."""
    out = {"median": statistics.median(samples), "n": len(samples), "interval": None}
    if len(samples) > 1:
        t = T_975[min(len(samples) - 1, len(T_975)) - 1]
        half = t * statistics.stdev(samples) / math.sqrt(len(samples))
        out["interval"] = [statistics.mean(samples) - half, statistics.mean(samples) + half]
    return out


def text_of(found, digits=3, unit=""):
    interval = found["interval"]
    spread = f", 95 % {interval[0]:.{digits}f} .. {interval[1]:.{digits}f}" if interval else ""
    return f"{found['median']:.{digits}f}{unit} (n = {found['n']}{spread})"


def alone_ms(step):
    """What each reduction takes by itself, from a step without overlap.

    There they follow each other: each goes from the end of the one before to its own, on the rank where it ends last.
    Only the first may wait for a late rank: of that the least of the ranks' times counts.
    """
    buckets = step["comm"]["timeline"]["buckets"]
    return [buckets[0]["transfer_ms"]] + [bucket["end_ms"] - bucket["begin_ms"] for bucket in buckets[1:]]


def late_ms(on, off):
    """By how much the link must hold up forward, where weights are gathered under it.

    A gather is ready when its bucket is updated, in the step before; with overlap that lies right before this step.
    When forward needs it an undisturbed forward tells, one that had all weights before it began.
    """
    late, end = 0.0, -math.inf
    pairs = zip(on["comm"]["timeline"]["gathers"], off["comm"]["timeline"]["gathers"], strict=True)
    for with_overlap, alone in pairs:
        end = max(with_overlap["ready_ms"], end) + alone["transfer_ms"]
        late = max(late, end - alone["needed_ms"])
    return late


def stalled_ms(step):
    """What forward waits for weights: what is exposed and not behind backward."""
    timeline = step["comm"]["timeline"]
    behind = timeline["buckets"][-1]["end_ms"] - timeline["backward_end_ms"]
    return max(0.0, exposed_ms(step) - behind) if timeline["gathers"] else 0.0


def bound_ms(off, on, ready):
    """T* by the reductions of `off` and the ready times of `ready`, one of the two steps without and with overlap.

    Without overlap the optimizer's time contains the wait for gathers.
    """
    ready_of = ready["comm"]["timeline"]
    end = 0.0
    for alone, bucket in zip(alone_ms(off), ready_of["buckets"], strict=True):
        end = max(bucket["ready_ms"], end) + alone
    return max(ready_of["backward_end_ms"], end) + on["breakdown_ms"]["optimizer"]


def transfer_ms(step):
    """All collectives of a step without overlap."""
    return sum(alone_ms(step)) + sum(gather["transfer_ms"] for gather in step["comm"]["timeline"]["gathers"])


def exposed_ms(step):
    """Of the rank that waits least: the others wait for that rank too."""
    return min(rank["breakdown_ms"]["exposed_comm"] for rank in step["ranks"])


def backward_ms(step):
    return step["comm"]["timeline"]["backward_end_ms"] - step["comm"]["timeline"]["backward_begin_ms"]


def cost_of(samples):
    """[(bytes, ms)] by size, of each size the mean; as comm/exposure.h."""
    of_size = {}
    for size, ms in samples:
        of_size.setdefault(size, []).append(ms)
    return [(size, statistics.mean(times)) for size, times in sorted(of_size.items())]


def cost_at(cost, size):
    """Between two sizes in proportion; as comm/exposure.h."""
    if size <= cost[0][0]:
        return cost[0][1]
    for (below, below_ms), (above, above_ms) in zip(cost, cost[1:]):
        if size <= above:
            return below_ms + (size - below) / (above - below) * (above_ms - below_ms)
    return cost[-1][1] * size / cost[-1][0]


class Recording:
    """What exposed time is predicted from; as launch/train/bucket_choice.h.

    off, on: steps without and with overlap, each with a bucket for every parameter first, and then with larger ones.
    """

    def __init__(self, off, on):
        self.final, so_far = [], 0  # (bytes up to and with a parameter, when its gradient is final)
        for bucket in off[0]["comm"]["timeline"]["buckets"]:
            so_far += bucket["bytes"]
            self.final.append((so_far, bucket["ready_ms"]))
        self.alone = cost_of(
            (bucket["bytes"], ms)
            for step in off
            for bucket, ms in zip(step["comm"]["timeline"]["buckets"], alone_ms(step))
        )
        timelines = [step["comm"]["timeline"] for step in on]
        done = [
            (bucket["bytes"], bucket["end_ms"] - bucket["begin_ms"])
            for timeline in timelines
            for bucket in timeline["buckets"]
            if bucket["end_ms"] <= timeline["backward_end_ms"]
        ]
        self.beside = cost_of(done) if done else self.alone
        self.begin = off[0]["comm"]["timeline"]["backward_begin_ms"]
        self.end = off[0]["comm"]["timeline"]["backward_end_ms"]
        self.dilation = max(1.0, statistics.mean(map(backward_ms, on)) / backward_ms(off[0]))

    def predict_ms(self, sizes):
        """Exposed time of buckets of so many bytes; as comm/exposure.h."""
        dilated = lambda ms: self.begin + self.dilation * (ms - self.begin)
        backward_end, end, reached = dilated(self.end), 0.0, 0
        for size in sizes:
            reached += size
            begin = max(end, dilated(next(when for so_far, when in self.final if so_far >= reached)))
            slow = cost_at(self.beside, size)
            left = 1.0 if begin >= backward_end else max(0.0, 1 - (backward_end - begin) / slow)
            end = begin + (1 - left) * slow + left * cost_at(self.alone, size)
        return max(0.0, end - backward_end)
