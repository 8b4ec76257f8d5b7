"""The content fingerprint of a checkpoint: which numbers it holds, however they are sharded or named on disk.

blake2b over the sorted (name, dtype, shape, SHA-256 of the bytes: processors have instructions for it, which
makes it three times as fast). The same pass sees to it that every number
is finite, so a fingerprint also says that the checkpoint can be merged.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b, sha256
from typing import Protocol

import torch
from torch import Tensor

# Bytes: still in cache when they are read the second time.
_PIECE = 1 << 20
# Elements: below torch's grain size a sum stays on its own thread, which leaves the cores to the hashes beside it.
_GRAIN = 1 << 14


class FingerprintCache(Protocol):
    """Remembers fingerprints between processes. Keys change when a file of the folder changes."""

    def get(self, key: str) -> str | None:
        """The fingerprint put under the key, or None."""
        ...

    def put(self, key: str, fingerprint: str) -> None:
        """Remembers a fingerprint; may forget it at any time."""
        ...


class NonFinite(ValueError):
    """A tensor holds NaN or infinity. Its message is the tensor's name."""


def fingerprint(tensors: Iterable[tuple[str, Tensor, memoryview]]) -> str:
    """32 hex digits that name the contents.

    Args:
        tensors: name, values and the same values as bytes, in any order.

    Raises:
        NonFinite: the first tensor, by name, that holds NaN or infinity.
    """
    rows = sorted(tensors, key=lambda row: row[0])
    whole = blake2b(digest_size=16)
    with ThreadPoolExecutor(_cores()) as pool:
        for (name, tensor, _), digest in zip(rows, pool.map(_digest, rows), strict=True):
            whole.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode() + digest)
    return whole.hexdigest()


def _cores() -> int:
    """The cores this process may use: with a cpuset (containers, batch systems, taskset) fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(row: tuple[str, Tensor, memoryview]) -> bytes:
    name, tensor, data = row
    hashed, flat = sha256(), tensor.reshape(-1)
    step = _PIECE // tensor.dtype.itemsize
    for first in range(0, flat.numel(), step):
        piece = flat[first : first + step]
        if tensor.is_floating_point() and not _is_finite_alone(piece):
            raise NonFinite(name)
        start = first * tensor.dtype.itemsize
        hashed.update(data[start : start + _PIECE])
    return hashed.digest()


def _is_finite_alone(piece: Tensor) -> bool:
    """`is_finite`, without waking torch's threads."""
    parts = (piece[first : first + _GRAIN] for first in range(0, piece.numel(), _GRAIN))
    total = torch.stack([part.sum(dtype=torch.float32) for part in parts]).sum()
    return bool(torch.isfinite(total)) or bool(torch.isfinite(piece).all())


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # NaN and infinity survive a sum, which reads faster than a test of each value; only a sum that
    # overflowed by itself needs the slow test. float16 would often overflow; bfloat16 adds in float32 anyway.
    total = values.sum(dtype=torch.float32 if values.dtype == torch.float16 else None)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(values).all())
