"""A compressed expert on disk: delta.safetensors, delta.json, and the config and tokenizer of the expert beside them.

The folder appears whole or not at all (`merging.folder`). Tensors are written as they come, a few in memory, and read
as views of the mapped file. Whether the base at hand is the one that the record names is for the caller to see.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedWriter
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.codecs.bits import to_bytes
from merging.codecs.catalog import CODECS, FORMS, implementation
from merging.codecs.contract import Packed
from merging.codecs.packing import Item
from merging.codecs.record import RECORD, SCHEMA, Record, Stored, read_record
from merging.companions import copy_companions
from merging.configfile import as_bytes, tied
from merging.errors import InvalidModel
from merging.fingerprint import FingerprintCache
from merging.folder import appearing, write_file
from merging.shard import Shard, header

PAYLOAD = "delta.safetensors"
_SEPARATOR = "::"  # between a tensor's name and a part's
_BODY = "payload.part"


@dataclass(frozen=True)
class About:
    """What is to be said of a compressed expert.

    Attributes:
        codec, settings: what it was packed by.
        like: whose config.json, tokenizer and companions it has: the expert's own; an adapter has the base's.
    """

    codec: str
    settings: Mapping[str, float]
    like: Checkpoint


@dataclass(frozen=True, eq=False)
class PackedExpert:
    """A compressed expert, opened.

    Attributes:
        path: its folder.
        record: delta.json.
        tensors: by name; their payloads are views of the mapped file, not to be written to.
    """

    path: Path
    record: Record
    tensors: Mapping[str, Packed]


class _Part(NamedTuple):
    """One tensor of a payload, where it lies while the file is being made."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


def write(
    to: Path,
    base: Checkpoint,
    packed: Iterable[Item],
    about: About,
    cache: FingerprintCache | None = None,
    extra: Mapping[str, bytes] = MappingProxyType({}),
) -> Record:
    """Writes a compressed expert; needs room for its payload twice, for a while.

    Args:
        to: the folder to create; its parent must exist.
        base: what it was packed against.
        packed: every tensor's name, form and packed tensor; taken one at a time.
        cache: remembers the base's fingerprint.
        extra: more files by plain name.

    Returns:
        What now stands in delta.json.

    Raises:
        InvalidModel: the base holds NaN or infinity; also whatever `packed` raises.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    with appearing(to) as folder:
        fingerprint = base.fingerprint(cache)
        stored, parts = _gather(folder / _BODY, packed)
        _arrange(folder, parts)
        record = _record(fingerprint, about, stored, sum(part.size for part in parts))
        write_file(folder / RECORD, record.to_json())
        write_file(folder / "config.json", as_bytes(tied(dict(about.like.config), about.like)))
        copy_companions(about.like.path, folder)
        for name, content in extra.items():
            write_file(folder / name, content)
    return record


def read(path: Path, key: str = "model") -> PackedExpert:
    """Opens a compressed expert.

    Indices are counted and checked, which reads them; signs, values and deflated planes are not looked at.

    Args:
        path: its folder.
        key: where it is named (`models.experts[1]`), for messages.

    Raises:
        InvalidModel: it is missing, of an unknown version, truncated, incomplete or damaged.
    """
    record = read_record(path, key)
    shard = Shard(path / PAYLOAD, key)
    payloads: dict[str, dict[str, Tensor]] = {name: {} for name in record.tensors}
    again = "copy or download the folder again"
    for full in shard.entries:
        name, _, part = full.rpartition(_SEPARATOR)
        if name not in payloads:
            raise InvalidModel(key, str(shard.path), f"has {full}, of which {RECORD} knows nothing", again)
        payloads[name][part] = shard.tensor(full)
    tensors = {}
    for form in (record.codec, *(row.codec for row in record.tensors.values())):
        if form not in FORMS:
            problem = f"was packed by {form!r}, which this version does not have"
            raise InvalidModel(key, str(path), problem, f"update mergesearch, or pack by {', '.join(CODECS)}")
    for name, row in record.tensors.items():
        try:
            tensors[name] = implementation(row.codec).unpack(row.shape, payloads[name], row.numbers)
        except ValueError as error:
            raise InvalidModel(key, str(path), f"has a damaged tensor {name} ({error})", again) from error
    return PackedExpert(path, record, tensors)


def _gather(body: Path, packed: Iterable[Item]) -> tuple[dict[str, Stored], list[_Part]]:
    """Writes the payloads one after the other: a safetensors file begins with the sizes of all of them."""
    stored, parts = {}, []
    with body.open("wb") as out:
        for name, form, each in packed:
            stored[name] = Stored(codec=form, shape=each.shape, numbers=dict(each.numbers))
            parts += [_append(out, f"{name}{_SEPARATOR}{part}", tensor) for part, tensor in each.payload.items()]
    return stored, parts


def _append(out: BufferedWriter, name: str, tensor: Tensor) -> _Part:
    start = out.tell()
    out.write(to_bytes(tensor))
    return _Part(name, tensor.dtype, tuple(tensor.shape), start, out.tell() - start)


def _arrange(folder: Path, parts: list[_Part]) -> None:
    """Makes the safetensors file of what was gathered: wide numbers first, which aligns every tensor."""
    ordered = sorted(parts, key=lambda part: (-part.dtype.itemsize, part.name))
    with (folder / _BODY).open("rb") as source, (folder / PAYLOAD).open("wb") as out:
        out.write(header((part.name, part.dtype, part.shape) for part in ordered))
        for part in ordered:
            source.seek(part.start)
            out.write(source.read(part.size))
        out.flush()
        os.fsync(out.fileno())
    (folder / _BODY).unlink()


def _record(fingerprint: str, about: About, stored: dict[str, Stored], size: int) -> Record:
    parameters = sum(prod(row.shape) for row in stored.values())
    return Record(
        schema=SCHEMA,
        codec=about.codec,
        settings=dict(about.settings),
        base=fingerprint,
        parameters=parameters,
        bytes=size,
        bits_per_parameter=8 * size / parameters if parameters else 0.0,
        tensors=dict(sorted(stored.items())),
    )
