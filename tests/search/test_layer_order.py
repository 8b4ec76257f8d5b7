"""Layer order: its operators on hand-worked cases, its limits, and the strategy that is rebuilt from recipes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.store import open_home
from evaluation.result import Part, Scored
from merging.recipe import GroupMerge, Override, Recipe, Slice
from search.controller import Search, Told
from search.evolution.order import (
    Limits,
    Order,
    as_recipe,
    changed,
    crossed,
    dropped,
    read_order,
    repeated,
    runs_of,
    shifted,
)
from search.space import make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal
from search.strategies.layer_order import LayerOrder
from search.strategies.opening import Opening
from tests.search.factories import LAYERS, create, make_spec, run_search, scored

WHOLE = (0, 1, 2, 3)
SPEC = make_spec(search={"strategy": "layer_order", "trials": 40})
SPACE = make_space(SPEC, LAYERS)
BEST = (0, 1, 2, 1, 2, 3)


class Killed(Exception):
    """The test's own interruption."""


def test_blocks_are_repeated_left_out_shifted_and_crossed() -> None:
    assert repeated(WHOLE, 1, 3) == (0, 1, 2, 1, 2, 3)
    assert dropped(WHOLE, 1, 3) == (0, 3)
    assert runs_of((0, 1, 2, 1, 2, 3)) == [(0, 3), (1, 4)] and runs_of(WHOLE) == [(0, 4)]
    assert shifted((0, 1, 2, 1, 2, 3), 0, 1, 1) == (0, 1, 2, 3, 1, 2, 3)
    assert shifted((0, 1, 2, 1, 2, 3), 1, 0, -1) == WHOLE[:3] + WHOLE
    assert shifted((0, 1, 2, 1, 2, 3), 1, 0, 1) == (0, 1, 2, 2, 3)
    assert shifted((0, 2, 3), 1, 0, -1) == WHOLE, "two runs become one"
    assert crossed((0, 1, 2, 1, 2, 3), (1, 3), 0.5) == (0, 1, 2, 3)
    assert crossed(WHOLE, (1, 3), 0.0) == (1, 3) and crossed(WHOLE, (1, 3), 1.0) == WHOLE


@pytest.mark.parametrize(("run", "side", "by"), [(0, 1, -4), (0, 0, -1), (0, 0, 4)])
def test_a_run_is_never_empty_and_begins_in_the_models(run: int, side: int, by: int) -> None:
    with pytest.raises(ValueError, match="run"):
        shifted(WHOLE, run, side, by)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(2, 5), st.integers(0, 2**20))
def test_whatever_is_changed_stays_within_the_limits(count: int, extra: int, blocks: int, seed: int) -> None:
    limits, rng = Limits(count, extra, blocks), np.random.default_rng(seed)
    layers = tuple(range(count))
    for _ in range(6):
        layers = changed(layers, limits, rng)
        assert max(1, count - extra) <= len(layers) <= count + extra
        assert len(runs_of(layers)) <= blocks and min(layers) >= 0 and max(layers) < count
        assert tuple(i for first, end in runs_of(layers) for i in range(first, end)) == layers


def test_every_operator_is_used() -> None:
    limits, found = Limits(4, 2, 3), {changed(WHOLE, Limits(4, 2, 3), np.random.default_rng(s)) for s in range(200)}
    assert {(0, 1, 2, 1, 2, 3), (0, 3), (0, 1, 2), (1, 2, 3), (0, 1, 1, 2, 3)} <= found
    assert all(limits.allow(layers) for layers in found) and WHOLE not in found


@pytest.mark.parametrize("layers", [WHOLE, (0, 1, 2, 1, 2, 3), (0, 3), (3, 0, 1)])
def test_an_order_is_read_again_from_its_recipe(layers: tuple[int, ...]) -> None:
    order = Order(layers, (0.5, 0.25, 0.0))
    recipe = as_recipe(order, SPACE)
    assert recipe.layer_count == len(layers) and bool(recipe.slices) == (layers != WHOLE)
    assert read_order(Recipe.model_validate_json(recipe.to_json()), ("a", "b", "c"), LAYERS) == order


def test_only_recipes_that_treat_all_layers_alike_are_orders() -> None:
    weights = {"a": 0.5, "b": 0.25, "c": 0.25}

    def groups(*given: tuple[str, dict[str, float]]) -> tuple[GroupMerge, ...]:
        size = LAYERS // len(given)
        spans = [(i * size, (i + 1) * size) for i in range(len(given))]
        return tuple(GroupMerge(layers=span, method=m, weights=w) for span, (m, w) in zip(spans, given, strict=True))

    def read(recipe: Recipe) -> Order | None:
        return read_order(recipe, ("a", "b", "c"), LAYERS)

    plain = SPACE.recipe(groups(("task_arithmetic", weights)))
    assert read(plain) == Order(WHOLE, (0.5, 0.25, 0.25))
    assert read(SPACE.recipe(groups(("linear", weights)))) == Order(WHOLE, (0.5, 0.25, 0.25)), "the weights add up to 1"
    assert read(SPACE.recipe(groups(*[("task_arithmetic", weights)] * 2))) == Order(WHOLE, (0.5, 0.25, 0.25))
    halves = ("task_arithmetic", weights), ("task_arithmetic", weights | {"a": 0.1})
    assert read(SPACE.recipe(groups(*halves))) is None
    assert read(SPACE.recipe(groups(("ties", weights)))) is None
    assert read(SPACE.recipe(groups(("linear", weights | {"a": 0.9})))) is None
    override = Override(contains="norm", method="task_arithmetic", weights=weights)
    assert read(plain.model_copy(update={"overrides": (override,)})) is None
    moved = Slice(layers=(0, 4), sources={"a": (0, 4)})
    assert read(plain.model_copy(update={"slices": (moved,)})) is None


def quality(recipe: Recipe) -> float:
    """Best where layers 1 and 2 stand twice, at weights as the starts have them."""
    order = read_order(recipe, ("a", "b", "c"), LAYERS)
    if order is None:
        return 0.0
    alike = sum(a == b for a, b in zip(order.layers, BEST, strict=False)) - abs(len(order.layers) - len(BEST))
    return alike / 10 - sum((w - 1 / 3) ** 2 for w in order.weights)


def by_quality(recipe: Recipe, part: Part) -> Scored:
    return scored(quality(recipe))


def run(home: Path, on_told: Callable[[Told], None] = lambda told: None) -> list[tuple[str, float | None]]:
    """The study to its end, or to the interruption; its recipes and values."""
    store = open_home(home)
    study = store.studies.find(SPEC.name) or create(store, SPEC)
    begin = starts(SPACE)
    strategy = make_strategy("layer_order", Opening(SPACE, 3, begin, options={"extra": 2}))
    trials = run_search(Search(study, SPEC, 1, SPACE, begin, strategy, on_told), store, by_quality)
    return [(store.evaluations.recipe(t.evaluation_id or 0).to_json(), t.value) for t in trials]


def test_it_finds_the_order_and_a_killed_one_goes_on_as_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = run(tmp_path / "one")
    assert len({recipe for recipe, _ in undisturbed}) == 40, "nothing is tried twice"
    recipe, value = max(undisturbed, key=lambda found: found[1] or -1.0)
    begun = max(value or -1.0 for _, value in undisturbed[: len(starts(SPACE))])
    assert value is not None and value > begun + 0.1 and '"slices":[{' in recipe

    for stop_at in (4, 13, 29):

        def stop(told: Told, stop_at: int = stop_at) -> None:
            if told.trial.number + 1 == stop_at:
                raise Killed

        with pytest.raises(Killed):
            run(tmp_path / "two", stop)
    assert run(tmp_path / "two") == undisturbed


def test_it_begins_at_the_best_start_and_may_leave_its_weights_alone() -> None:
    begin = starts(SPACE)
    strategy = make_strategy("layer_order", Opening(SPACE, 3, begin, options={"mutation": 0.0}))
    assert isinstance(strategy, LayerOrder)
    values = {"expert:b": 0.9}
    for number, start in enumerate(begin):
        strategy.reserve(number, Proposal(start.params, start.recipe))
    for number in (0, 1, *range(2, len(begin))):  # one before the best, and others after it
        value = values.get(begin[number].origin, 0.1 * number)
        strategy.observe(Observation(number, begin[number].origin, begin[number].params, begin[number].recipe, value))
    assert [m.number for m in strategy.archive.members] == [1]
    for number in range(len(begin), len(begin) + 10):
        proposal = strategy.propose(number)
        assert isinstance(proposal, Proposal) and proposal.params is None and proposal.recipe is not None
        assert proposal.recipe.groups[0].weights == {"a": 0.0, "b": 1.0, "c": 0.0}
        assert LAYERS - 1 <= proposal.recipe.layer_count <= LAYERS + 1, "a quarter of four layers"


def test_before_anything_is_told_it_proposes_and_what_failed_is_no_parent() -> None:
    strategy = make_strategy("layer_order", Opening(SPACE, 3))
    assert isinstance(strategy, LayerOrder)
    proposal = strategy.propose(0)
    assert isinstance(proposal, Proposal) and proposal.recipe is not None
    strategy.observe(Observation(0, "layer_order", None, proposal.recipe, None))
    assert not strategy.archive.members
