"""Hidden units in another order are found, also in a model trained further; nothing is found where none are."""

from pathlib import Path

import pytest
import torch

from merging.diagnosis.permutation import hidden_size, match, unit_axis
from tests.merging.diagnosis.planted import LAYERS, base_tensors, diagnosed, remarks, shuffled, tuned


def test_a_planted_permutation_is_found(tmp_path: Path) -> None:
    base = base_tensors()
    found = diagnosed(tmp_path, base, sound=tuned(base, 1), mixed=shuffled(tuned(base, 2, 0.01)))
    matches = {name: [m for m in found.matches if m.expert == name] for name in found.experts}
    assert len(matches["sound"]) == LAYERS and all(m.elsewhere == 0 and m.own > 0.99 for m in matches["sound"])
    assert all(m.elsewhere > 0.95 and m.own < 0.2 < 0.9 < m.best for m in matches["mixed"])
    codes = {(code, models) for code, models in remarks(found) if code in ("permuted", "other_base")}
    assert codes == {("permuted", ("mixed",))}  # and is not taken for a fine-tune of another base


def test_a_permutation_of_a_few_units_is_measured() -> None:
    base = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    expert = base.clone()
    expert[[0, 1, 2, 3]] = base[[3, 2, 1, 0]]
    elsewhere, own, best = match(base, expert)
    assert elsewhere == pytest.approx(4 / 200) and best == pytest.approx(1) and own < best


def test_units_of_another_model_are_not_taken_for_permuted_ones(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, base_tensors(), other=base_tensors(1))
    assert all(m.elsewhere == 0 for m in found.matches)


def test_units_that_are_zero_or_broken_are_left_out() -> None:
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    expert = base.clone()
    expert[0], expert[1, 0] = 0.0, float("nan")
    assert match(base, expert) == pytest.approx((0, 1, 1)) and match(base, torch.zeros(6, 8)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("shape", "hidden", "axis"),
    [
        ((48, 32), 32, 0),
        ((32, 48), 32, 1),
        ((16, 32), 32, 0),
        ((48, 32), None, 0),
        ((32, 32), 32, None),
        ((4, 8, 8), 8, None),
    ],
)
def test_the_axis_of_the_units(shape: tuple[int, ...], hidden: int | None, axis: int | None) -> None:
    assert unit_axis(shape, hidden) == axis


def test_the_width_is_read_under_any_of_its_names() -> None:
    assert hidden_size({"n_embd": 8}) == 8 and hidden_size({"text_config": {"hidden_size": 4}}) == 4
    assert hidden_size({"layers": 3}) is None
