"""Soups in a real store: broken off at random moments again and again, the same decisions are made."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from db.records import Trial
from db.store import Store, open_home
from evaluation.result import Scored
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.controller import Controller, Search, Told
from search.dispatch import InlineDispatcher
from search.opening import open_search
from search.seeds import derive
from search.soups.search import SoupSearch
from search.space import make_space
from search.strategies.contract import Strategy
from search.study import StudySpec
from tests.search.factories import LAYERS, answers, create_race, leading, make_spec
from tests.search.test_soups import OPTIONS, PRUNED

CASES = [("greedy_soup", options) for options in OPTIONS] + [("pruned_soup", options) for options in PRUNED]
CASES.append(("ensemble_soup", {"candidates": 200}))


class Stopped(Exception):
    """The test's own interruption."""


def make(strategy: str, options: dict[str, Any], **search: Any) -> StudySpec:
    about = {"strategy": strategy, "options": options, "trials": 60, "prune": "off", **search}
    experts = [f"experts/{name}" for name in "abcd"]
    return make_spec(models={"base": "base", "experts": experts}, space={"methods": ["linear"]}, search=about)


def quality(recipe: Recipe) -> float:
    """Experts help each other some, each by its own."""
    weights = recipe.groups[0].weights
    spread = 1.0 - sum(w * w for w in weights.values())
    return 0.35 + 0.2 * spread + 0.2 * sum(w * derive("q", name) / 2**32 for name, w in weights.items())


def run(spec: StudySpec, store: Store, stop_at: int | None = None) -> tuple[tuple[Trial, ...], Strategy]:
    """Go on with the study, until so many trials are told here."""
    study = store.studies.find(spec.name) or create_race(store, spec, 60)
    measured, left = answers(quality), [stop_at]

    def evaluate(recipe: Recipe, wanted: Wanted) -> Scored:
        found = measured(recipe, wanted)
        assert isinstance(found, Scored)
        return found

    def told(event: Told) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                raise Stopped

    space = make_space(spec, LAYERS)
    begin, strategy = open_search(spec, space, study.setup)
    found = Search(study, spec, spec.search.parallel, space, begin, strategy, told)
    dispatcher = InlineDispatcher(store, evaluate)
    controller = Controller(found, leading(store, study.id), store, dispatcher.announce)
    while not controller.step():
        dispatcher.wait(0)
    return store.trials.all(study.id), strategy


def run_broken(spec: StudySpec, store: Store, rng: Random) -> tuple[tuple[Trial, ...], Strategy]:
    """Go on with the study, broken off again and again."""
    for _ in range(4):
        try:
            run(spec, store, rng.randint(1, 9))
        except Stopped:
            continue
    return run(spec, store)


def lines_of(strategy: Strategy) -> tuple[str, ...]:
    assert isinstance(strategy, SoupSearch)
    return strategy.explain()


@pytest.mark.parametrize(("strategy", "options"), CASES)
def test_broken_off_again_and_again_it_decides_as_undisturbed(
    strategy: str, options: dict[str, Any], tmp_path: Path
) -> None:
    spec = make(strategy, options, parallel=1, trials=30)
    whole, undisturbed = run(spec, open_home(tmp_path / "one"))
    broken, again = run_broken(spec, open_home(tmp_path / "two"), Random(str(options)))
    assert [(t.origin, t.value, t.state) for t in broken] == [(t.origin, t.value, t.state) for t in whole]
    if strategy != "ensemble_soup":
        assert lines_of(again) == lines_of(undisturbed)
        assert lines_of(again)[-1].startswith("ends with")


@pytest.mark.parametrize("options", OPTIONS)
def test_with_several_workers_it_ends_with_the_soup_of_one(options: dict[str, Any], tmp_path: Path) -> None:
    _, undisturbed = run(make("greedy_soup", options, parallel=1, trials=100), open_home(tmp_path / "one"))
    _, again = run_broken(make("greedy_soup", options, parallel=3, trials=100), open_home(tmp_path / "two"), Random(1))
    assert lines_of(again) == lines_of(undisturbed)


def test_each_trial_and_the_end_of_the_search_say_what_was_tried(tmp_path: Path) -> None:
    store, spec = open_home(tmp_path), make("greedy_soup", {}, parallel=1)
    trials, strategy = run(spec, store)
    origins = [t.origin for t in trials if t.origin.startswith("greedy_soup")]
    assert origins and {origin.partition(":")[2] for origin in origins} <= {f"+{name}" for name in "abcd"}
    lines = lines_of(strategy)
    best = max(t.value or 0.0 for t in trials if t.origin.startswith("expert:"))
    assert lines[0].endswith(f"{best:.4f}")
    ended = store.studies.get(spec.name).ended
    assert ended is not None and ended["reason"] == "exhausted"
    assert f": it {lines[-1]}; +" in ended["why"] and lines[-2] in ended["why"]
