"""The final comparison: read once at the end, on the holdout, and true about who could not be scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from db.records import DocumentSet, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Failed, Infeasible, Part, Scored, TaskScore
from evaluation.statistics import Aggregation
from merging.recipe import Recipe
from search.appraisal import documents_spent, reach_verdict
from search.dispatch import InlineDispatcher
from search.finalists import Finalists, HoldoutFailed, Unmeasured, find_finalists
from search.ranked import ranked
from search.verdict import Verdict
from tests.search.factories import (
    LAYERS,
    Evaluate,
    bowl,
    find_the_finalists,
    fingerprints,
    leading,
    make_spec,
    run_search,
    scored,
    space_of,
)
from tests.search.test_strategies import BEST, search

AGGREGATIONS = {"t": Aggregation("mean", lambda items: sum(items) / len(items))}


def on_both(recipe: Recipe, part: Part) -> Scored:
    return scored(bowl(recipe, BEST), 8 if part == "search" else 4)


def finalists(store: Store, evaluate: Evaluate) -> tuple[Study, tuple[Trial, ...], Finalists]:
    """Search on the search documents, then compare with `evaluate`."""
    found = search(make_spec(search={"trials": 12}), store)
    trials = run_search(found, store, on_both)
    return found.study, trials, find_the_finalists(found.study, trials, store, evaluate)


def verdict_of(store: Store, study: Study, found: Finalists, trials: Sequence[Trial]) -> Verdict:
    return reach_verdict(store, study, found, AGGREGATIONS, trials)


def is_alone(recipe: Recipe, name: str) -> bool:
    return all(group.weights[name] == 1.0 and sum(group.weights.values()) == 1.0 for group in recipe.groups)


def test_baselines_and_winner_are_compared_on_documents_the_search_did_not_score(store: Store) -> None:
    study, trials, found = finalists(store, on_both)
    assert [t.origin for t in found.compared] == ["expert:a", "expert:b", "expert:c", "uniform_soup", "random"]
    verdict = verdict_of(store, study, found, trials)
    assert verdict.winner == ranked(store, study, trials)[0].number and verdict.documents == {"search": 8, "holdout": 4}
    assert verdict.of(verdict.winner).winner_minus_this is None
    assert all(f.winner_minus_this for f in verdict.finalists if f.trial != verdict.winner)
    assert Verdict.model_validate(verdict.model_dump(mode="json", by_alias=True)) == verdict


def test_a_baseline_that_cannot_be_scored_is_named_and_the_rest_compared(store: Store) -> None:
    def shaky(recipe: Recipe, part: Part) -> Scored | Infeasible | Failed:
        return Infeasible(why="perplexity is infinite") if is_alone(recipe, "b") else on_both(recipe, part)

    study, trials, found = finalists(store, shaky)
    assert found.missing == {"expert:b": "perplexity is infinite"}
    verdict = verdict_of(store, study, found, trials)
    assert verdict.missing == found.missing and "expert:b" not in [f.label for f in verdict.finalists]


def test_a_winner_that_cannot_be_scored_gives_way_to_the_next_best(store: Store) -> None:
    broken: list[str] = []

    def shaky(recipe: Recipe, part: Part) -> Scored | Infeasible | Failed:
        if not broken and not any(is_alone(recipe, n) for n in "abc") and recipe.groups[0].weights["a"] != 1 / 3:
            broken.append(recipe.to_json())
        return Infeasible(why="NaN") if recipe.to_json() in broken else on_both(recipe, part)

    study, trials, found = finalists(store, shaky)
    best, second = ranked(store, study, trials)[:2]
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


ORIGINS = ("expert:a", "tpe", "tpe", "tpe")
Candidate = tuple[str, list[float], list[float]]  # origin, items on the search documents, on the holdout


def task_score(task: str, documents: Sequence[int], items: Sequence[float]) -> TaskScore:
    return TaskScore(
        task=task,
        metric="acc",
        value=sum(items) / len(items),
        stderr=None,
        higher_is_better=True,
        documents=tuple(documents),
        items=tuple(items),
    )


class Staged:
    """A study whose trials have the items that a test gives them; the first half of them is of task t, the rest of u.

    Args:
        constraints: what each trial is said to have, by its number.
    """

    def __init__(
        self, store: Store, candidates: Sequence[Candidate], broken: Mapping[int, float] | None = None, **spec: Any
    ) -> None:
        self.store, self.candidates, self.broken = store, candidates, broken or {}
        tasks = [{"name": "t"}, {"name": "u"}]
        self.spec = make_spec(search={"prune": "off", "trials": 50}, **{"evaluation": {"tasks": tasks}, **spec})
        half = len(candidates[0][1]) // 2
        parts = {
            (task, part): DocumentSet(tuple(range(size)), (2, size) if part == "search" else (size,))
            for task in "tu"
            for part, size in (("search", half), ("holdout", len(candidates[0][2]) // 2))
        }
        if self.spec.evaluation.proxy is not None:
            parts["proxy", "search"] = DocumentSet((0, 1), (2, 2))
        setup = {"fingerprints": fingerprints(self.spec), "layer_count": LAYERS}
        self.study = store.studies.create("test", self.spec.to_json(), "d", setup, parts)  # type: ignore[arg-type]
        self.lead = leading(store, self.study.id)
        self.recipes = {self._add(number).to_json(): number for number in range(len(candidates))}
        self._run()
        for number in range(len(candidates)):
            self._tell(number)

    def scores(self, number: int, part: Part) -> tuple[TaskScore, ...]:
        _, searched, held = self.candidates[number]
        items = searched if part == "search" else held
        half = len(items) // 2
        return task_score("t", range(half), items[:half]), task_score("u", range(half), items[half:])

    def verdict(self) -> Verdict:
        trials = self.store.trials.all(self.study.id)
        while isinstance(found := find_finalists(self.store, self.study, trials, ("a", "b", "c")), Unmeasured):
            self._run()
        return reach_verdict(self.store, self.study, found, dict.fromkeys("tu", AGGREGATIONS["t"]), trials)

    def _add(self, number: int) -> Recipe:
        weights = {"a": number / 10, "b": 0.1, "c": 0.2}
        recipe = space_of().uniform("task_arithmetic", weights, {})
        new = NewTrial(number, self.candidates[number][0], None, recipe, f"recipe-{number}", None, 1)
        self.store.trials.add(self.lead, new)
        return recipe

    def _run(self) -> None:
        dispatcher = InlineDispatcher(self.store, lambda recipe, wanted: self._scored(recipe, wanted.part))
        dispatcher.announce(self.store.evaluations.unfinished(self.study.id))
        while self.store.evaluations.unfinished(self.study.id):
            dispatcher.wait(0)

    def _scored(self, recipe: Recipe, part: Part) -> Scored:
        found = self.scores(self.recipes[recipe.to_json()], part)
        return Scored(scores=found, tokens=1, build_seconds=0.0, score_seconds=0.0, device="cpu")

    def _tell(self, number: int) -> None:
        value = sum(s.value for s in self.scores(number, "search")) / 2
        constraints = (self.broken[number],) if number in self.broken else None
        self.store.trials.tell(self.lead, number, "complete", value, constraints=constraints)


def right(share: float, documents: int = 20) -> list[float]:
    """So many documents right, in both tasks alike."""
    half = documents // 2
    return [float(i < share * half) for i in range(half)] * 2


def test_the_winner_s_shrinkage_and_what_was_to_be_expected(store: Store) -> None:
    rng = np.random.default_rng(2)
    alike = [("tpe", (rng.random(20) < 0.5).astype(float).tolist(), right(0.5)) for _ in range(12)]
    verdict = Staged(store, [("expert:a", right(0.2), right(0.2)), *alike]).verdict()
    winner = verdict.of(verdict.winner)
    assert winner.shrinkage == pytest.approx(winner.search - 0.5) and winner.search > 0.6
    assert verdict.candidates == 13 and verdict.optimism is not None and verdict.optimism > 0.05
    assert verdict.corrected == pytest.approx(winner.search - verdict.optimism)
    assert abs(winner.search - verdict.optimism - 0.5) < abs(winner.search - 0.5)
    expert = verdict.finalists[0].winner_minus_this
    assert expert is not None and expert.mcnemar is not None and expert.wilcoxon is not None
    assert verdict.measured_as is None and verdict.front == () and verdict.proxy is None


def test_every_reading_of_the_holdout_counts_once(store: Store) -> None:
    staged = Staged(store, [("expert:a", right(0.2), right(0.2)), ("tpe", right(0.5), right(0.4))])
    assert staged.verdict().holdout_reads == 1, "a study of before, of which none was written down"
    for trials in (2, 2, 5):
        store.studies.read_holdout(staged.lead, trials)
    assert staged.verdict().holdout_reads == 2


def test_the_winner_is_the_best_of_those_that_meet_the_constraints(store: Store) -> None:
    constraints = [{"negative_flips": 0.1, "against": "a"}]
    candidates = [
        ("expert:a", right(0.4), right(0.5)),
        ("tpe", right(0.4)[::-1], right(0.9)),  # loses what a has right
        ("tpe", right(0.6), right(0.5)[::-1]),
    ]
    verdict = Staged(store, candidates, {0: -0.1, 1: 0.3, 2: -0.1}, constraints=constraints).verdict()
    assert verdict.winner == 2 and verdict.candidates == 2
    (kept,) = verdict.constraints
    assert kept.search == pytest.approx(-0.1) and kept.holdout == pytest.approx(0.5 - 0.1)
    assert kept.constraint == "at most 0.1 of the documents lost that a has right"


def test_a_winner_called_as_the_reference_is_is_not_taken_for_it(store: Store) -> None:
    constraints = [{"negative_flips": 0.1, "against": "a"}]
    candidates = [("expert:a", right(0.4), right(0.5)), ("a", right(0.6), right(0.5)[::-1])]
    (kept,) = Staged(store, candidates, {0: -0.1, 1: -0.1}, constraints=constraints).verdict().constraints
    assert kept.holdout == pytest.approx(0.5 - 0.1)


def test_the_best_expert_is_the_first_of_all_trials_ranking(store: Store) -> None:
    """By ranks, who is better of two can depend on who else is there."""

    def both(t: float, u: float) -> list[float]:
        return [*right(t)[:10], *right(u)[:10]]

    candidates = [("expert:b", both(0.4, 0.6), right(0.5)), ("expert:a", both(0.9, 0.5), right(0.5))]
    verdict = Staged(store, [*candidates, ("tpe", both(0.5, 0.2), right(0.5))], objective="borda").verdict()
    assert verdict.winner == verdict.best_expert == 1


class Proxied(Staged):
    """The trials have a proxy's value too, of which less is better."""

    proxies = (5.0, 1.0, 2.0, 3.0)

    def _scored(self, recipe: Recipe, part: Part) -> Scored:
        found = super()._scored(recipe, part)
        if part == "holdout":
            return found
        low = task_score("proxy", range(2), [self.proxies[self.recipes[recipe.to_json()]]] * 2)
        return found.model_copy(update={"scores": (*found.scores, low.model_copy(update={"higher_is_better": False}))})


@pytest.mark.parametrize("objective", ["mean", "borda"])
def test_a_proxy_that_agrees_correlates_positively_though_less_of_it_is_better(store: Store, objective: str) -> None:
    candidates = [
        (origin, right(share), right(0.5)) for origin, share in zip(ORIGINS, (0.1, 0.8, 0.6, 0.4), strict=True)
    ]
    evaluation = {"tasks": [{"name": "t"}, {"name": "u"}], "proxy": {"kind": "entropy"}}
    proxy = Proxied(store, candidates, evaluation=evaluation, objective=objective).verdict().proxy
    assert proxy is not None and proxy.trials == 4 and proxy.correlation == pytest.approx(1.0)


def test_pareto_s_winner_is_the_knee_and_its_figures_are_of_the_mean(store: Store) -> None:
    def both(t: float, u: float) -> list[float]:
        return [*right(t)[:10], *right(u)[:10]]

    candidates = [("expert:a", both(0.9, 0.0), right(0.5)), ("expert:b", both(0.0, 1.0), right(0.5))]
    candidates += [("tpe", both(0.8, 0.8), right(0.7)), ("tpe", both(0.3, 0.3), right(0.5))]
    verdict = Staged(store, candidates, objective="pareto").verdict()
    assert verdict.winner == 2 and [point.trial for point in verdict.front] == [2, 0, 1]
    assert verdict.front[0].tasks == {"t": 0.8, "u": 0.8}
    assert verdict.objective == "pareto" and verdict.measured_as == "the weighted mean of the tasks"
    assert verdict.of(2).search == pytest.approx(0.8) and verdict.of(2).holdout == pytest.approx(0.7)
    assert verdict.optimism is None and verdict.corrected is None


def test_a_normalised_mean_has_the_same_scale_on_the_holdout(store: Store) -> None:
    candidates = [("base", right(0.2), right(0.3)), ("expert:a", right(0.6), right(0.5))]
    candidates += [("expert:b", right(0.4), right(0.5)), ("expert:c", right(0.4), right(0.5))]
    verdict = Staged(store, [*candidates, ("tpe", right(0.8), right(0.6))], objective="normalized_mean").verdict()
    winner = verdict.of(4)
    assert winner.search == pytest.approx(1.5) and winner.holdout == pytest.approx(1.0)


def test_documents_are_counted_up_to_the_rung_each_recipe_came_to() -> None:
    documents = {
        ("t", "search"): DocumentSet(tuple(range(100)), (10, 30, 100)),
        ("u", "search"): DocumentSet(tuple(range(50)), (5, 20, 50)),
        ("proxy", "search"): DocumentSet(tuple(range(40)), (40, 40, 40)),
        ("t", "holdout"): DocumentSet(tuple(range(70)), (70,)),
    }
    start = Trial(0, "expert:a", None, 1, "complete", 0.5, None, 1, 0.0, 1.0, rung=2)
    copy, stopped = replace(start, number=1), replace(start, number=2, evaluation_id=2, state="pruned", rung=0)
    later, broken = replace(stopped, evaluation_id=3, rung=1), replace(start, evaluation_id=None, state="infeasible")
    found = documents_spent([start, copy, stopped, later, broken], documents)  # type: ignore[arg-type]
    assert found == (150 + 15 + 50, 3 * 150)


def test_a_verdict_of_before_is_read_as_it_was() -> None:
    old = json.loads((Path(__file__).parent / "verdict_v1.json").read_text())
    verdict = Verdict.model_validate(old)
    assert verdict.holdout_reads == 1 and verdict.optimism is None and verdict.of(verdict.winner).shrinkage is None
    dumped = verdict.model_dump(mode="json", by_alias=True)
    assert {key: dumped[key] for key in old if key != "finalists"} == {k: v for k, v in old.items() if k != "finalists"}
