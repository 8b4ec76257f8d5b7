"""Calibration-balanced averaging: two heads of unequal scale, the mean temperature, offsets, and what is refused."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG
from merging.catalog.declare import ArtefactKind
from merging.errors import InvalidRecipe
from merging.methods.calibrated import calibrated
from tests.merging.driver import context_of, merge, parameters_of

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)
TEMPERATURES = st.floats(1 / 16, 16.0)
SHARES = st.floats(0.01, 1.0)


@dataclass(frozen=True)
class Given:
    """Satisfies `Measured`: temperature and offset of each expert's final norm."""

    norms: Sequence[tuple[float, float]]

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        return torch.tensor(self.norms[expert], dtype=torch.float64) if self.norms else None

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        raise KeyError(name)


def coefficients(
    temperatures: Sequence[float], weights: Sequence[float], offset: float = 0.0, **parameters: Any
) -> list[float]:
    """Those of base and experts in the final norm."""
    base = torch.zeros(2)
    measured = Given([(each, offset) for each in temperatures])
    context = replace(context_of(base, [base] * len(weights)), measured=measured)
    return list(calibrated.coefficients(weights, parameters_of(CATALOG["calibrated"], parameters), context))


def averaged(experts: Sequence[Tensor], found: Sequence[float]) -> Tensor:
    return torch.stack([c * x for c, x in zip(found[1:], experts, strict=True)]).sum(0)


def cosine(left: Tensor, right: Tensor) -> float:
    return float(torch.cosine_similarity(left.flatten(), right.flatten(), dim=0))


@pytest.mark.parametrize("scale", [1.0, 3.0, 100.0])
def test_two_heads_of_unequal_scale(scale: float) -> None:
    """Two classifiers x @ W: one is surer by the factor that its weights are larger by, and no righter."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn((8, 3), generator=generator, dtype=torch.float64) for _ in range(2))
    heads = [scale * first, second]
    plain = averaged(heads, coefficients([1.0, 1.0], [1.0, 1.0]))
    balanced = averaged(heads, coefficients([scale, 1.0], [1.0, 1.0]))
    assert cosine(balanced, first + second) == pytest.approx(1.0)  # whatever the scale
    if scale > 1:
        assert cosine(plain, first) > 0.9 > cosine(balanced, first) == pytest.approx(cosine(first + second, first))
    agreed = (first + second).argmax(1)
    assert balanced.argmax(1).tolist() == agreed.tolist()
    if scale > 10:
        assert plain.argmax(1).tolist() == first.argmax(1).tolist() != agreed.tolist()


def test_by_hand() -> None:
    assert coefficients([2.0, 1.0], [1.0, 1.0]) == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert coefficients([2.0, 1.0], [4.0, 2.0]) == pytest.approx([0.0, 0.5, 0.5])
    assert coefficients([2.0, 1.0], [1.0, 1.0], restore=False) == pytest.approx([0.0, 0.25, 0.5])
    assert coefficients([2.0, 1.0], [1.0, 0.0]) == [0.0, 1.0, 0.0]
    assert coefficients([], [1.0, 3.0]) == [0.0, 0.25, 0.75]  # no final norm: a plain average


@QUICK
@given(temperature=TEMPERATURES, weights=st.lists(SHARES, min_size=1, max_size=5))
def test_equal_temperatures_are_a_plain_average(temperature: float, weights: list[float]) -> None:
    found = coefficients([temperature] * len(weights), weights)
    assert found[1:] == pytest.approx([weight / math.fsum(weights) for weight in weights])


@QUICK
@given(models=st.lists(st.tuples(TEMPERATURES, SHARES), min_size=1, max_size=5))
def test_what_is_given_back_is_the_harmonic_mean_which_every_expert_bounds(models: list[tuple[float, float]]) -> None:
    temperatures, weights = zip(*models, strict=True)
    found, balanced = coefficients(temperatures, weights), coefficients(temperatures, weights, restore=False)
    assert math.fsum(found) == pytest.approx(1.0)  # equal norms come back, and the logits' scale with them
    mean = found[1] / balanced[1]
    assert found == pytest.approx([mean * each for each in balanced])
    shares = [weight / math.fsum(weights) for weight in weights]
    assert mean == pytest.approx(1.0 / math.fsum(s / t for s, t in zip(shares, temperatures, strict=True)))
    assert all(mean <= t / s * (1 + 1e-9) for s, t in zip(shares, temperatures, strict=True))
    assert min(temperatures) * (1 - 1e-9) <= mean <= max(temperatures) * (1 + 1e-9)


@QUICK
@given(models=st.lists(st.tuples(TEMPERATURES, SHARES), min_size=1, max_size=5), offset=st.sampled_from([0.0, 1.0]))
def test_a_norm_with_an_offset_is_balanced_as_what_it_multiplies_by(
    models: list[tuple[float, float]], offset: float
) -> None:
    temperatures, weights = zip(*models, strict=True)
    generator = torch.Generator().manual_seed(0)
    norms = [torch.rand(6, generator=generator, dtype=torch.float64) for _ in models]
    found = averaged(norms, coefficients(temperatures, weights, offset)) + offset
    scaled = [(norm + offset) / t for norm, t in zip(norms, temperatures, strict=True)]  # each (w + o) / T
    balanced = sum((w * x for w, x in zip(weights, scaled, strict=True)), torch.zeros(6, dtype=torch.float64))
    harmonic = math.fsum(weights) / math.fsum(w / t for w, t in zip(weights, temperatures, strict=True))
    assert_close(found, harmonic * balanced / math.fsum(weights))


@QUICK
@given(scale=st.floats(1.0, 1e3))
def test_no_expert_sharpens_the_merge_by_being_surer(scale: float) -> None:
    """Two experts with the same norm but for their scales: the other one's temperature and its share are the bound."""
    norm = torch.ones(3, dtype=torch.float64)
    found = averaged([scale * norm, norm], coefficients([scale, 1.0], [1.0, 1.0]))
    assert bool((found <= 2.0).all())
    assert bool((averaged([scale * norm, norm], coefficients([1.0, 1.0], [1.0, 1.0])) >= scale / 2.0).all())


def test_without_a_temperature_a_norm_with_an_offset_is_no_average() -> None:
    with pytest.raises(InvalidRecipe, match=r"parameters.restore: False would need a constant.*; set restore to true"):
        coefficients([2.0, 1.0], [1.0, 1.0], 1.0, restore=False)
    assert coefficients([2.0, 1.0], [1.0, 1.0], 1.0) == coefficients([2.0, 1.0], [1.0, 1.0])


def test_elsewhere_it_is_linear_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    base, *experts = (torch.randn((5, 4), generator=generator) for _ in range(4))
    weights = [0.3, 0.5, 0.9]
    context = replace(context_of(base, experts), measured=Given([]))
    found = list(calibrated.coefficients(weights, parameters_of(CATALOG["calibrated"]), context))
    assert torch.equal(averaged(experts, found), merge(CATALOG["linear"], base, experts, weights))
