"""One safetensors file: read without copying, and its header written. Nothing here runs code found in a file.

The format is 8 bytes of little-endian header length, a JSON header `{name: {dtype, shape, data_offsets}}`, and the
tensors' bytes without gaps.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.errors import InvalidModel

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file; its bytes lie in [start, end) of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class Shard:
    """A memory-mapped safetensors file; tensors are views of the mapping.

    The mapping is private: writing to a tensor would change neither the file nor another process's view.

    Args:
        path: the file.
        key: where the model is named, for messages.

    Raises:
        InvalidModel: missing, truncated, corrupted, or of a number format that cannot be merged.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {e.name: e for e in _entries(path, key)}
        self._memory: mmap | None = None

    def _mapped(self) -> mmap:
        if self._memory is None:
            with self.path.open("rb") as file:
                self._memory = mmap(file.fileno(), 0, access=ACCESS_COPY)
        return self._memory

    def tensor(self, name: str) -> Tensor:
        """The tensor, as a view of the mapped file."""
        entry = self.entries[name]
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=entry.dtype)
        count = (entry.end - entry.start) // entry.dtype.itemsize
        flat = torch.frombuffer(self._mapped(), dtype=entry.dtype, count=count, offset=entry.start)
        return flat.view(entry.shape)

    def bytes(self, name: str) -> memoryview:
        """The tensor's bytes, as a view of the mapped file."""
        entry = self.entries[name]
        return memoryview(self._mapped())[entry.start : entry.end]


def _entries(path: Path, key: str) -> list[Entry]:
    """The header's entries in the order of their bytes, checked against the size of the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if size >= 8 and length <= size - 8 else None
    except OSError as error:
        raise InvalidModel(key, str(path), f"cannot be read ({error.strerror})", _AGAIN) from error
    if text is None:
        problem = f"is truncated or no safetensors file ({size} bytes, its header should take {length})"
        raise InvalidModel(key, str(path), problem, _AGAIN)
    try:
        header = json.loads(text)
        entries = [_entry(name, row, 8 + length) for name, row in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModel(key, str(path), f"has a corrupted safetensors header ({error})", _AGAIN) from error
    entries.sort(key=lambda e: (e.start, e.end))
    _check_cover(entries, 8 + length, size, path, key)
    return entries


def _entry(name: str, row: Any, offset: int) -> Entry:
    if row["dtype"] not in DTYPES:
        raise ValueError(f"tensor {name} has the number format {row['dtype']}, which cannot be merged")
    dtype, shape, (start, end) = DTYPES[row["dtype"]], tuple(row["shape"]), row["data_offsets"]
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, end)):
        raise ValueError(f"tensor {name} has an impossible shape or place")
    if end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name} has {end - start} bytes, which its shape {list(shape)} does not fill")
    return Entry(name, dtype, shape, offset + start, offset + end)


def _check_cover(entries: list[Entry], begin: int, size: int, path: Path, key: str) -> None:
    end = begin
    for entry in entries:
        if entry.start != end:
            problem = f"has a corrupted safetensors header (tensor {entry.name} overlaps another or leaves a gap)"
            raise InvalidModel(key, str(path), problem, _AGAIN)
        end = entry.end
    if size != end:
        problem = "is truncated" if size < end else "has bytes that belong to no tensor"
        raise InvalidModel(key, str(path), f"{problem} ({size} bytes of {end})", _AGAIN)


def header(entries: Iterable[tuple[str, torch.dtype, tuple[int, ...]]]) -> bytes:
    """The bytes that stand before the tensors, for tensors that will be written in the given order."""
    rows: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype, shape in entries:
        end = offset + math.prod(shape) * dtype.itemsize
        rows[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors, as every reader expects
    return len(text).to_bytes(8, "little") + text
