#!/usr/bin/env python3
"""parity.py: does Strake train what PyTorch trains?

Makes a random GPT2LMHeadModel, LlamaForCausalLM or Qwen2ForCausalLM and a token file, imports the weights with `strake
import`, and trains the same steps on the same samples with `strake train` and with PyTorch (f32 weights, autocast to
bf16, AdamW). Verdicts:

    losses        of every step differ by at most 0.02, and fell by at least 0.5 on the way. In bf16, where PyTorch's
                  own bf16 and f32 losses lie further apart than that: by at most as much
    losses_f32    the same run in f32: of every step by at most 1e-3
    gradients     first step in f32: of every parameter within 1e-3 of PyTorch's, relative in the norm
    gradients_bf16  first step in bf16: of every parameter within 1e-2 of PyTorch's f32 gradient
    weights       `strake export` gives transformers the very weights of the checkpoint, and equal logits
    held_out      loss of the exported weights in transformers within 1e-2 of what `strake train` reported
    order         the samples of a step are those that data/sample_order.h promises (values pinned by its test)
    rotary        transformers turns heads at the rates that config.json asks for

On a GPU losses and gradients are compared in bf16 and in f32, else in f32 alone. The schedule is that of
examples/gpt2-124m.toml: its first 50 steps are warm-up. A random model that learns fast is chaotic: what bf16 rounds away
decides on which side of a hill it comes down. So the distance of PyTorch's own bf16 and f32 losses is the floor of what
can be asked, and part of the figures (docs/benchmarks.md).

Prints one JSON line and ends with 0 if all hold, 1 otherwise. Needs torch, transformers and numpy.

    python3 tests/interop/parity.py --strake "FOLDER/run strake"            # GPT-2 124M on a GPU
    python3 tests/interop/parity.py --strake "FOLDER/run strake" --family llama          # 350M
    python3 tests/interop/parity.py --strake build/release/bin/strake --small --device cpu
    python3 tests/interop/parity.py --strake build/release/bin/strake --small --device cpu --case all

A case is a small model of its own: a line of JSON each, the worst verdict ends the program.
"""
import argparse
import inspect
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import numpy

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
BETA1, BETA2, EPSILON, WEIGHT_DECAY, CLIP = 0.9, 0.95, 1e-8, 0.1, 1.0
LOSS_TOLERANCE, GRADIENT_TOLERANCE, HELD_OUT_TOLERANCE = 0.02, 1e-2, 1e-2
LOSS_TOLERANCE_F32, GRADIENT_TOLERANCE_F32 = 1e-3, 1e-3
EVAL_BATCHES = 4

# By family: as published, and what a CPU trains in seconds.
PRESETS = {
    "gpt2": {"layers": 12, "channels": 768, "heads": 12, "vocab": 50257, "positions": 1024, "batch": 16,
             "learning_rate": 6e-4, "warmup": 100, "schedule_steps": 1000, "tied": True},
    "llama": {"layers": 24, "channels": 1024, "heads": 16, "kv_heads": 8, "mlp_channels": 2816, "vocab": 32000,
              "positions": 1024, "batch": 16, "learning_rate": 6e-4, "warmup": 100, "schedule_steps": 1000, "tied": False},
    "qwen2": {"layers": 24, "channels": 896, "heads": 14, "kv_heads": 2, "mlp_channels": 4864, "vocab": 50257,
              "positions": 1024, "batch": 16, "learning_rate": 6e-4, "warmup": 100, "schedule_steps": 1000, "tied": True},
}  # fmt: skip
SMALL = {"layers": 3, "channels": 64, "heads": 4, "mlp_channels": 160, "vocab": 300, "positions": 48, "batch": 8,
         "learning_rate": 3e-3, "warmup": 10, "schedule_steps": 50}  # fmt: skip
# Options of models that between them have everything there is. Also of make_references.py.
CASES = {
    "gpt2": {"family": "gpt2"},
    "llama-6-2": {"family": "llama", "channels": 96, "heads": 6, "kv_heads": 2, "tied": False},
    "llama-5-1-tied": {"family": "llama", "channels": 80, "heads": 5, "kv_heads": 1, "head_size": 24, "tied": True},
    "llama3-scaling": {"family": "llama", "kv_heads": 2, "tied": True, "rope_theta": 100.0, "rope_scaling": True},
    "qwen2-9-3": {"family": "qwen2", "channels": 72, "heads": 9, "kv_heads": 3, "tied": True, "rope_theta": 1e6},
}  # fmt: skip
# Llama 3's, for sequences so short that some pairs are slowed down, some not, and some in between.
ROPE_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64}  # fmt: skip


# ------------------------------------------------------------------------------------------------ order of samples

MASK = 2**64 - 1


def mix(x):
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def sequence_of(seed, sequences, sample):
    """Which sequence of the token file is sample number `sample`: data/sample_order.h again, in Python."""
    if sequences == 1:
        return 0
    golden = 0x9E3779B97F4A7C15
    epoch, x = divmod(sample, sequences)
    half_bits = ((sequences - 1).bit_length() + 1) // 2
    key = mix(seed + golden & MASK) ^ mix(epoch * golden + 1 & MASK)
    round_keys = []
    for _ in range(6):
        key = key + golden & MASK
        round_keys.append(mix(key))
    while True:
        left, right = x >> half_bits, x & (1 << half_bits) - 1
        for round_key in round_keys:
            left, right = right, left ^ mix(right ^ round_key) & (1 << half_bits) - 1
        x = left << half_bits | right
        if x < sequences:
            return x


def order_is_pinned():
    """The values that tests/data/sample_order_test.cc pins."""
    small = [sequence_of(42, 10, g) for g in range(20)] == [0, 3, 7, 8, 1, 5, 6, 4, 9, 2, 5, 0, 3, 1, 2, 8, 9, 7, 6, 4]
    samples = [0, 1, 999999, 1000003, 123456789, 9000000000000]
    return small and [sequence_of(7, 1000003, g) for g in samples] == [618577, 966430, 729875, 605697, 268773, 348148]


# ------------------------------------------------------------------------------------------------------- token files


def write_tokens(path, tokens, vocab, seed):
    """Text with structure: frequent ids, and half of the time an id that follows from the one before."""
    generator = numpy.random.default_rng(seed)
    chances = 1.0 / numpy.arange(1, vocab + 1)
    drawn = generator.choice(vocab, size=tokens, p=chances / chances.sum())
    follows = generator.random(tokens) < 0.5
    ids, previous = numpy.empty(tokens, dtype=numpy.uint16), 0
    for i, (fresh, chained) in enumerate(zip(drawn.tolist(), follows.tolist())):
        previous = (previous * 31 + 7) % vocab if chained else fresh
        ids[i] = previous
    header = numpy.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, tokens
    path.write_bytes(header.tobytes() + ids.astype("<u2").tobytes())
    sidecar = {
        "format": "strake-tokens", "version": 1, "layout": "header", "dtype": "u16", "tokens": tokens,
        "vocab_size": vocab, "tokenizer": {"name": "parity", "hash": ""}, "source": "parity.py",
    }  # fmt: skip
    pathlib.Path(f"{path}.json").write_text(json.dumps(sidecar))
    return ids.astype(numpy.int64)


def batch_of(ids, sequences, length):
    """tokens, targets [len(sequences), length]"""
    rows = numpy.stack([ids[s * length : s * length + length + 1] for s in sequences])
    return rows[:, :-1], rows[:, 1:]


# ------------------------------------------------------------------------------------------------------- our program


class Strake:
    def __init__(self, options, folder):
        self.options, self.folder, self.seconds = options, folder, {}

    def run(self, label, arguments, launcher=""):
        command = shlex.split(launcher) + shlex.split(self.options.strake) + [str(a) for a in arguments]
        begin = time.time()
        with open(self.folder / f"{label}.log", "w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        self.seconds[label] = round(time.time() - begin, 1)
        if code != 0:
            tail = (self.folder / f"{label}.log").read_text()[-3000:]
            sys.exit(f"parity: {shlex.join(command)} ended with {code}:\n{tail}")

    def import_weights(self, run):
        self.run("import", ["import", self.folder / "hf", "--run", self.folder / run, "--tokenizer", "parity"])
        told = re.search(r"^train with: run\.dir=\S+ (.*)$", (self.folder / "import.log").read_text(), re.MULTILINE)
        self.model_keys = told.group(1).split()

    def train(self, label, run, dtype, stop_at):
        o = self.options
        values = {
            "run.dir": self.folder / run, "run.seed": o.seed, "run.device": o.device,
            "data.train": self.folder / "train.bin", "data.val": self.folder / "val.bin",
            "train.steps": o.schedule_steps, "train.stop_at": stop_at, "train.global_batch": o.batch,
            "train.micro_batch": o.batch // o.ranks, "train.dtype": dtype,
            "train.deterministic": "true",
            "optimizer.learning_rate": o.learning_rate, "optimizer.min_learning_rate": o.learning_rate / 10,
            "optimizer.warmup_steps": o.warmup, "optimizer.beta1": BETA1, "optimizer.beta2": BETA2,
            "optimizer.epsilon": EPSILON, "optimizer.weight_decay": WEIGHT_DECAY, "optimizer.clip_norm": CLIP,
            "checkpoint.every": o.schedule_steps, "checkpoint.keep": 9, "checkpoint.resume": "true",
            "eval.every": 0, "eval.batches": 1000000,  # all of the file
        }  # fmt: skip
        overrides = self.model_keys + [f"{key}={value}" for key, value in values.items()]
        self.run(label, ["train", o.config, *overrides], o.launch)

    def metrics(self, run):
        """losses and gradient norms by step, held-out losses by step; of redone steps the last counts."""
        losses, norms, held_out = {}, {}, {}
        for line in (self.folder / run / "metrics.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if "val_loss" in entry:
                held_out[entry["step"]] = entry["val_loss"]
            else:
                losses[entry["step"]], norms[entry["step"]] = entry["loss"], entry["grad_norm"]
        return losses, norms, held_out

    def tensors(self, run, step, prefix):
        """name -> array, of a checkpoint of any number of ranks (checkpoint/format.md)."""
        checkpoint = self.folder / run / "ckpt" / f"step-{step:08}"
        manifest = json.loads((checkpoint / "manifest.json").read_text())["manifest"]
        found = {}
        for tensor in manifest["tensors"]:
            if not tensor["name"].startswith(prefix):
                continue
            assert tensor["dtype"] == "f32", tensor["name"]
            parts = []
            for shard in tensor["shards"]:
                with open(checkpoint / manifest["files"][shard["file"]]["name"], "rb") as file:
                    file.seek(shard["offset"])
                    parts.append(numpy.frombuffer(file.read(shard["bytes"]), dtype="<f4"))
            found[tensor["name"][len(prefix) :]] = numpy.concatenate(parts).reshape(tensor["shape"])
        return found


def as_hugging_face(tensors, o):
    """Our names and layout to those of transformers, written anew: not what `strake export` does."""
    groups, size = o.kv_heads, o.head_size
    queries = o.heads // groups  # of a group, before its key and its value
    out = {}
    for name, value in tensors.items():
        if name in ("wte.weight", "head.weight"):
            assert not value[o.vocab :].any(), f"padding rows of {name} are not zero"
            value = value[: o.vocab]
        if ".attn.qkv." in name:
            rows = value.reshape(groups, (queries + 2) * size, *value.shape[1:])
            ends = (0, queries * size, (queries + 1) * size, (queries + 2) * size)
            q, k, v = (rows[:, a:b].reshape(-1, *value.shape[1:]) for a, b in zip(ends, ends[1:]))
        if o.family == "gpt2":
            if ".attn.qkv." in name:
                value = numpy.concatenate([q, k, v])
            if name.endswith((".attn.qkv.weight", ".mlp.fc.weight")):
                value = value.T  # Conv1D: [in, out], as we store the other two
            for ours, theirs in GPT2_NAMES.items():
                name = name.replace(f".{ours}.", f".{theirs}.")
            out[f"transformer.{name}"] = value
            continue
        if ".mlp.gate_up." in name:
            parts = {"mlp.gate_proj": value[0::2], "mlp.up_proj": value[1::2]}
        elif ".attn.qkv." in name:
            parts = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v}
        elif name.endswith(".proj.weight"):
            parts = {"self_attn.o_proj" if ".attn." in name else "mlp.down_proj": value.T}
        else:
            stem = name.rsplit(".", 1)[0]
            parts = {LLAMA_NAMES[re.sub(r"^h\.\d+\.", "", stem)]: value}
        layer = re.match(r"h\.(\d+)\.", name)
        for stem, part in parts.items():
            prefix = "" if stem == "lm_head" else f"model.layers.{layer[1]}." if layer else "model."
            out[f"{prefix}{stem}.{name.rsplit('.', 1)[1]}"] = part
    return {name: numpy.ascontiguousarray(value) for name, value in out.items()}


GPT2_NAMES = {"attn.qkv": "attn.c_attn", "attn.proj": "attn.c_proj", "mlp.fc": "mlp.c_fc", "mlp.proj": "mlp.c_proj"}
LLAMA_NAMES = {
    "wte": "embed_tokens", "ln_f": "norm", "head": "lm_head", "ln_1": "input_layernorm", "ln_2": "post_attention_layernorm",
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- PyTorch


class Torch:
    def __init__(self, options, folder):
        import torch
        import transformers

        self.torch, self.transformers, self.options, self.folder = torch, transformers, options, folder
        transformers.utils.logging.disable_progress_bar()
        torch.set_float32_matmul_precision("highest")  # no TF32
        wants_gpu = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
        self.device = "cuda" if wants_gpu else "cpu"

    def make_model(self):
        o = self.options
        self.torch.manual_seed(o.seed)
        if o.family == "gpt2":
            values = dict(n_layer=o.layers, n_embd=o.channels, n_head=o.heads, n_positions=o.positions,
                          resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
        else:
            values = dict(num_hidden_layers=o.layers, hidden_size=o.channels, num_attention_heads=o.heads,
                          num_key_value_heads=o.kv_heads, head_dim=o.head_size, intermediate_size=o.mlp_channels,
                          max_position_embeddings=o.positions, rope_theta=o.rope_theta, rms_norm_eps=1e-5,
                          tie_word_embeddings=o.tied)  # fmt: skip
            if o.rope_scaling:
                values["rope_scaling"] = {**ROPE_SCALING, "rope_theta": o.rope_theta} if self.is_new() else dict(ROPE_SCALING)
        config = self.transformers.AutoConfig.for_model(
            o.family, vocab_size=o.vocab, bos_token_id=0, eos_token_id=0, pad_token_id=None, **values
        )
        model = self.transformers.AutoModelForCausalLM.from_config(config).float()
        # As after some training: no bias is zero and no norm is one, so that every gradient and every layout counts.
        with self.torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.02 * self.torch.randn_like(parameter))
        # Later versions know no other format and no such argument.
        old = "safe_serialization" in inspect.signature(model.save_pretrained).parameters
        model.save_pretrained(self.folder / "hf", **({"safe_serialization": True} if old else {}))

    def load(self, name):
        model = self.transformers.AutoModelForCausalLM.from_pretrained(self.folder / name)
        return model.float().to(self.device)

    def is_new(self):
        """Does this version keep the base of rotary positions beside their scaling?"""
        return int(self.transformers.__version__.split(".")[0]) >= 5

    def turns_as_asked(self):
        """Are the rates of rotary positions those of the definition?"""
        o = self.options
        if o.family == "gpt2":
            return True
        rates = o.rope_theta ** (-numpy.arange(0, o.head_size, 2) / o.head_size)
        if o.rope_scaling:
            s = ROPE_SCALING
            turns = s["original_max_position_embeddings"] * rates / (2 * math.pi)
            low, high = s["low_freq_factor"], s["high_freq_factor"]
            keep = numpy.clip((turns - low) / (high - low), 0, 1)
            rates = keep * rates + (1 - keep) * rates / s["factor"]
        theirs = self.load("hf").model.rotary_emb.inv_freq.double().cpu().numpy()
        return bool(numpy.allclose(theirs, rates, rtol=1e-5, atol=0))

    def loss(self, model, tokens, targets, dtype):
        torch = self.torch
        tokens, targets = (torch.from_numpy(a.copy()).to(self.device) for a in (tokens, targets))
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=dtype == "bf16"):
            logits = model(tokens, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def gradients(self, tokens, targets, dtype):
        """Of one step from the initial weights: name -> tensor."""
        model = self.load("hf").train()
        loss = self.loss(model, tokens, targets, dtype)
        loss.backward()
        return loss.item(), {name: p.grad for name, p in model.named_parameters()}

    def train(self, batches, dtype):
        o, torch = self.options, self.torch
        model = self.load("hf").train()
        decayed = [p for p in model.parameters() if p.dim() >= 2]
        rest = [p for p in model.parameters() if p.dim() < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}],
            lr=o.learning_rate, betas=(BETA1, BETA2), eps=EPSILON,
        )  # fmt: skip
        losses, norms = [], []
        for step, (tokens, targets) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss(model, tokens, targets, dtype)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
            optimizer.step()
            losses.append(loss.item())
        self.trained = model
        return losses, norms

    def learning_rate(self, step):
        o = self.options
        if step < o.warmup:
            return o.learning_rate * (step + 1) / o.warmup
        floor, progress = o.learning_rate / 10, (step - o.warmup) / max(1, o.schedule_steps - o.warmup)
        return floor + 0.5 * (o.learning_rate - floor) * (1 + math.cos(math.pi * progress))


# ---------------------------------------------------------------------------------------------------------- verdicts


def distances(torch, ours, theirs):
    """name -> relative distance in the norm; and that of all parameters taken as one vector."""
    each, apart, size = {}, 0.0, 0.0
    for name, reference in theirs.items():
        mine = ours[name]
        if isinstance(mine, numpy.ndarray):
            mine = torch.from_numpy(mine)
        mine, reference = mine.to(reference.device).double(), reference.double()
        apart_here, size_here = (mine - reference).pow(2).sum().item(), reference.pow(2).sum().item()
        each[name] = math.sqrt(apart_here / size_here)
        apart, size = apart + apart_here, size + size_here
    return each, math.sqrt(apart / size)


def worst(each):
    name = max(each, key=each.get)
    return {"parameter": name, "distance": each[name]}


def first_gradient(strake, run, options):
    """Our gradient of step 1: the first moment starts at zero, so it is (1 - beta1) times the clipped gradient."""
    norm = strake.metrics(run)[1][1]
    scale = 1 / (1 - BETA1) / min(1.0, CLIP / (norm + 1e-6))
    moments = strake.tensors(run, 1, "adam_m/")
    return {name: value * numpy.float32(scale) for name, value in as_hugging_face(moments, options).items()}


def parse_options():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description="Compares training by Strake with training by PyTorch.")
    add = parser.add_argument
    add("--strake", required=True, help="command that starts strake, words separated by blanks")
    add("--launch", default="", help='put before it to train, e.g. "mpirun --bind-to none -n 2"')
    add("--ranks", type=int, default=1, help="how many ranks that starts")
    add("--config", default=root / "examples/gpt2-124m.toml", help="of which every key that matters is replaced")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--small", action="store_true", help="a model that a CPU trains in seconds")
    add("--case", choices=[*CASES, "all"], help="one of the small models that the list in this file has, or all")
    add("--family", choices=PRESETS, default="gpt2")
    add("--layers", type=int)
    add("--channels", type=int)
    add("--heads", type=int)
    add("--kv-heads", type=int, help="default: as many as heads")
    add("--head-size", type=int, help="default: channels / heads")
    add("--mlp-channels", type=int)
    add("--vocab", type=int)
    add("--positions", type=int)
    add("--tied", action=argparse.BooleanOptionalAction, help="is the token table the head?")
    add("--rope-theta", type=float)
    add("--rope-scaling", action=argparse.BooleanOptionalAction, help="slow turns as Llama 3 does")
    add("--batch", type=int, help="sequences a step, over all ranks")
    add("--steps", type=int, default=50)
    add("--schedule-steps", type=int, help="for which the learning rate is laid out")
    add("--warmup", type=int)
    add("--learning-rate", type=float)
    add("--seed", type=int, default=1)
    add("--folder", type=pathlib.Path, help="keep all files here; default: a temporary folder")
    options = parser.parse_args()
    if options.case is not None and not options.small:
        parser.error("--case: is small; say --small")
    if options.batch is not None and options.batch % options.ranks != 0:
        parser.error("--batch: is no multiple of --ranks")
    return options


MODEL_KEYS = ("family", "layers", "channels", "heads", "kv_heads", "head_size", "mlp_channels", "vocab", "positions",
              "tied", "rope_theta", "rope_scaling")  # fmt: skip


def completed(options, case=None):
    """The options with every value that was left open; `case`: of CASES."""
    done = argparse.Namespace(**vars(options))
    for key, value in CASES[case].items() if case else ():
        setattr(done, key, value)
    preset = {**PRESETS[done.family], **SMALL} if done.small else PRESETS[done.family]
    if done.small:
        preset["kv_heads"] = None
    for key, value in {"rope_theta": 10000.0, "rope_scaling": False, "mlp_channels": None, **preset}.items():
        if getattr(done, key, None) is None:
            setattr(done, key, value)
    if done.family == "gpt2":
        done.mlp_channels = 4 * done.channels
    done.kv_heads = done.kv_heads or done.heads
    done.head_size = done.head_size or done.channels // done.heads
    return done


def compare(options, folder):
    begin = time.time()
    strake, torch_side = Strake(options, folder), Torch(options, folder)
    torch, on_gpu = torch_side.torch, torch_side.device == "cuda"
    dtype = "bf16" if on_gpu else "f32"
    length = options.positions

    torch_side.make_model()
    # Fewer sequences than the run consumes, so that a second epoch with an order of its own begins on the way.
    sequences = options.steps * options.batch * 3 // 5 + 1
    train_ids = write_tokens(folder / "train.bin", sequences * length + 1, options.vocab, options.seed)
    val_sequences = EVAL_BATCHES * options.batch
    val_ids = write_tokens(folder / "val.bin", val_sequences * length + 1, options.vocab, options.seed + 1)
    samples = [sequence_of(options.seed, sequences, g) for g in range(options.steps * options.batch)]
    batches = [
        batch_of(train_ids, samples[step * options.batch : (step + 1) * options.batch], length)
        for step in range(options.steps)
    ]
    prepared = time.time()

    strake.import_weights("run")
    if on_gpu:
        shutil.copytree(folder / "run", folder / "run-f32")
    strake.train("first-step", "run", dtype, stop_at=1)
    strake.train("all-steps", "run", dtype, stop_at=options.steps)
    if on_gpu:
        strake.train("first-step-f32", "run-f32", "f32", stop_at=1)
        strake.train("all-steps-f32", "run-f32", "f32", stop_at=options.steps)
    strake.run("export", ["export", folder / "run", "--out", folder / "out"])
    ours_done = time.time()

    our_losses, our_norms, our_held_out = strake.metrics("run")
    losses, norms = torch_side.train(batches, dtype)
    apart = [abs(our_losses[step + 1] - loss) for step, loss in enumerate(losses)]
    loss_tolerance = LOSS_TOLERANCE
    checks = {
        "order": order_is_pinned() and samples[: options.batch] != sorted(samples[: options.batch]),
        "rotary": torch_side.turns_as_asked(),
    }
    figures = {
        "losses_apart_most": max(apart),
        "losses_apart_mean": sum(apart) / len(apart),
        "first_loss": [our_losses[1], losses[0]],
        "last_loss": [our_losses[options.steps], losses[-1]],
        "first_norm": [our_norms[1], norms[0]],
    }

    if on_gpu:
        our_f32, (torch_f32, _) = strake.metrics("run-f32")[0], torch_side.train(batches, "f32")
        f32_apart = [abs(our_f32[step + 1] - loss) for step, loss in enumerate(torch_f32)]
        checks["losses_f32"] = len(our_f32) == options.steps and max(f32_apart) <= LOSS_TOLERANCE_F32
        figures["losses_f32_apart_most"] = max(f32_apart)
        floor = max(abs(a - b) for a, b in zip(losses, torch_f32))
        figures["torch_bf16_apart_from_its_f32_most"] = floor
        loss_tolerance = max(LOSS_TOLERANCE, floor)
        figures["strake_bf16_apart_from_torch_f32_most"] = max(abs(our_losses[i + 1] - b) for i, b in enumerate(torch_f32))

    checks["losses"] = (
        len(our_losses) == options.steps and max(apart) <= loss_tolerance and losses[0] - losses[-1] >= 0.5
    )

    exact_loss, exact = torch_side.gradients(*batches[0], "f32")
    f32_run = "run-f32" if on_gpu else "run"
    each, whole = distances(torch, first_gradient(strake, f32_run, options), exact)
    checks["gradients"] = set(each) == set(exact) and max(each.values()) <= GRADIENT_TOLERANCE_F32
    figures["gradients"] = {"whole": whole, "worst": worst(each)}
    figures["first_loss_f32"] = [strake.metrics(f32_run)[0][1], exact_loss]
    if on_gpu:
        mine = first_gradient(strake, "run", options)
        _, rounded = torch_side.gradients(*batches[0], "bf16")
        ours_each, ours_whole = distances(torch, mine, exact)
        theirs_each, theirs_whole = distances(torch, rounded, exact)
        between_each, between_whole = distances(torch, mine, rounded)
        checks["gradients_bf16"] = max(ours_each.values()) <= GRADIENT_TOLERANCE
        figures["gradients_bf16"] = {
            "strake_to_f32": {"whole": ours_whole, "worst": worst(ours_each)},
            "torch_to_f32": {"whole": theirs_whole, "worst": worst(theirs_each)},
            "strake_to_torch": {"whole": between_whole, "worst": worst(between_each)},
            "within_tolerance_of_torch": [sum(d <= GRADIENT_TOLERANCE for d in between_each.values()), len(between_each)],
            "within_tolerance_of_f32": [sum(d <= GRADIENT_TOLERANCE for d in ours_each.values()), len(ours_each)],
        }
        print_gradients(ours_each, theirs_each, between_each)

    exported = torch_side.load("out").eval()
    direct = torch_side.load("hf").eval()
    state = as_hugging_face(strake.tensors("run", options.steps, "param/"), options)
    missing, unexpected = direct.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()}, strict=False)
    same = all(torch.equal(a, b) for a, b in zip(exported.parameters(), direct.parameters()))
    tokens, _ = batch_of(val_ids, range(min(4, val_sequences)), length)
    tokens = torch.from_numpy(tokens.copy()).to(torch_side.device)
    with torch.no_grad():
        a, b = exported(tokens, use_cache=False).logits, direct(tokens, use_cache=False).logits
    figures["logits_apart"] = ((a - b).norm() / b.norm()).item()
    checks["weights"] = same and not unexpected and set(missing) <= {"lm_head.weight"} and figures["logits_apart"] == 0.0

    held_out = {"strake": our_held_out[options.steps]}
    with torch.no_grad():
        for kind in ["f32", dtype]:
            parts = [
                torch_side.loss(exported, *batch_of(val_ids, range(i * options.batch, (i + 1) * options.batch), length), kind)
                for i in range(EVAL_BATCHES)
            ]
            held_out[f"transformers_{kind}"] = sum(part.item() for part in parts) / EVAL_BATCHES
    figures["held_out"] = held_out
    checks["held_out"] = all(abs(loss - held_out["strake"]) <= HELD_OUT_TOLERANCE for loss in held_out.values())

    for step in sorted({0, 1, 2, 4, 9, 19, 29, 39, options.steps - 1} & set(range(options.steps))):
        print(f"step {step + 1:3}  strake {our_losses[step + 1]:.5f}  torch {losses[step]:.5f}  apart {apart[step]:.5f}")
    return {
        "verdict": "pass" if all(checks.values()) else "FAIL",
        "checks": checks,
        **figures,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "dtype": dtype,
        "model": {key: getattr(options, key) for key in (*MODEL_KEYS, "batch", "steps")},
        "ranks": options.ranks,
        "versions": {"torch": torch.__version__, "transformers": torch_side.transformers.__version__},
        "seconds": {"prepare": round(prepared - begin, 1), "strake": round(ours_done - prepared, 1),
                    "torch": round(time.time() - ours_done, 1), **strake.seconds},
    }  # fmt: skip


def print_gradients(ours, theirs, between):
    print("first-step gradient, relative distance, the ten furthest parameters:")
    print(f"  {'parameter':<36} {'strake-f32':>11} {'torch-f32':>11} {'strake-torch':>13}")
    for name in sorted(ours, key=ours.get, reverse=True)[:10]:
        print(f"  {name:<36} {ours[name]:>11.2e} {theirs[name]:>11.2e} {between[name]:>13.2e}")


def main():
    options = parse_options()
    passed = True
    for case in CASES if options.case == "all" else [options.case]:
        kept = options.folder if options.case != "all" or options.folder is None else options.folder / case
        folder = (kept or pathlib.Path(tempfile.mkdtemp(prefix="strake-parity-"))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            result = compare(completed(options, case), folder)
        finally:
            if kept is None:
                shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps({"case": case, **result} if case else result), flush=True)
        passed = passed and result["verdict"] == "pass"
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
