#!/usr/bin/python3
"""A GPT-2 of the same shape trained by PyTorch on the CPU: the peer of cpu_speed.py and slow_link.py.

Data parallel over gloo, one process a rank, one thread a rank. Written as a user who cares for speed would: fused
query-key-value product, tied head, gradients as views of DDP's buckets, AdamW over lists of tensors, sequences read
from a memory map. It starts its own ranks and prints one JSON object.

Environment: OPENBLAS_CORETYPE, OMP_NUM_THREADS, OPENBLAS_NUM_THREADS are the caller's (cpu_speed.py sets them); they
are read before main() runs.
"""
import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time

import numpy
import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def attend_batched(q, k, v, mask):
    """Scores with the mask as the addend of the product: one pass less over them."""
    batch, heads, length, width = q.shape
    q, k, v = (x.reshape(batch * heads, length, width) for x in (q, k, v))
    scores = torch.baddbmm(mask.expand(batch * heads, length, length), q, k.transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(F.softmax(scores, dim=-1), v).view(batch, heads, length, width)


def attend_plain(q, k, v, mask):
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + mask
    return F.softmax(scores, dim=-1) @ v


def attend_library(q, k, v, mask):
    """What torch offers itself: private in 1.13, public later."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F._scaled_dot_product_attention(q, k, v, is_causal=True)[0]


ATTENTIONS = {"batched": attend_batched, "plain": attend_plain, "library": attend_library}


class Block(nn.Module):
    def __init__(self, channels, heads, attend):
        super().__init__()
        self.heads, self.attend = heads, attend
        self.ln_1, self.ln_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.attn_proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.fc, self.mlp_proj = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)

    def forward(self, x, mask):
        batch, length, channels = x.shape
        qkv = self.qkv(self.ln_1(x)).view(batch, length, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        attended = self.attend(qkv[0], qkv[1], qkv[2], mask)
        x = x + self.attn_proj(attended.transpose(1, 2).reshape(batch, length, channels))
        return x + self.mlp_proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, shape, attend):
        super().__init__()
        self.vocab = shape["vocab"]
        rows = (shape["vocab"] + 127) // 128 * 128
        self.tokens = nn.Embedding(rows, shape["channels"])
        self.positions = nn.Embedding(shape["sequence"], shape["channels"])
        self.blocks = nn.ModuleList(
            Block(shape["channels"], shape["heads"], attend) for _ in range(shape["layers"])
        )
        self.ln_f = nn.LayerNorm(shape["channels"])
        mask = torch.full((shape["sequence"], shape["sequence"]), -math.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                deviation = 0.02 / math.sqrt(2 * shape["layers"]) if "proj" in name else 0.02
                nn.init.normal_(parameter, std=deviation)
            elif "ln" not in name:
                nn.init.zeros_(parameter)

    def forward(self, tokens, targets):
        x = self.tokens(tokens) + self.positions.weight
        for block in self.blocks:
            x = block(x, self.mask)
        logits = F.linear(self.ln_f(x), self.tokens.weight)
        return F.cross_entropy(logits[..., : self.vocab].flatten(0, 1), targets.flatten())


def train(shape, arguments, rank):
    torch.manual_seed(1)
    model = Gpt(shape, ATTENTIONS[arguments.attention])
    parallel = DistributedDataParallel(
        model,
        gradient_as_bucket_view=True,
        static_graph=arguments.static_graph,
        **({} if arguments.bucket_mib is None else {"bucket_cap_mb": arguments.bucket_mib}),
    )
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-3,
        betas=(0.9, 0.95),
        eps=1e-8,
        foreach=arguments.foreach,
    )
    data = numpy.memmap(arguments.data, dtype=numpy.uint16, mode="r", offset=1024)
    random = numpy.random.default_rng(rank)
    length, micro_batch = shape["sequence"], shape["micro_batch"]
    accumulation = shape["global_batch"] // (micro_batch * torch.distributed.get_world_size())
    sequences = (len(data) - 1) // length

    step_s, backward_s, losses = [], [], []
    for _ in range(arguments.warmup + arguments.steps):
        started = time.perf_counter()
        optimizer.zero_grad()
        for micro in range(accumulation):
            rows = [int(s) * length for s in random.integers(sequences, size=micro_batch)]
            batch = torch.from_numpy(numpy.stack([data[r : r + length + 1] for r in rows]).astype(numpy.int64))
            parallel.require_backward_grad_sync = micro + 1 == accumulation and not arguments.silent
            loss = parallel(batch[:, :-1], batch[:, 1:]) / accumulation
            begun = time.perf_counter()
            loss.backward()
        backward_s.append(time.perf_counter() - begun)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item() * accumulation)
        step_s.append(time.perf_counter() - started)
    sizes = parallel._get_ddp_logging_data().get("rebuilt_bucket_sizes") or ""
    bucket_bytes = [int(size) for size in str(sizes).split(",") if size.strip()]
    if not bucket_bytes:  # nothing was reduced
        bucket_bytes = [4 * sum(p.numel() for p in model.parameters())]
    return step_s[arguments.warmup :], backward_s[arguments.warmup :], losses, bucket_bytes


def transfer_ms(bucket_bytes, repeats=9):
    """All buckets of a step summed with nothing beside them."""
    buckets = [torch.zeros(size // 4) for size in bucket_bytes]
    times_s = []
    for _ in range(repeats):
        torch.distributed.barrier()
        started = time.perf_counter()
        works = [torch.distributed.all_reduce(bucket, async_op=True) for bucket in buckets]
        for work in works:
            work.wait()
        times_s.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times_s)


def matmul_gflop_per_s(size=1024):
    a, b = torch.randn(size, size), torch.randn(size, size)
    best_s = math.inf
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        best_s = min(best_s, time.perf_counter() - started)
    return 2 * size**3 / best_s / 1e9


def blas_library():
    with open("/proc/self/maps") as maps:
        names = {os.path.basename(line.split()[-1]) for line in maps if "blas" in line.split()[-1].lower()}
    return ", ".join(sorted(names)) or "built in"


def run_rank(arguments, rank):
    torch.set_num_threads(1)
    shape = json.loads(arguments.shape)
    rate = matmul_gflop_per_s() if rank == 0 else 0
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://{arguments.address}:{arguments.port}", rank=rank, world_size=arguments.ranks
    )
    step_s, backward_s, losses, bucket_bytes = train(shape, arguments, rank)
    alone_ms = transfer_ms(bucket_bytes)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # its threads do not outlive a peer's end
    if rank != 0:
        return
    tokens = shape["global_batch"] * shape["sequence"]
    print(
        json.dumps(
            {
                "tokens_per_s": tokens / statistics.median(step_s),
                "step_ms": 1e3 * statistics.median(step_s),
                "backward_ms": 1e3 * statistics.median(backward_s),
                "bucket_bytes": bucket_bytes,
                "transfer_ms": alone_ms,
                "first_loss": losses[0],
                "last_loss": losses[-1],
                "matmul_gflop_per_s": rate,
                "torch": torch.__version__,
                "blas": blas_library(),
                "capability": torch.backends.cpu.get_cpu_capability()
                if hasattr(torch.backends, "cpu")
                else torch.__config__.show().split("CPU capability usage: ")[1].split()[0],
            }
        )
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", required=True, help="JSON: layers channels heads vocab sequence ...")
    parser.add_argument("--data", required=True, help="token file with a header, u16")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--attention", choices=ATTENTIONS, default="batched")
    parser.add_argument("--foreach", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--static-graph", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--bucket-mib", type=float, help="DDP's bucket_cap_mb")
    parser.add_argument("--silent", action="store_true", help="no gradient is ever reduced: what computing alone takes")
    parser.add_argument("--rank", type=int, help="this process is that rank; someone else starts the others")
    parser.add_argument("--address", default="127.0.0.1", help="with --rank: of rank 0")
    parser.add_argument("--port", type=int, default=0, help="with --rank: free on rank 0")
    arguments = parser.parse_args()
    if arguments.rank is not None:
        return run_rank(arguments, arguments.rank)
    port = str(free_port())
    command = [sys.executable, *sys.argv, "--port", port]
    ranks = [subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(arguments.ranks)]
    return max([abs(rank.wait()) for rank in ranks])


if __name__ == "__main__":
    sys.exit(main())
