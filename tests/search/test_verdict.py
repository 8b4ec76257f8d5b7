"""The final comparison: read once at the end, on the holdout, and true about who could not be scored."""

from pathlib import Path

import pytest

from db.records import Study, Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Part, Scored
from evaluation.statistics import Aggregation
from merging.recipe import Recipe
from search.finalists import Finalists, HoldoutFailed, ranking
from search.verdict import Verdict, reach_verdict
from tests.search.factories import Evaluate, bowl, find_the_finalists, make_spec, run_search, scored
from tests.search.test_strategies import BEST, search

MEASURE = ("mean", {"t": 1.0}, {"t": Aggregation("mean", lambda items: sum(items) / len(items))})


def on_both(recipe: Recipe, part: Part) -> Scored:
    return scored(bowl(recipe, BEST), 8 if part == "search" else 4)


def finalists(store: Store, evaluate: Evaluate) -> tuple[Study, tuple[Trial, ...], Finalists]:
    """Search on the search documents, then compare with `evaluate`."""
    found = search(make_spec(search={"trials": 12}), store)
    trials = run_search(found, store, on_both)
    return found.study, trials, find_the_finalists(found.study, trials, store, evaluate)


def verdict_of(store: Store, study: Study, found: Finalists, trials: int) -> Verdict:
    return reach_verdict(store, study, found, MEASURE, trials)  # type: ignore[arg-type]


def is_alone(recipe: Recipe, name: str) -> bool:
    return all(group.weights[name] == 1.0 and sum(group.weights.values()) == 1.0 for group in recipe.groups)


def test_baselines_and_winner_are_compared_on_documents_the_search_did_not_score(store: Store) -> None:
    study, trials, found = finalists(store, on_both)
    assert [t.origin for t in found.compared] == ["expert:a", "expert:b", "expert:c", "uniform_soup", "random"]
    verdict = verdict_of(store, study, found, len(trials))
    assert verdict.winner == ranking(trials)[0].number and verdict.documents == {"search": 8, "holdout": 4}
    assert verdict.of(verdict.winner).winner_minus_this is None
    assert all(f.winner_minus_this for f in verdict.finalists if f.trial != verdict.winner)
    assert Verdict.model_validate(verdict.model_dump(mode="json", by_alias=True)) == verdict


def test_a_baseline_that_cannot_be_scored_is_named_and_the_rest_compared(store: Store) -> None:
    def shaky(recipe: Recipe, part: Part) -> Scored | Infeasible | Failed:
        return Infeasible(why="perplexity is infinite") if is_alone(recipe, "b") else on_both(recipe, part)

    study, trials, found = finalists(store, shaky)
    assert found.missing == {"expert:b": "perplexity is infinite"}
    verdict = verdict_of(store, study, found, len(trials))
    assert verdict.missing == found.missing and "expert:b" not in [f.label for f in verdict.finalists]


def test_a_winner_that_cannot_be_scored_gives_way_to_the_next_best(store: Store) -> None:
    broken: list[str] = []

    def shaky(recipe: Recipe, part: Part) -> Scored | Infeasible | Failed:
        if not broken and not any(is_alone(recipe, n) for n in "abc") and recipe.groups[0].weights["a"] != 1 / 3:
            broken.append(recipe.to_json())
        return Infeasible(why="NaN") if recipe.to_json() in broken else on_both(recipe, part)

    _, trials, found = finalists(store, shaky)
    best, second = ranking(trials)[:2]
    assert found.winner == second and list(found.missing) == [f"trial {best.number} ({best.origin})"]


def test_a_fault_on_the_holdout_is_tried_again_when_the_run_is(store: Store) -> None:
    with pytest.raises(HoldoutFailed, match=r"disk full.*run the study again"):
        finalists(store, lambda recipe, part: Failed(why="disk full"))
    study = store.studies.get("test")
    trials = store.trials.all(study.id)
    store.evaluations.retry_failed(study.id, "holdout")
    found = find_the_finalists(study, trials, store, on_both)
    assert not found.missing and len(found.compared) == 5


def test_a_baseline_that_won_is_its_own_winner(store: Store, tmp_path: Path) -> None:
    def a_is_best(recipe: Recipe, part: Part) -> Scored:
        return scored(0.9 if is_alone(recipe, "a") else 0.1, 8 if part == "search" else 4)

    found = search(make_spec(search={"trials": 8}), store)
    trials = run_search(found, store, a_is_best)
    compared = find_the_finalists(found.study, trials, store, a_is_best)
    assert compared.winner.origin == "expert:a" and len(compared.compared) == 4
