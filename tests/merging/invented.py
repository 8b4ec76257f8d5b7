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
    """Satisfies `Measured` for one tensor: Fisher information, inputs, shares of 1, masks, temperatures, losses."""

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
        if kind == "loss":
            return 3.0 * torch.rand((), generator=generator)
        if kind == "coefficients":
            every = [torch.rand((), generator=self._generator(kind, t)) + 0.1 for t in range(len(self.fingerprints))]
            return every[expert] / sum(sorted(every))
        if len(self.shape) != 2 or not part.endswith(".0"):
            return None
        width = self.shape[0] if self.transposed else self.shape[1]
        if kind == "common inputs":
            other = self._generator(kind, part.removeprefix("with.").removesuffix(".0"))
            ours, theirs = (torch.randn((2 * width + 1, width), generator=each) for each in (generator, other))
            return ours.mT @ theirs / len(ours)
        # of `merged inputs`, gram and cross are one: experts that see what the merge sees
        rows = torch.randn((2 * width + 1, width), generator=generator)
        return rows.mT @ rows / len(rows)

    def _generator(self, kind: ArtefactKind, expert: int | str) -> torch.Generator:
        fingerprint = self.fingerprints[expert] if isinstance(expert, int) else expert
        return torch.Generator().manual_seed(zlib.crc32(f"{kind} {fingerprint}".encode()))

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        """As `Measured.figure`."""
        found = self.tensor(kind, expert)
        assert found is not None
        return float({"mean": found.mean(), "norm": found.norm(), "loss": found.mean()}[name]) if found.numel() else 0.0


def invent(recipe: Recipe, models: ModelSet) -> None:
    """Puts on the shelf all that the recipe reads."""
    shelf = Shelf(models.folders)
    for request in requests(recipe, models):
        with shelf.making(request) as folder:
            if folder is not None:
                tensors = dict(_invented(request, models))
                save_file(tensors, folder / TENSORS)
                finish(folder, request, {"mean": 0.6, "norm": 100.0, "loss": 0.5})


def _invented(request: Request, models: ModelSet) -> Iterator[tuple[str, Tensor]]:
    for fingerprint in request.models[1:] if request.kind in JOINT else request.models[:1]:
        prefix = f"{fingerprint}/" if request.kind in JOINT else ""
        for name in models.base.names:
            of = Invented([fingerprint], models.base.entry(name).shape, transposed(name, models.base.config))
            for part in _parts(request, fingerprint):
                found = of.tensor(request.kind, 0, part)
                if found is not None:
                    yield prefix + stored_name(name, part), found


def _parts(request: Request, fingerprint: str) -> tuple[str, ...]:
    """What an artefact of linear layers' inputs has of each tensor; of others, the one it has."""
    if request.kind == "common inputs":
        return tuple(f"with.{other}.0" for other in sorted(set(request.models[1:])) if fingerprint <= other)
    if request.kind == "merged inputs":
        return ("gram.0", "cross.0")
    return ("gram.0",) if "inputs" in request.kind else ("",)
