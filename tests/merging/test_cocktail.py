"""LM-Cocktail: shares by losses, worked by hand, and what it is at either end of its temperatures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from merging.catalog import CATALOG
from merging.catalog.declare import ArtefactKind
from merging.methods.cocktail import cocktail
from tests.merging.driver import context_of, parameters_of


@dataclass(frozen=True)
class Given:
    """Satisfies `Measured`: the loss of each expert."""

    losses: Sequence[float]

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        raise KeyError(kind)

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        return {("loss", "loss"): self.losses}[kind, name][expert]


def coefficients(losses: Sequence[float], weights: Sequence[float], temperature: float = 5.0) -> list[float]:
    """Those of base and experts."""
    base = torch.zeros(2)
    context = replace(context_of(base, [base] * len(weights)), measured=Given(losses))
    return list(
        cocktail.coefficients(weights, parameters_of(CATALOG["lm_cocktail"], {"temperature": temperature}), context)
    )


def test_by_hand() -> None:
    """Losses 0 and 5 ln 2 at T = 5: e^0 : e^(−ln 2) = 2 : 1; with weights 1 and 2, 1 : 1."""
    assert coefficients([0.0, 5 * math.log(2)], [1.0, 1.0]) == pytest.approx([0.0, 2 / 3, 1 / 3])
    assert coefficients([0.0, 5 * math.log(2)], [1.0, 2.0]) == pytest.approx([0.0, 0.5, 0.5])


def test_it_is_softmax_of_minus_the_losses() -> None:
    losses = [1.3, 0.2, 4.0, 0.9]
    wanted = torch.softmax(-torch.tensor(losses, dtype=torch.float64) / 5, 0).tolist()
    assert coefficients(losses, [1.0] * 4) == pytest.approx([0.0, *wanted], abs=1e-15)
    shifted = [loss + 1000.0 for loss in losses]
    assert coefficients(shifted, [1.0] * 4) == pytest.approx([0.0, *wanted], abs=1e-12)


def test_the_ends_of_the_temperatures() -> None:
    losses, weights = [1.0, 0.5, 2.0], [1.0, 0.2, 0.6]
    assert coefficients(losses, weights, 1e-6) == [0.0, 0.0, 1.0, 0.0], "the best takes all"
    assert coefficients(losses, weights, 1e6) == pytest.approx([0.0, 1 / 1.8, 0.2 / 1.8, 0.6 / 1.8], abs=1e-6)
    assert coefficients(losses, [1.0, 0.0, 0.6], 1e-6) == [0.0, 1.0, 0.0, 0.0], "who has no weight is none of them"
