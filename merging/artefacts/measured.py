"""What a recipe's artefacts say of one tensor: `merging.methods.contract.Measured` over files."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from merging.arrangement import Part
from merging.artefacts.request import JOINT, Request, requests_of
from merging.artefacts.shelf import Artefact, Growing, Shelf
from merging.catalog.declare import ArtefactKind
from merging.models import ModelSet
from merging.recipe import Merge, Recipe

Key = tuple[ArtefactKind, str]  # and the expert's name; empty for one of all models together


@dataclass(frozen=True)
class Readings:
    """The artefacts that one group of a recipe reads.

    Attributes:
        artefacts: each, found.
        experts: names, in the order of every stack.
        fingerprints: of the experts, in that order: a joint artefact names its tensors by them.
        digests: of the artefacts: what was built with others is another merge. One in the making stands for itself:
            an attempt that is given up may have held other bits.
    """

    artefacts: Mapping[Key, Artefact | Growing]
    experts: tuple[str, ...]
    fingerprints: Sequence[str]
    digests: tuple[Hashable, ...]

    @property
    def growing(self) -> bool:
        """Whether one of them is still in the making."""
        return any(isinstance(each, Growing) for each in self.artefacts.values())

    def of(self, part: Part) -> "TensorReadings":
        """What they say of one tensor of the result."""
        return TensorReadings(self, part)


@dataclass(frozen=True)
class TensorReadings:
    """Satisfies `Measured`."""

    readings: Readings
    part: Part

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        """As `Measured.tensor`."""
        name = stored_name(self.part.experts[expert], part)
        if kind == "common inputs" and len(set(self.part.experts)) > 1:
            return None  # its products are of one layer in all experts
        if kind in JOINT:
            return self.readings.artefacts[kind, ""].tensor(f"{self.readings.fingerprints[expert]}/{name}")
        return self.readings.artefacts[kind, self.readings.experts[expert]].tensor(name)

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        """As `Measured.figure`."""
        owner = "" if kind in JOINT else self.readings.experts[expert]
        return float(self.readings.artefacts[kind, owner].figures[name])


def stored_name(tensor: str, part: str) -> str:
    """What an artefact calls a part of what it holds of a model's tensor."""
    return f"{tensor}::{part}" if part else tensor


def read(merge: Merge, recipe: Recipe, models: ModelSet, shelf: Shelf) -> Readings | None:
    """The artefacts of one group; None if it reads none.

    Raises:
        MissingArtefact: one was not measured here.
    """
    wanted: Sequence[Request] = requests_of(merge, recipe, models)
    if not wanted:
        return None
    found: dict[Key, Artefact | Growing] = {(one.kind, one.expert): shelf.require(one) for one in wanted}
    known = zip(wanted, found.values(), strict=True)
    digests = tuple(each if isinstance(each, Growing) else one.digest for one, each in known)
    return Readings(found, models.names, models.expert_fingerprints, digests)
