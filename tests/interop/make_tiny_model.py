"""make_tiny_model.py FOLDER [MODEL]: a tiny model in the files of Hugging Face, and what it computes.

    hf/model.safetensors     random weights, all far from zero and one; names with the prefix of the model with a head
    hf/config.json
    bare/...                 the same without prefix, with the masks or frequencies of older files; of a tied model with
                             the repeated head
    sharded/...              the same in two files and an index
    golden.safetensors       tokens, targets (I32 [B, T]), logits (F64 [B*T, V]), loss (F64 [1]: nats a token)
    train.bin, train.bin.json  a token file whose B sequences are those of the golden file

MODEL is one of MODELS below. Follows the definitions of GPT2LMHeadModel (Conv1D is x W + b with W [in, out]; tanh form
of GELU; layer norms), LlamaForCausalLM and Qwen2ForCausalLM (RMS norms; each half of a head turned against the other by
position; as many query heads share a key and a value as config.json says; down(silu(gate) * up)) in double precision
with nothing but the standard library. Norms stand before attention and MLP; scores are divided by the root of the
head's size.
"""
import json
import math
import pathlib
import random
import struct
import sys

LAYERS, VOCAB, POSITIONS, BATCH = 2, 19, 5, 4
SEED = 20

LLAMA = {
    "model_type": "llama", "hidden_size": 12, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4,
    "intermediate_size": 20, "rms_norm_eps": 1e-6, "rope_theta": 100.0, "tie_word_embeddings": False,
    "hidden_act": "silu",
}  # fmt: skip
MODELS = {
    "gpt2": {
        "model_type": "gpt2", "n_layer": LAYERS, "n_embd": 12, "n_head": 3, "vocab_size": VOCAB,
        "n_positions": POSITIONS, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    },
    "llama": LLAMA,
    # Of three frequencies one is as it was, one is slower, one in between.
    "llama3": {
        **LLAMA, "hidden_size": 10, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 6,
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "mistral": {**LLAMA, "model_type": "mistral", "sliding_window": None, "rms_norm_eps": 1e-5},
    "qwen2": {
        **LLAMA, "model_type": "qwen2", "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": None,
        "hidden_size": 18, "use_sliding_window": False, "sliding_window": 3,
    },
}  # fmt: skip
for config in MODELS.values():
    if config["model_type"] != "gpt2":
        config |= {"num_hidden_layers": LAYERS, "vocab_size": VOCAB, "max_position_embeddings": POSITIONS}


def rounded_to_f32(values):
    return list(struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values)))


def softmax(scores):
    highest = max(scores)
    weights = [math.exp(s - highest) for s in scores]
    return [w / sum(weights) for w in weights]


def add(a, b):
    return [x + y for x, y in zip(a, b)]


def attend(queries, keys, values, position):
    """One head: lists of vectors by position -> the mixed value at `position`."""
    scale = 1 / math.sqrt(len(keys[0]))
    scores = [scale * sum(q * k for q, k in zip(queries[position], keys[at])) for at in range(position + 1)]
    mixed = [0.0] * len(values[0])
    for chance, value in zip(softmax(scores), values):
        mixed = [m + chance * v for m, v in zip(mixed, value)]
    return mixed


def head_of(vector, head, size):
    return vector[head * size : (head + 1) * size]


class Gpt2:
    prefix, table, head = "transformer.", "wte.weight", "wte.weight"

    def __init__(self, config):
        self.channels, self.heads = config["n_embd"], config["n_head"]

    def shapes(self):
        c = self.channels
        shapes = {"wte.weight": [VOCAB, c], "wpe.weight": [POSITIONS, c]}
        for layer in range(LAYERS):
            block = f"h.{layer}."
            for norm in ("ln_1", "ln_2"):
                shapes[f"{block}{norm}.weight"] = shapes[f"{block}{norm}.bias"] = [c]
            for name, inputs, outputs in (
                ("attn.c_attn", c, 3 * c), ("attn.c_proj", c, c), ("mlp.c_fc", c, 4 * c), ("mlp.c_proj", 4 * c, c),
            ):  # fmt: skip
                shapes[f"{block}{name}.weight"] = [inputs, outputs]
                shapes[f"{block}{name}.bias"] = [outputs]
        shapes["ln_f.weight"] = shapes["ln_f.bias"] = [c]
        return shapes

    def buffers(self, layer):
        mask = [float(k <= q) for q in range(POSITIONS) for k in range(POSITIONS)]
        return {
            f"h.{layer}.attn.bias": ("F32", [1, 1, POSITIONS, POSITIONS], mask),
            f"h.{layer}.attn.masked_bias": ("F32", [], [-1e4]),
        }

    def norm(self, w, name, x):
        mean = sum(x) / len(x)
        scale = 1 / math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-5)
        return [(v - mean) * scale * a + b for v, a, b in zip(x, w[name + ".weight"], w[name + ".bias"])]

    def conv1d(self, w, name, x):
        weight, bias = w[name + ".weight"], w[name + ".bias"]
        outputs = len(bias)
        return [bias[o] + sum(x[i] * weight[i * outputs + o] for i in range(len(x))) for o in range(outputs)]

    @staticmethod
    def gelu_new(v):
        return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))

    def hidden(self, w, tokens):
        c, size = self.channels, self.channels // self.heads
        xs = [add(head_of(w["wte.weight"], t, c), head_of(w["wpe.weight"], p, c)) for p, t in enumerate(tokens)]
        for layer in range(LAYERS):
            b = f"h.{layer}."
            qkv = [self.conv1d(w, b + "attn.c_attn", self.norm(w, b + "ln_1", x)) for x in xs]
            for p in range(len(xs)):
                mixed = []
                for head in range(self.heads):
                    part = lambda which: [head_of(v[which * c : (which + 1) * c], head, size) for v in qkv]
                    mixed += attend(part(0), part(1), part(2), p)
                xs[p] = add(xs[p], self.conv1d(w, b + "attn.c_proj", mixed))
            for p, x in enumerate(xs):
                inner = self.conv1d(w, b + "mlp.c_fc", self.norm(w, b + "ln_2", x))
                xs[p] = add(x, self.conv1d(w, b + "mlp.c_proj", [self.gelu_new(v) for v in inner]))
        return [self.norm(w, "ln_f", x) for x in xs]


class Llama:
    prefix, table = "model.", "embed_tokens.weight"

    def __init__(self, config):
        self.config = config
        self.channels, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.kv_heads, self.inner = config["num_key_value_heads"], config["intermediate_size"]
        self.size = config["head_dim"] or self.channels // self.heads
        self.head = self.table if config["tie_word_embeddings"] else "lm_head.weight"

    def shapes(self):
        c, q, kv = self.channels, self.heads * self.size, self.kv_heads * self.size
        shapes = {self.table: [VOCAB, c], "norm.weight": [c], self.head: [VOCAB, c]}
        for layer in range(LAYERS):
            block = f"layers.{layer}."
            shapes[f"{block}input_layernorm.weight"] = shapes[f"{block}post_attention_layernorm.weight"] = [c]
            for name, inputs, outputs in (
                ("self_attn.q_proj", c, q), ("self_attn.k_proj", c, kv), ("self_attn.v_proj", c, kv),
                ("self_attn.o_proj", q, c),
                ("mlp.gate_proj", c, self.inner), ("mlp.up_proj", c, self.inner), ("mlp.down_proj", self.inner, c),
            ):  # fmt: skip
                shapes[f"{block}{name}.weight"] = [outputs, inputs]
                if self.config["model_type"] == "qwen2" and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                    shapes[f"{block}{name}.bias"] = [outputs]
        return shapes

    def buffers(self, layer):
        return {f"layers.{layer}.self_attn.rotary_emb.inv_freq": ("F32", [self.size // 2], self.frequencies())}

    def norm(self, w, name, x):
        scale = 1 / math.sqrt(sum(v * v for v in x) / len(x) + self.config["rms_norm_eps"])
        return [v * scale * a for v, a in zip(x, w[name + ".weight"])]

    def linear(self, w, name, x):
        weight, inputs = w[name + ".weight"], len(x)
        bias = w.get(name + ".bias", [0.0] * (len(weight) // inputs))
        return [b + sum(v * weight[o * inputs + i] for i, v in enumerate(x)) for o, b in enumerate(bias)]

    def frequencies(self):
        """Radians a position of each pair."""
        frequencies = [self.config["rope_theta"] ** (-2 * i / self.size) for i in range(self.size // 2)]
        scaling = self.config.get("rope_scaling")
        if scaling is None:
            return frequencies
        factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
        scaled = []
        for frequency in frequencies:
            turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
            keep = min(1.0, max(0.0, (turns - low) / (high - low)))  # 1: turns often, as it was; 0: slower by the factor
            scaled.append(keep * frequency + (1 - keep) * frequency / factor)
        return scaled

    def turned(self, vector, position):
        """Element i and i + size / 2 are a pair."""
        half, out = self.size // 2, list(vector)
        for i, frequency in enumerate(self.frequencies()):
            cos, sin = math.cos(position * frequency), math.sin(position * frequency)
            out[i] = vector[i] * cos - vector[i + half] * sin
            out[i + half] = vector[i + half] * cos + vector[i] * sin
        return out

    def hidden(self, w, tokens):
        xs = [head_of(w[self.table], t, self.channels) for t in tokens]
        for layer in range(LAYERS):
            b = f"layers.{layer}."
            normed = [self.norm(w, b + "input_layernorm", x) for x in xs]
            qs, ks, vs = ([self.linear(w, f"{b}self_attn.{n}_proj", x) for x in normed] for n in "qkv")
            queries = [[self.turned(head_of(q, h, self.size), p) for p, q in enumerate(qs)] for h in range(self.heads)]
            keys = [[self.turned(head_of(k, h, self.size), p) for p, k in enumerate(ks)] for h in range(self.kv_heads)]
            values = [[head_of(v, h, self.size) for v in vs] for h in range(self.kv_heads)]
            for p in range(len(xs)):
                mixed = []
                for head in range(self.heads):
                    shared = head // (self.heads // self.kv_heads)
                    mixed += attend(queries[head], keys[shared], values[shared], p)
                xs[p] = add(xs[p], self.linear(w, b + "self_attn.o_proj", mixed))
            for p, x in enumerate(xs):
                normed = self.norm(w, b + "post_attention_layernorm", x)
                gate, up = (self.linear(w, f"{b}mlp.{n}_proj", normed) for n in ("gate", "up"))
                inner = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]
                xs[p] = add(x, self.linear(w, b + "mlp.down_proj", inner))
        return [self.norm(w, "norm", x) for x in xs]


def make_weights(model, generator):
    """Name without prefix -> (shape, flat list of doubles that are f32 numbers)."""
    weights = {}
    for name, shape in model.shapes().items():
        center = 1.0 if name.endswith(".weight") and ("ln_" in name or "norm" in name) else 0.0
        weights[name] = (shape, rounded_to_f32([generator.gauss(center, 0.4) for _ in range(math.prod(shape))]))
    return weights


def forward(model, weights, tokens):
    """Logits of one sequence: a list of VOCAB numbers for each token."""
    w = {name: values for name, (_, values) in weights.items()}
    head = w[model.head]
    return [
        [sum(f * x for f, x in zip(head_of(head, v, model.channels), final)) for v in range(VOCAB)]
        for final in model.hidden(w, tokens)
    ]


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


def save_sharded(folder, tensors):
    """In two files, every other tensor in each."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for part in range(2):
        name = f"model-{part + 1:05}-of-00002.safetensors"
        names = list(tensors)[part::2]
        save(folder / name, {tensor: tensors[tensor] for tensor in names}, {"format": "pt"})
        weight_map |= {tensor: name for tensor in names}
    total = sum(4 * math.prod(shape) for _, shape, _ in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def save_tokens(path, ids):
    header = [20240520, 1, len(ids)] + [0] * 253
    path.write_bytes(struct.pack("<256i", *header) + struct.pack(f"<{len(ids)}H", *ids))
    sidecar = {
        "format": "strake-tokens", "version": 1, "layout": "header", "dtype": "u16", "tokens": len(ids),
        "vocab_size": VOCAB, "tokenizer": {"name": "tiny", "hash": ""}, "source": "make_tiny_model.py",
    }  # fmt: skip
    pathlib.Path(f"{path}.json").write_text(json.dumps(sidecar))


def main():
    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "gpt2"
    config = MODELS[name]
    model = Gpt2(config) if name == "gpt2" else Llama(config)
    generator = random.Random(SEED)
    weights = make_weights(model, generator)
    # One stream of tokens: sequence b is [b*T, b*T + T), its targets are one further.
    stream = [generator.randrange(VOCAB) for _ in range(BATCH * POSITIONS + 1)]
    logits, loss = [], 0.0
    for b in range(BATCH):
        begin = b * POSITIONS
        for p, row in enumerate(forward(model, weights, stream[begin : begin + POSITIONS])):
            loss -= math.log(softmax(row)[stream[begin + p + 1]]) / (BATCH * POSITIONS)
            logits += row

    full = lambda tensor: tensor if tensor == "lm_head.weight" else model.prefix + tensor
    prefixed = {full(tensor): ("F32", *weights[tensor]) for tensor in sorted(weights, key=full)}
    save(folder / "hf/model.safetensors", prefixed, {"format": "pt"})
    save_sharded(folder / "sharded", prefixed)
    # Another order, too: nothing may depend on it.
    bare = {tensor: ("F32", *weights[tensor]) for tensor in sorted(weights, reverse=True)}
    for layer in range(LAYERS):
        bare |= model.buffers(layer)
    bare["lm_head.weight"] = bare[model.head]
    save(folder / "bare/model.safetensors", bare)
    for each in ("hf", "bare", "sharded"):
        (folder / each / "config.json").write_text(json.dumps(config))
    save(
        folder / "golden.safetensors",
        {
            "tokens": ("I32", [BATCH, POSITIONS], stream[:-1]),
            "targets": ("I32", [BATCH, POSITIONS], stream[1:]),
            "logits": ("F64", [BATCH * POSITIONS, VOCAB], logits),
            "loss": ("F64", [1], [loss]),
        },
    )
    save_tokens(folder / "train.bin", stream)


if __name__ == "__main__":
    main()
