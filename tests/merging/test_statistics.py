"""Figures of the models: cuts within the model, layers of stacked results, and what is kept between candidates."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from merging.arrangement import Part
from merging.catalog import CATALOG, implementation
from merging.engine import Engine
from merging.kernel.program import Cut
from merging.layers import Place
from merging.memo import Memo, _size
from merging.models import Stack
from merging.recipe import GroupMerge, Slice
from merging.statistics import ModelStatistics
from tests.merging.driver import context_of, parameters_of
from tests.merging.factories import a_recipe, open_models, recipe_of, takes


def figures(deltas: dict[str, Tensor]) -> dict[str, Any]:
    """The statistics of a model of these tensors, the base all zero."""
    parts = [Part(name, Place(0, "other"), name, (name,)) for name in deltas]
    models = ModelStatistics(
        lambda part: Stack(torch.zeros_like(deltas[part.base]), [deltas[part.base]]), parts, Memo(0)
    )
    return {part.name: models.of(part) for part in parts}


def kept(delta: Tensor, cut: Cut) -> int:
    index = torch.arange(delta.numel())
    above = (delta.abs() > cut.value) | ((delta.abs() == cut.value) & (index <= cut.index))
    return int(above.sum())


def test_equal_magnitudes_are_cut_where_the_count_ends_first_tensors_first() -> None:
    deltas = {name: torch.full((10,), 0.5) for name in "abc"}
    cuts = {name: found.cut(0, 15, "model") for name, found in figures(deltas).items()}
    assert [kept(deltas[name], cuts[name]) for name in "abc"] == [10, 5, 0]


def test_within_the_model_a_small_share_of_coarse_magnitudes_is_kept_to_the_count() -> None:
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(50_000, generator=generator) * 0.02).bfloat16()
    delta = (base.float() + 2e-5 * torch.randn(50_000, generator=generator)).bfloat16().float() - base.float()
    deltas = {"a": delta[:20_000], "b": delta[20_000:]}
    for count in (50, 500, 1000, 25_000):
        found = sum(kept(deltas[name], own.cut(0, count, "model")) for name, own in figures(deltas).items())
        assert found == pytest.approx(count, rel=0.011)
    assert all(kept(deltas[n], own.cut(0, 0, "model")) == 0 for n, own in figures(deltas).items())


@pytest.mark.parametrize("method", ["model_stock", "metagpt"])
def test_a_layer_s_angles_are_its_own_wherever_slices_put_it(tmp_path: Path, method: str) -> None:
    models = open_models(tmp_path, experts=2)

    def merged(name: str, count: int, *slices: Slice) -> Tensor:
        group = GroupMerge(layers=(0, count), method=method, parameters={"over": "layer"})
        engine = Engine(models)
        plan = engine.plans(recipe_of(models, (group,), slices=slices))[name]
        engine.merge(plan, out := torch.empty(48, 32))
        return out

    whole = merged("model.layers.2.mlp.up_proj.weight", 4)
    assert torch.equal(merged("model.layers.0.mlp.up_proj.weight", 2, Slice(layers=(2, 4))), whole)
    both = (Slice(layers=(0, 4)), Slice(layers=(2, 4)))
    assert torch.equal(merged("model.layers.4.mlp.up_proj.weight", 6, *both), whole)


def bytes_of(state: Any) -> int:
    """Bytes of every tensor that a prepared state holds, found by another way than the memo's."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if is_dataclass(state):
        return sum(bytes_of(getattr(state, field.name)) for field in fields(state))
    if isinstance(state, dict):
        return bytes_of(list(state.values()))
    return sum(map(bytes_of, state)) if isinstance(state, list | tuple) else 0


@pytest.mark.parametrize("name", [n for n, row in CATALOG.items() if hasattr(implementation(row), "prepare")])
def test_the_memo_counts_all_that_is_prepared(name: str) -> None:
    row, generator = CATALOG[name], torch.Generator().manual_seed(0)
    base = torch.randn(24, 16, generator=generator)
    experts = [base + torch.randn(24, 16, generator=generator) for _ in range(min(3, row.experts[1]))]
    state = implementation(row).prepare(torch.stack(experts) - base, parameters_of(row), context_of(base, experts))
    assert _size(state) == bytes_of(state)


@pytest.mark.parametrize("method", CATALOG)
def test_without_room_nothing_stays(tmp_path: Path, method: str) -> None:
    models = open_models(tmp_path, experts=2 if takes(method, 2) else 1)
    engine = Engine(models)
    for name, plan in engine.plans(a_recipe(models, method)).items():
        engine.merge(plan, torch.empty(models.shape(name)))
    assert all(bytes_of(row.value) == 0 for row in engine._kept._rows.values())


def test_a_cut_counts_as_the_tensors_it_holds() -> None:
    memo = Memo(10)
    memo.get("cut", lambda: Cut(torch.zeros(5), torch.zeros(5, dtype=torch.int64)))
    assert memo.used == 0


def test_numbers_are_brought_to_their_declared_type(tmp_path: Path) -> None:
    models = open_models(tmp_path, experts=2)
    weights = {"add": 0.5, "sort": 0.5}
    group = GroupMerge(layers=(0, 4), method="consensus", parameters={"k": 2.0}, weights=weights)
    plan = next(iter(Engine(models).plans(recipe_of(models, (group,))).values()))
    assert type(plan.merge.parameters["k"]) is int


def test_small_entries_are_forgotten_too_when_there_are_many() -> None:
    memo = Memo(1 << 20)
    for density in range(2000):  # each of them a cut of a few bytes
        memo.next_round()
        memo.get(density, lambda: Cut(torch.zeros(1), torch.zeros(1, dtype=torch.int64)))
    assert len(memo._rows) < 1000 and memo.used <= memo.budget


def test_a_study_of_many_shares_of_coarse_magnitudes_keeps_no_tables() -> None:
    delta = (torch.arange(4000) % 7).float() / 64
    found = figures({"a": delta, "b": delta})
    for count in range(10, 2000, 10):
        found["a"].cut(0, count, "model")
    assert sum(bytes_of(kept) for kept in found["a"].models._small.values()) == 8 << 20  # the census alone
