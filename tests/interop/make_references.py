#!/usr/bin/env python3
"""make_references.py [FOLDER]: what PyTorch trains, stored, so that it can be compared where there is no PyTorch.

Trains the tiny models below with PyTorch and transformers on the CPU in f32, as parity.py does, and writes for each

    FOLDER/NAME/config.json, model.safetensors   random weights, as transformers saves them
                train.bin, train.bin.json        the token file
                reference.json                   options of the run; loss and gradient norm of every step
                reference.safetensors            gradient/TENSOR: of the first step, before clipping
                                                 tokens (I64 [B, T]); logits, trained_logits (F32 [B, T, V]): of them,
                                                 before and after training

FOLDER is tests/interop/references by default, which tests/interop/reference_test.cc reads. What is there is replaced.
Needs torch, transformers, safetensors and numpy; no GPU, and no program of ours.
"""
import json
import pathlib
import shutil
import sys

import parity

COMMON = {
    "device": "cpu", "ranks": 1, "small": True, "layers": 2, "mlp_channels": 40, "vocab": 61,
    "positions": 16, "batch": 4, "steps": 50, "schedule_steps": 50, "warmup": 10, "learning_rate": 1e-2, "seed": 1,
}  # fmt: skip
EVERY_OPTION = (*parity.MODEL_KEYS, *COMMON)


def options_of(case):
    options = parity.argparse.Namespace(**{key: None for key in EVERY_OPTION})
    for key, value in {"heads": 6, **COMMON, **parity.CASES[case]}.items():
        setattr(options, key, value)
    options.channels = 4 * options.heads
    options.head_size = options.head_size and 6  # where it is not channels / heads
    return parity.completed(options)


def make(case, folder):
    from safetensors.torch import save_file

    options = options_of(case)
    side = parity.Torch(options, folder)
    torch = side.torch
    side.make_model()
    assert side.turns_as_asked(), "transformers turns heads at other rates than config.json says"
    sequences = options.steps * options.batch * 3 // 5 + 1
    ids = parity.write_tokens(folder / "train.bin", sequences * options.positions + 1, options.vocab, options.seed)
    samples = [parity.sequence_of(options.seed, sequences, g) for g in range(options.steps * options.batch)]
    batches = [
        parity.batch_of(ids, samples[step * options.batch : (step + 1) * options.batch], options.positions)
        for step in range(options.steps)
    ]
    _, gradients = side.gradients(*batches[0], "f32")
    tokens = torch.from_numpy(batches[0][0].copy())

    def logits_of(model):
        with torch.no_grad():
            return model.eval()(tokens, use_cache=False).logits.float().contiguous()

    tensors = {f"gradient/{name}": gradient.contiguous() for name, gradient in gradients.items()}
    tensors["tokens"], tensors["logits"] = tokens, logits_of(side.load("hf"))
    losses, norms = side.train(batches, "f32")
    tensors["trained_logits"] = logits_of(side.trained)
    save_file(tensors, folder / "reference.safetensors")
    for name in ("config.json", "model.safetensors"):
        shutil.move(folder / "hf" / name, folder / name)
    shutil.rmtree(folder / "hf")
    reference = {
        "steps": options.steps, "batch": options.batch, "positions": options.positions, "seed": options.seed,
        "learning_rate": options.learning_rate, "min_learning_rate": options.learning_rate / 10,
        "warmup_steps": options.warmup, "schedule_steps": options.schedule_steps,
        "beta1": parity.BETA1, "beta2": parity.BETA2, "epsilon": parity.EPSILON,
        "weight_decay": parity.WEIGHT_DECAY, "clip_norm": parity.CLIP,
        "losses": losses, "norms": norms,
        "made_with": {"torch": torch.__version__, "transformers": side.transformers.__version__},
    }  # fmt: skip
    (folder / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")
    print(f"{case}: loss {losses[0]:.4f} to {losses[-1]:.4f}, norm {norms[0]:.3f} to {norms[-1]:.3f}")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent / "references")
    total = 0
    for case in parity.CASES:
        folder = root / case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(case, folder)
        total += sum(file.stat().st_size for file in folder.iterdir())
    print(f"{total} bytes in {root}")
    assert total < 1_000_000, "too much for the tree"


if __name__ == "__main__":
    main()
