"""make_tiny_gpt2.py FOLDER: a tiny GPT-2 in the files of Hugging Face, and what it computes.

    hf/model.safetensors     random weights, all far from zero and one; names with the prefix "transformer."
    hf/config.json
    bare/...                 the same without prefix, with the masks and the repeated head of older files
    golden.safetensors       tokens, targets (I32 [B, T]), logits (F64 [B*T, V]), loss (F64 [1]: nats a token)
    train.bin, train.bin.json  a token file whose B sequences are those of the golden file

Follows the definition of GPT2LMHeadModel (Conv1D is x W + b with W [in, out]; tanh form of GELU; norms before attention
and MLP; scores over the root of the head's size) in double precision with nothing but the standard library.
"""
import json
import math
import pathlib
import random
import struct
import sys

LAYERS, CHANNELS, HEADS, VOCAB, POSITIONS, BATCH = 2, 12, 3, 19, 5, 4
SEED = 20


def product(shape):
    return math.prod(shape)


def rounded_to_f32(values):
    return list(struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values)))


def make_weights(generator):
    """Name without prefix -> (shape, flat list of doubles that are f32 numbers)."""
    shapes = {"wte.weight": [VOCAB, CHANNELS], "wpe.weight": [POSITIONS, CHANNELS]}
    for layer in range(LAYERS):
        block = f"h.{layer}."
        for norm in ("ln_1", "ln_2"):
            shapes[f"{block}{norm}.weight"] = shapes[f"{block}{norm}.bias"] = [CHANNELS]
        for name, inputs, outputs in (
            ("attn.c_attn", CHANNELS, 3 * CHANNELS),
            ("attn.c_proj", CHANNELS, CHANNELS),
            ("mlp.c_fc", CHANNELS, 4 * CHANNELS),
            ("mlp.c_proj", 4 * CHANNELS, CHANNELS),
        ):
            shapes[f"{block}{name}.weight"] = [inputs, outputs]
            shapes[f"{block}{name}.bias"] = [outputs]
    shapes["ln_f.weight"] = shapes["ln_f.bias"] = [CHANNELS]
    weights = {}
    for name, shape in shapes.items():
        center = 1.0 if name.endswith(".weight") and "ln_" in name else 0.0
        weights[name] = (shape, rounded_to_f32([generator.gauss(center, 0.4) for _ in range(product(shape))]))
    return weights


def layer_norm(x, weight, bias):
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    scale = 1 / math.sqrt(variance + 1e-5)
    return [(v - mean) * scale * w + b for v, w, b in zip(x, weight, bias)]


def conv1d(x, weight, bias):
    outputs = len(bias)
    return [bias[o] + sum(x[i] * weight[i * outputs + o] for i in range(len(x))) for o in range(outputs)]


def gelu_new(v):
    return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))


def softmax(scores):
    highest = max(scores)
    weights = [math.exp(s - highest) for s in scores]
    return [w / sum(weights) for w in weights]


def forward(weights, tokens):
    """Logits of one sequence: a list of VOCAB numbers for each token."""
    w = {name: values for name, (_, values) in weights.items()}
    size = CHANNELS // HEADS
    xs = [
        [w["wte.weight"][t * CHANNELS + c] + w["wpe.weight"][p * CHANNELS + c] for c in range(CHANNELS)]
        for p, t in enumerate(tokens)
    ]
    for layer in range(LAYERS):
        b = f"h.{layer}."
        qkv = [
            conv1d(layer_norm(x, w[b + "ln_1.weight"], w[b + "ln_1.bias"]), w[b + "attn.c_attn.weight"], w[b + "attn.c_attn.bias"])
            for x in xs
        ]
        for p in range(len(xs)):
            mixed = []
            for head in range(HEADS):
                part = lambda which, at: qkv[at][which * CHANNELS + head * size :][:size]
                query = part(0, p)
                chances = softmax(
                    [sum(q * k for q, k in zip(query, part(1, at))) / math.sqrt(size) for at in range(p + 1)]
                )
                for c in range(size):
                    mixed.append(sum(chance * part(2, at)[c] for at, chance in enumerate(chances)))
            added = conv1d(mixed, w[b + "attn.c_proj.weight"], w[b + "attn.c_proj.bias"])
            xs[p] = [x + a for x, a in zip(xs[p], added)]
        for p, x in enumerate(xs):
            inner = conv1d(layer_norm(x, w[b + "ln_2.weight"], w[b + "ln_2.bias"]), w[b + "mlp.c_fc.weight"], w[b + "mlp.c_fc.bias"])
            added = conv1d([gelu_new(v) for v in inner], w[b + "mlp.c_proj.weight"], w[b + "mlp.c_proj.bias"])
            xs[p] = [v + a for v, a in zip(x, added)]
    logits = []
    for x in xs:
        final = layer_norm(x, w["ln_f.weight"], w["ln_f.bias"])
        logits.append([sum(f * w["wte.weight"][v * CHANNELS + c] for c, f in enumerate(final)) for v in range(VOCAB)])
    return logits


def save(path, tensors, metadata=None):
    """tensors: name -> (dtype, shape, flat values)."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        code = {"F32": "f", "F64": "d", "I32": "i"}[dtype]
        begin = len(data)
        data += struct.pack(f"<{len(values)}{code}", *values)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    folder = pathlib.Path(sys.argv[1])
    generator = random.Random(SEED)
    weights = make_weights(generator)
    # One stream of tokens: sequence b is [b*T, b*T + T), its targets are one further.
    stream = [generator.randrange(VOCAB) for _ in range(BATCH * POSITIONS + 1)]
    logits, loss = [], 0.0
    for b in range(BATCH):
        begin = b * POSITIONS
        for p, row in enumerate(forward(weights, stream[begin : begin + POSITIONS])):
            loss -= math.log(softmax(row)[stream[begin + p + 1]]) / (BATCH * POSITIONS)
            logits += row

    prefixed = {f"transformer.{name}": ("F32", *weights[name]) for name in sorted(weights)}
    save(folder / "hf/model.safetensors", prefixed, {"format": "pt"})
    # Another order, too: nothing may depend on it.
    bare = {name: ("F32", *weights[name]) for name in sorted(weights, reverse=True)}
    for layer in range(LAYERS):
        mask = [float(k <= q) for q in range(POSITIONS) for k in range(POSITIONS)]
        bare[f"h.{layer}.attn.bias"] = ("F32", [1, 1, POSITIONS, POSITIONS], mask)
        bare[f"h.{layer}.attn.masked_bias"] = ("F32", [], [-1e4])
    bare["lm_head.weight"] = bare["wte.weight"]
    save(folder / "bare/model.safetensors", bare)
    config = {
        "model_type": "gpt2", "n_layer": LAYERS, "n_embd": CHANNELS, "n_head": HEADS, "vocab_size": VOCAB,
        "n_positions": POSITIONS, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    }  # fmt: skip
    for name in ("hf", "bare"):
        (folder / name / "config.json").write_text(json.dumps(config))
    save(
        folder / "golden.safetensors",
        {
            "tokens": ("I32", [BATCH, POSITIONS], stream[:-1]),
            "targets": ("I32", [BATCH, POSITIONS], stream[1:]),
            "logits": ("F64", [BATCH * POSITIONS, VOCAB], logits),
            "loss": ("F64", [1], [loss]),
        },
    )
    header = [20240520, 1, len(stream)] + [0] * 253
    (folder / "train.bin").write_bytes(struct.pack("<256i", *header) + struct.pack(f"<{len(stream)}H", *stream))
    sidecar = {
        "format": "strake-tokens", "version": 1, "layout": "header", "dtype": "u16", "tokens": len(stream),
        "vocab_size": VOCAB, "tokenizer": {"name": "tiny", "hash": ""}, "source": "make_tiny_gpt2.py",
    }  # fmt: skip
    (folder / "train.bin.json").write_text(json.dumps(sidecar))


if __name__ == "__main__":
    main()
