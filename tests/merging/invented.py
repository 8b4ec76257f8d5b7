"""Artefacts of data nobody saw: numbers drawn from an expert's fingerprint, for what holds whatever was measured."""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor

from merging.artefacts.measured import stored_name
from merging.artefacts.request import JOINT, Request, requests
from merging.artefacts.shelf import TENSORS, Shelf, finish
from merging.catalog.declare import ArtefactKind
from merging.codecs.bits import pack
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.roles import transposed


@dataclass(frozen=True)
class Invented:
    """Satisfies `Measured` for one tensor: random Fisher information, inputs, shares of 1, masks, temperatures."""

    fingerprints: Sequence[str]
    shape: tuple[int, ...]
    transposed: bool = False

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        """As `Measured.tensor`."""
        generator = self._generator(kind, expert)
        if kind == "fisher":
            return torch.rand(self.shape, generator=generator) + 0.1
        if kind == "masks":
            return pack(torch.rand(math.prod(self.shape), generator=generator) < 0.5)
        if kind == "temperature":
            return torch.tensor([0.5 + 2.0 * float(torch.rand((), generator=generator)), 0.0])
        if kind == "coefficients":
            every = [torch.rand((), generator=self._generator(kind, t)) + 0.1 for t in range(len(self.fingerprints))]
            return every[expert] / sum(sorted(every))
        if part != "gram.0" or len(self.shape) != 2:
            return None
        width = self.shape[0] if self.transposed else self.shape[1]
        rows = torch.randn((2 * width + 1, width), generator=generator)
        return rows.mT @ rows / len(rows)

    def _generator(self, kind: ArtefactKind, expert: int) -> torch.Generator:
        return torch.Generator().manual_seed(zlib.crc32(f"{kind} {self.fingerprints[expert]}".encode()))

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        """As `Measured.figure`."""
        found = self.tensor(kind, expert)
        assert found is not None
        return float({"mean": found.mean(), "norm": found.norm()}[name]) if found.numel() else 0.0


def invent(recipe: Recipe, models: ModelSet) -> None:
    """Puts on the shelf all that the recipe reads."""
    shelf = Shelf(models.folders)
    for request in requests(recipe, models):
        with shelf.making(request) as folder:
            if folder is not None:
                tensors = dict(_invented(request, models))
                save_file(tensors, folder / TENSORS)
                finish(folder, request, {"mean": 0.6, "norm": 100.0})


def _invented(request: Request, models: ModelSet) -> Iterator[tuple[str, Tensor]]:
    for fingerprint in request.models[1:] if request.kind in JOINT else request.models[:1]:
        prefix = f"{fingerprint}/" if request.kind in JOINT else ""
        for name in models.base.names:
            of = Invented([fingerprint], models.base.entry(name).shape, transposed(name, models.base.config))
            for part in ("gram.0",) if "inputs" in request.kind else ("",):
                found = of.tensor(request.kind, 0, part)
                if found is not None:
                    yield prefix + stored_name(name, part), found
