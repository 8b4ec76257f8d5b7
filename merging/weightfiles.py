"""The weight files of a result: safetensors, whole or in shards with an index, one tensor in memory at a time."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from io import RawIOBase
from pathlib import Path

import torch
from torch import Tensor

from merging.checkpoint import INDEX
from merging.folder import write_file
from merging.shard import header

Shape = tuple[str, torch.dtype, tuple[int, ...]]  # of one tensor: name, dtype, shape
Fill = Callable[[str, Tensor], None]


def write_weights(folder: Path, files: Iterable[tuple[str, Sequence[Shape]]], fill: Fill, *, indexed: bool) -> None:
    """Writes the files, durably.

    Args:
        folder: where to.
        files: each file's name and its tensors, in the order they are to lie in it. Wide numbers should come first, so
            that every tensor is aligned to its own width.
        fill: writes the tensor of a name into the one it is given [*shape].
        indexed: whether the model is in shards, which needs an index.
    """
    listed = [(file, list(tensors)) for file, tensors in files]
    largest = max((_size(shape) for _, tensors in listed for shape in tensors), default=0)
    buffer = bytearray(max(largest, 1))  # one for all tensors: fresh memory costs more than the merge itself
    weights, total = {}, 0
    for file, tensors in listed:
        with (folder / file).open("wb", buffering=0) as out:
            out.write(header(tensors))
            for name, dtype, shape in tensors:
                size = _size((name, dtype, shape))
                if size:
                    fill(name, torch.frombuffer(buffer, dtype=dtype, count=math.prod(shape)).view(shape))
                _write_all(out, memoryview(buffer)[:size])
                total += size
                weights[name] = file
            os.fsync(out.fileno())
    if indexed:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
        write_file(folder / INDEX, json.dumps(index, indent=2).encode() + b"\n")


def _size(tensor: Shape) -> int:
    _, dtype, shape = tensor
    return math.prod(shape) * dtype.itemsize


def _write_all(out: RawIOBase, data: memoryview) -> None:
    """Unbuffered files may take less than they are given (at most 2 GiB a call)."""
    while data:
        data = data[out.write(data) :]
