"""What measuring needs and gives: the model at hand, and a pass over data whose results are written as they come."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from evaluation.artefacts.texts import Text
from evaluation.lm.budget import Budget
from merging.artefacts.request import Request
from merging.layers import Place
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from merging.resident import ResidentModel
from merging.weightfiles import Shape

Beat = Callable[[], None]
"""Called between passes; what it raises ends the measuring."""


@dataclass(frozen=True)
class Joint:
    """All models together, where what is measured hangs on a whole recipe.

    Attributes:
        recipe: the recipe that is to be built.
        resident: writes models and merges into the live model.
        texts: each expert's own.
    """

    models: ModelSet
    recipe: Recipe
    resident: ResidentModel
    texts: Mapping[str, list[Text]]

    def write(self, expert: str, where: Callable[[Place], bool]) -> None:
        """Make the live model's tensors of these places the expert's."""
        self.resident.apply(alone(self.models, expert), where)

    def build(self, where: Callable[[Place], bool]) -> None:
        """Make the live model's tensors of these places the recipe's merge."""
        self.resident.apply(self.recipe, where)


@dataclass(frozen=True)
class Subject:
    """The live model, which holds what is measured.

    Attributes:
        model: a Hugging Face causal language model in evaluation mode.
        tensors: its tensors by checkpoint name.
        texts: what it is measured on.
        budget: what one forward pass may hold.
        room: bytes that sums may take at once; more are made in several rounds over the texts.
        beat: called between passes.
        joint: what a measurement of all models together needs beside; None for one of an expert.
    """

    model: Any
    tensors: Mapping[str, torch.Tensor]
    texts: list[Text]
    budget: Budget
    room: int
    beat: Beat
    joint: Joint | None = None


class Measurement(Protocol):
    """One artefact in the making."""

    @property
    def shapes(self) -> list[Shape]:
        """Its tensors, in the order they are made."""
        ...

    @property
    def need(self) -> int:
        """Bytes its sums take at most, known before anything runs."""
        ...

    @property
    def rounds(self) -> int:
        """How often the texts are read."""
        ...

    def values(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Its tensors in that order, each float32 on any device; runs the model."""
        ...

    def figures(self) -> Mapping[str, float | int]:
        """Numbers of the whole, once all values were taken."""
        ...


Measure = Callable[[Subject, Request], Measurement]


def alone(models: ModelSet, expert: str) -> Recipe:
    """The recipe that is one expert."""
    weights = {name: float(name == expert) for name in models.names}
    whole = GroupMerge(layers=(0, models.layout.layer_count), method="linear", weights=weights)
    return Recipe(
        schema_=SCHEMA,
        base=str(models.base.path),
        experts={name: str(each.path) for name, each in models.experts.items()},
        tokenizer=models.tokenizer,
        compress=models.compression,
        groups=(whole,),
    )
