"""make_random_tokens.py FILE TOKENS VOCAB: a token file of random ids without a sidecar (the config names model.vocab).

The layout is that of data/format.md: 256 int32 of header, then uint16 ids.
"""
import json
import pathlib
import sys

import numpy

path, tokens, vocab = pathlib.Path(sys.argv[1]), int(float(sys.argv[2])), int(sys.argv[3])
header = numpy.zeros(256, dtype=numpy.int32)
header[:3] = 20240520, 1, tokens
ids = numpy.random.default_rng(1).integers(0, vocab, tokens, dtype=numpy.uint16)
with path.open("wb") as file:
    file.write(header.tobytes())
    file.write(ids.tobytes())
print(f"{path}: {tokens} random tokens below {vocab}")
