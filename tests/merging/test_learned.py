"""Methods that read what was learned: relative weights, by hand, and what they do where nothing was learned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG, implementation
from merging.catalog.declare import ArtefactKind
from merging.codecs.bits import pack
from tests.merging.driver import context_of, parameters_of

NUMBERS = st.floats(-2.0, 2.0).filter(lambda x: abs(x) > 1e-3)


@dataclass(frozen=True)
class Given:
    """Satisfies `Measured`: a tensor for each expert, whatever is asked for."""

    tensors: Sequence[Tensor]

    def tensor(self, kind: ArtefactKind, expert: int, part: str = "") -> Tensor | None:
        return self.tensors[expert] if self.tensors else None

    def figure(self, kind: ArtefactKind, expert: int, name: str) -> float:
        raise KeyError(name)


def coefficients(method: str, learned: Sequence[float], weights: Sequence[float], **parameters: Any) -> list[float]:
    row, base = CATALOG[method], torch.zeros(2)
    measured = Given([torch.tensor(c, dtype=torch.float64) for c in learned])
    context = replace(context_of(base, [base] * len(weights)), measured=measured)
    return list(implementation(row).coefficients(weights, parameters_of(row, parameters), context))


@pytest.mark.parametrize("method", ["learned_soup", "adamerging"])
@given(learned=st.lists(NUMBERS, min_size=1, max_size=4), weight=st.floats(0.1, 5.0))
def test_equal_weights_leave_what_was_learned(method: str, learned: list[float], weight: float) -> None:
    found = coefficients(method, learned, [weight] * len(learned))
    assert found[1:] == pytest.approx(learned) and found[0] == pytest.approx(1.0 - sum(learned))


def test_weights_shift_what_was_learned_and_keep_its_sum() -> None:
    found = coefficients("learned_soup", [0.2, 0.6], [3.0, 1.0])
    assert found == pytest.approx([0.2, 0.4, 0.4])  # 0.6 : 0.6 of 0.8
    assert coefficients("learned_soup", [0.2, 0.6], [3.0, 1.0], **{"lambda": 2.0})[1:] == pytest.approx([0.8, 0.8])
    assert coefficients("learned_soup", [0.2, -0.2], [1.0, 0.0])[1:] == pytest.approx([0.4, 0.0])
    assert coefficients("learned_soup", [0.0, 0.6], [1.0, 0.0]) == [1.0, 0.0, 0.0]  # of what is worth nothing: nothing


def test_a_share_of_the_base_is_kept() -> None:
    assert coefficients("adaptive_averaging", [0.25, 0.25], [3.0, 1.0]) == pytest.approx([0.25, 0.5625, 0.1875])
    assert coefficients("adaptive_averaging", [0.0], [2.0]) == [0.0, 1.0]


def test_where_nothing_was_learned_the_mean_remains() -> None:
    assert coefficients("learned_soup", [], [3.0, 1.0]) == pytest.approx([0.0, 0.75, 0.25])
    assert coefficients("adaptive_averaging", [], [3.0, 1.0], alpha0=0.5) == pytest.approx([0.5, 0.375, 0.125])


def masked(masks: Sequence[Sequence[bool]], weights: Sequence[float]) -> list[float]:
    row, deltas = CATALOG["localize_and_stitch_trained"], torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    plain = context_of(torch.zeros(3), list(deltas))
    context = replace(plain, measured=Given([pack(torch.tensor(mask)) for mask in masks]))
    code, parameters = implementation(row), parameters_of(row)
    prepared = code.prepare(deltas, parameters, context)
    found: Tensor = code.combine(deltas, prepared, torch.tensor(weights), parameters)
    return found.tolist()


def test_masks_are_averaged_where_they_overlap() -> None:
    assert masked([[True, True, False], [False, True, False]], [1.0, 3.0]) == pytest.approx([1.0, 15.5, 0.0])
    assert masked([[True, True, False], [False, True, False]], [1.0, 0.0]) == pytest.approx([1.0, 2.0, 0.0])


def test_a_tensor_without_a_mask_stays_the_base_s() -> None:
    row, deltas = CATALOG["graft_trained"], torch.ones(1, 4)
    context = replace(context_of(torch.zeros(4), list(deltas)), measured=Given([]))
    code, parameters = implementation(row), parameters_of(row)
    found = code.combine(deltas, code.prepare(deltas, parameters, context), torch.ones(1), parameters)
    assert_close(found, torch.zeros(4))
