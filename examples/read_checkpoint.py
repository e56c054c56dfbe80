#!/usr/bin/env python3
"""read_checkpoint.py CHECKPOINT [TENSOR] [-o FILE.npy]: what is in a checkpoint, with nothing but numpy.

Without a tensor: lists all, with dtype, shape, and how many files each lies in. With one: checks the bytes that it
lies in against their checksums, and prints its shape, mean and standard deviation, or keeps it in a file of numpy.

A checkpoint is a folder of a run, `runs/book/ckpt/step-00001000`. Its manifest says in which files, at which offset, each
tensor's elements are: checkpoint/format.md. In a program of your own:

    from read_checkpoint import Checkpoint
    table = Checkpoint("runs/book/ckpt/step-00001000").tensor("param/wte.weight")

bf16 comes as float32, which holds it exactly.
"""
import argparse
import json
import pathlib
import sys

import numpy

DTYPES = {"f32": "<f4", "f64": "<f8", "bf16": "<u2", "i32": "<i4", "i64": "<i8", "u8": "u1"}


class Damaged(Exception):
    """Bytes are not those that were written; names the file, and which chunk of it."""


# ---- CRC32C. numpy has none, and a loop over bytes would take a minute for what is read in a second. So the bytes are
# cut into lanes of equal length, all of which go through the loop at once, eight bytes a turn. A checksum is linear: that
# of two pieces is the one of the first, moved on over as many zeros as the second has bytes, xor that of the second.
# So neighbours are joined until one is left.

LANE_BYTES = 512
JOINED = 1 << 16  # lanes at once


def _byte_table():
    table = numpy.arange(256, dtype=numpy.uint32)
    for _ in range(8):
        table = numpy.where(table & 1, (table >> 1) ^ numpy.uint32(0x82F63B78), table >> 1)
    return table


# What one more byte does to a checksum; _PAIRS[k][w]: what the two bytes w do when 2 k more follow in the same turn.
_TABLE = _byte_table()
_PAIR_BYTES = numpy.arange(1 << 16, dtype=numpy.uint32)
_PAIRS = []
for _ in range(4):
    _state = _PAIR_BYTES if not _PAIRS else _PAIRS[-1]
    for _ in range(2):
        _state = _TABLE[_state & 0xFF] ^ (_state >> 8)
    _PAIRS.append(_state)


def _over_zeros(states, count):
    """Moves each state on over `count` zero bytes; four tables of it, a byte of the state each."""
    tables = numpy.arange(256, dtype=numpy.uint32)[None, :] << (numpy.arange(4, dtype=numpy.uint32) * 8)[:, None]
    step = tables.copy()  # over one zero byte, then two, four, ...
    step = _TABLE[step & 0xFF] ^ (step >> 8)
    while count:
        if count & 1:
            tables = _apply(step, tables)
        step = _apply(step, step)
        count >>= 1
    return _apply(tables, states)


def _apply(tables, states):
    return (tables[0][states & 0xFF] ^ tables[1][(states >> 8) & 0xFF] ^ tables[2][(states >> 16) & 0xFF]
            ^ tables[3][states >> 24])


def crc32c(data):
    """CRC32C (Castagnoli) of bytes-like `data`: of b"123456789" 0xe3069283."""
    data = numpy.frombuffer(data, dtype=numpy.uint8)
    # Lanes of the end: what is left over stands in front, behind zeros, which leave a state of 0 as it is. What the
    # checksum begins with (all ones) is xored into the first four bytes, where there are as many.
    head = len(data) % LANE_BYTES
    lanes = numpy.zeros(LANE_BYTES * (len(data) // LANE_BYTES + (head > 0)), dtype=numpy.uint8)
    lanes[len(lanes) - len(data):] = data
    if len(data) < 4:
        return _short(data)
    first = len(lanes) - len(data)
    lanes[first:first + 4] ^= 0xFF
    rows = lanes.reshape(-1, LANE_BYTES)
    states = numpy.concatenate([_lanes(rows[at:at + JOINED]) for at in range(0, len(rows), JOINED)])
    length = LANE_BYTES
    while len(states) > 1:
        if len(states) % 2:
            states = numpy.concatenate([numpy.zeros(1, dtype=numpy.uint32), states])
        states = _over_zeros(states[0::2], length) ^ states[1::2]
        length *= 2
    return int(states[0]) ^ 0xFFFFFFFF


def _lanes(rows):
    words = numpy.ascontiguousarray(rows.view("<u4").T)  # one row a turn of four bytes
    states = numpy.zeros(rows.shape[0], dtype=numpy.uint32)
    for turn in range(0, len(words), 2):
        low, high = states ^ words[turn], words[turn + 1]
        states = _PAIRS[3][low & 0xFFFF] ^ _PAIRS[2][low >> 16] ^ _PAIRS[1][high & 0xFFFF] ^ _PAIRS[0][high >> 16]
    return states


def _short(data):
    state = 0xFFFFFFFF
    for byte in data:
        state = int(_TABLE[(state ^ int(byte)) & 0xFF]) ^ (state >> 8)
    return state ^ 0xFFFFFFFF


# ---- The checkpoint.


class Checkpoint:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        text = (self.folder / "manifest.json").read_bytes()
        end = text.rfind(b',"crc32c":"')
        if not text.endswith(b'"}\n') or end < 0 or text[end + 11:end + 19] != b"%08x" % crc32c(text[:end]):
            raise Damaged(f"{self.folder / 'manifest.json'}: its checksum does not match")
        self.manifest = json.loads(text)["manifest"]
        if self.manifest["format"]["major"] != 1:
            raise Damaged(f"{self.folder}: format {self.manifest['format']['major']}, this reads 1")
        self.tensors = {tensor["name"]: tensor for tensor in self.manifest["tensors"]}

    def tensor(self, name, verify=True):
        """The whole tensor, of whichever ranks' files. `verify`: of every chunk that it lies in, the checksum."""
        record = self.tensors[name]
        out = numpy.empty(int(numpy.prod(record["shape"], dtype=numpy.int64)), dtype=DTYPES[record["dtype"]])
        for shard in record["shards"]:
            part = out[shard["begin_elems"]:shard["begin_elems"] + shard["elems"]]
            self._read(self.manifest["files"][shard["file"]], shard["offset"], part.view(numpy.uint8), verify)
        out = out.reshape(record["shape"])
        return (out.astype(numpy.uint32) << 16).view("<f4") if record["dtype"] == "bf16" else out

    def _read(self, file, offset, into, verify):
        path, size = self.folder / file["name"], file["chunk_bytes"]
        with open(path, "rb") as opened:
            if not verify:
                opened.seek(offset)
                if opened.readinto(into) != len(into):
                    raise Damaged(f"{path}: is cut short")
                return
            done = 0
            while done < len(into):
                chunk = (offset + done) // size
                opened.seek(chunk * size)
                data = opened.read(min(size, file["bytes"] - chunk * size))
                if crc32c(data) != file["crc32c"][chunk]:
                    raise Damaged(f"{path}: checksum of chunk {chunk} does not match")
                piece = numpy.frombuffer(data, dtype=numpy.uint8)[offset + done - chunk * size:][:len(into) - done]
                into[done:done + len(piece)] = piece
                done += len(piece)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("tensor", nargs="?")
    parser.add_argument("-o", "--out", help="file of numpy to make")
    parser.add_argument("--no-verify", action="store_true", help="do not compare checksums")
    arguments = parser.parse_args()
    try:
        checkpoint = Checkpoint(arguments.checkpoint)
        if arguments.tensor is None:
            for name, tensor in checkpoint.tensors.items():
                files = {shard["file"] for shard in tensor["shards"]}
                print(f"{name}  {tensor['dtype']}{tensor['shape']}  in {len(files)} file{'s' if len(files) > 1 else ''}")
            return
        if arguments.tensor not in checkpoint.tensors:
            sys.exit(f"read_checkpoint: {arguments.checkpoint} has no {arguments.tensor}; without a name all are listed")
        values = checkpoint.tensor(arguments.tensor, verify=not arguments.no_verify)
    except (Damaged, OSError) as error:
        sys.exit(f"read_checkpoint: {error}")
    if arguments.out:
        numpy.save(arguments.out, values)
    else:
        print(f"{arguments.tensor}  {values.shape}  mean {values.mean():.6g}  std {values.std():.6g}")


if __name__ == "__main__":
    main()
