"""Bases, experts and packed tensors for the tests of codecs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.codecs.catalog import CODECS, implementation
from merging.codecs.contract import Packed
from merging.codecs.folder import About, PackedExpert, read, write
from merging.codecs.packing import pack_expert
from merging.methods.contract import Role

# no deadline: the kernel may be compiled on first use
QUICK = settings(derandomize=True, database=None, deadline=None, max_examples=100)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, a function of the arguments."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(*shape: int, size: float = 1e-3, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A base of weights of the usual size and an expert of it."""
    base = normal(*shape, seed=1) * 0.02
    return base.to(dtype), (base + normal(*shape, seed=2) * size).to(dtype)


def pack(name: str, base: Tensor, expert: Tensor, role: Role = "matrix", **settings: float) -> Any:
    """The expert's tensor, packed."""
    return implementation(name).pack(base, expert, role, CODECS[name].checked(settings))


def reread(name: str, packed: Packed) -> Packed:
    """The same from what would be stored of it."""
    found: Packed = implementation(name).unpack(packed.shape, dict(packed.payload), dict(packed.numbers))
    return found


def error(expert: Tensor, base: Tensor, packed: Packed) -> float:
    """‖τ − what is left of τ‖ / ‖τ‖."""
    delta = expert.double() - base.double()
    return float((packed.expert(base).double() - expert.double()).norm() / delta.norm())


def top(delta: Tensor, density: float) -> list[int]:
    """Indices of the largest magnitudes by sorting all of them, of equal ones the lowest; ascending, zeros left out."""
    flat = delta.flatten().abs()
    count = min(flat.numel(), max(1, int(density * flat.numel())))
    order: Iterable[int] = flat.argsort(descending=True, stable=True)[:count].tolist()
    return sorted(index for index in order if flat[index] > 0)


def compress(to: Path, models: tuple[Checkpoint, Checkpoint], name: str = "compeft", **settings: float) -> PackedExpert:
    """The models' expert, written and read again."""
    base, expert = models
    chosen = CODECS[name].checked(settings)
    write(to, base, pack_expert(base, expert, name, chosen), About(name, chosen, expert))
    return read(to, "models.experts[0]")
