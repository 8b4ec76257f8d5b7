"""At the end of a search the winner is scored with parts changed: what that costs, and that it changes nothing else."""

from statistics import fmean
from typing import Any

import pytest

import search.explain.explaining
from db.records import Study, Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from evaluation.statistics import Aggregation
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.appraisal import reach_verdict
from search.controller import Search
from search.course import Course
from search.dispatch import InlineDispatcher
from search.explain.record import Explanation
from search.opening import open_search
from search.ranked import ranked
from search.searchspec import Prune
from search.space import space_of
from search.study import StudySpec
from search.verdict import Verdict
from tests.search.factories import Measured, answers, create, create_race, leading, make_spec, scored

MEAN = {"t": Aggregation("mean", lambda items: sum(items) / len(items))}
EXPLAINED = {"trials": 20, "explain": True}


class Killed(Exception):
    """The test's own interruption."""


def quality(recipe: Recipe) -> float:
    """Expert a decides, b helps a little, c does nothing; layers alike are as good."""
    layers = [(0.7 - group.weights["a"], 0.5 - group.weights["b"]) for group in recipe.groups]
    return 0.9 - fmean(0.8 * abs(a) + 0.1 * abs(b) for a, b in layers)


class Deed:
    """One study taken to its verdict in this process, and what was scored on the way."""

    def __init__(self, store: Store, spec: StudySpec, study: Study, evaluate: Measured) -> None:
        self.store, self.spec, self.study = store, spec, study
        self.scored: list[tuple[str, int]] = []  # part and documents, in order
        self.phases: list[str] = []
        self._evaluate = evaluate

    def run(self) -> Verdict:
        space = space_of(self.study)
        dispatcher = InlineDispatcher(self.store, self._evaluated)
        found = Search(self.study, self.spec, 1, space, *open_search(self.spec, space), lambda told: None)
        lead = leading(self.store, self.study.id)
        end = Course(found, lead, self.store, dispatcher.announce, self.phases.append).run(dispatcher)
        return reach_verdict(self.store, self.study, end.finalists, MEAN, end.trials)

    def _evaluated(self, recipe: Recipe, wanted: Wanted) -> Scored | Infeasible | Failed:
        self.scored.append((wanted.part, sum(map(len, wanted.documents.values()))))
        return self._evaluate(recipe, wanted)

    @property
    def trials(self) -> tuple[Trial, ...]:
        return self.store.trials.all(self.study.id)

    def items(self, digest: str, rung: int) -> dict[int, float]:
        found = self.store.evaluations.find(self.study.id, digest, "search", rung)
        assert found is not None and isinstance(found.outcome, Scored)
        return dict(zip(found.outcome.scores[0].documents, found.outcome.scores[0].items, strict=True))


def deed(store: Store, evaluate: Measured | None = None, *, documents: int = 240, **sections: Any) -> Deed:
    spec = make_spec(**{**sections, "search": EXPLAINED | sections.get("search", {})})
    return Deed(store, spec, create_race(store, spec, documents), evaluate or answers(quality))


def told(verdict: Verdict) -> Explanation:
    assert verdict.explanation is not None
    return verdict.explanation


def test_who_matters_costs_what_its_documents_show_and_who_does_nothing_costs_nothing(store: Store) -> None:
    one = deed(store)
    verdict = one.run()
    found = told(verdict)
    assert found.trial == verdict.winner and found.documents == 160
    by = {a.expert or a.change: a for a in found.ablations}
    assert set(by) == {"a", "b", "c", "rounded"}, "one group has nothing to flatten"
    order = one.store.studies.documents(one.study.id)["t", "search"]
    rung = order.sizes.index(160)
    best = one.items(verdict.of(verdict.winner).recipe_digest, len(order.sizes) - 1)
    here = [best[i] for i in order.at(rung)]
    assert found.score == pytest.approx(fmean(here))
    for ablation in found.ablations:
        theirs = one.items(ablation.recipe_digest, rung)
        assert tuple(theirs) == order.at(rung), "the same documents"
        assert ablation.score == pytest.approx(fmean(theirs.values()))
        assert ablation.difference == pytest.approx(fmean(here) - fmean(theirs.values()))
        assert ablation.tasks == {"t": pytest.approx(ablation.difference)}
        assert ablation.low is not None and ablation.high is not None and ablation.difference is not None
        assert ablation.low <= ablation.difference <= ablation.high
    assert by["a"].shows and (by["a"].low or 0.0) > 0.2
    assert not by["c"].shows and (by["c"].low or 0.0) <= 0 <= (by["c"].high or 0.0)
    assert not by["rounded"].shows
    assert Verdict.model_validate(verdict.model_dump(mode="json", by_alias=True)) == verdict


def test_what_is_scored_for_it_is_bounded_and_no_trial(store: Store) -> None:
    plain, explained = (deed(store, name=name, search={"explain": on}) for name, on in (("off", False), ("on", True)))
    without, verdict = plain.run(), explained.run()
    assert without.explanation is None and "explaining" not in plain.phases
    assert explained.phases == [*plain.phases[:-2], "explaining", *plain.phases[-2:]]
    extra = len(explained.scored) - len(plain.scored)
    assert extra == len(told(verdict).ablations) <= 3 + 2
    before = len([part for part, _ in plain.scored if part == "search"])
    assert explained.scored[:before] == plain.scored[:before], "the search is the same"
    assert explained.scored[before : before + extra] == [("search", 160)] * extra
    assert [(t.origin, t.params, t.value, t.estimate, t.state) for t in explained.trials] == [
        (t.origin, t.params, t.value, t.estimate, t.state) for t in plain.trials
    ]
    assert verdict.model_copy(update={"explanation": None}) == without


def test_layers_of_their_own_are_compared_with_all_alike(store: Store) -> None:
    def later(recipe: Recipe) -> float:
        """Expert a is wanted in the later layers alone."""
        return 0.9 - 0.5 * fmean(abs(g.weights["a"] - (0.0 if g.layers[0] < 2 else 1.0)) for g in recipe.groups)

    search = {"trials": 60, "strategy": "tpe"}
    bounds = {"task_arithmetic.weight": [0.0, 1.0]}
    verdict = deed(store, answers(later), search=search, space={"layers": 2, "bounds": bounds}).run()
    flat = next(a for a in told(verdict).ablations if a.change == "flat")
    assert flat.shows and (flat.low or 0.0) > 0
    importance = told(verdict).importance
    assert importance is not None and 20 <= importance.trials <= 60
    assert max(importance.experts, key=lambda name: importance.experts[name]) == "a"
    assert set(importance.places) == {"layers0-1", "layers2-3"}


def test_a_baseline_that_wins_speaks_for_itself(store: Store) -> None:
    one = deed(store, answers(lambda recipe: 0.9 if recipe.groups[0].weights == {"a": 1, "b": 0, "c": 0} else 0.2))
    verdict = one.run()
    assert verdict.of(verdict.winner).label == "expert:a" and "explaining" not in one.phases
    assert verdict.explanation is None or verdict.explanation.ablations == ()


@pytest.mark.parametrize("prune", ["off", "halving", "one_shot"])
def test_it_takes_a_rung_of_few_documents_whatever_the_race(store: Store, prune: Prune) -> None:
    one = deed(store, documents=400, search={"prune": prune})
    verdict = one.run()
    sizes = one.store.studies.documents(one.study.id)["t", "search"].sizes
    assert told(verdict).documents == (40 if prune == "one_shot" else 160) in sizes
    if prune == "off":
        assert sizes == (160, 400) and {t.rung for t in one.trials} == {1}
        assert {t.state for t in one.trials} == {"complete"}


def test_a_study_of_before_with_one_large_rung_has_no_documents_few_enough(store: Store) -> None:
    spec = make_spec(search=EXPLAINED | {"prune": "off"})
    made = create_race(store, spec)
    sets = dict(store.studies.documents(made.id))
    sets["t", "search"] = type(sets["t", "search"]).whole(sets["t", "search"].ids, "d")
    study = store.studies.create("before", spec.to_json(), "d", {**made.setup, "rungs": [400]}, sets)
    one = Deed(store, spec, study, answers(quality))
    verdict = one.run()
    assert "explaining" not in one.phases
    assert verdict.explanation is None or not verdict.explanation.ablations


def test_a_small_study_compares_on_all_its_documents(store: Store) -> None:
    spec = make_spec(search=EXPLAINED)
    small = Deed(store, spec, create(store, spec), lambda recipe, wanted: alike(wanted, quality(recipe)))
    assert told(small.run()).documents == 8


def alike(wanted: Wanted, value: float) -> Scored:
    """The same for each document."""
    (documents,) = wanted.documents.values()
    score = scored(value).scores[0].model_copy(update={"documents": documents, "items": (value,) * len(documents)})
    return scored(value).model_copy(update={"scores": (score,)})


def test_a_change_that_cannot_be_built_is_said_to_be_so(store: Store) -> None:
    formula = answers(quality)

    def shaky(recipe: Recipe, wanted: Wanted) -> Scored | Infeasible | Failed:
        if recipe.groups[0].weights["b"] == 0.0 and recipe.groups[0].weights["a"] not in (0.0, 1.0):
            return Infeasible(why="NaN in layer 3")
        return formula(recipe, wanted)

    found = {a.expert: a for a in told(deed(store, shaky).run()).ablations}
    assert found["b"].why == "NaN in layer 3" and found["b"].difference is None and not found["b"].shows
    assert found["a"].shows


def test_a_winner_that_gives_way_on_the_holdout_leaves_no_explanation_of_another(store: Store) -> None:
    formula, broken = answers(quality), set[str]()

    def shaky(recipe: Recipe, wanted: Wanted) -> Scored | Infeasible | Failed:
        alone = sum(weight != 0 for weight in recipe.groups[0].weights.values()) == 1
        if wanted.part == "holdout" and not alone and len(set(recipe.groups[0].weights.values())) > 1 and not broken:
            broken.add(recipe.to_json())
        if wanted.part == "holdout" and recipe.to_json() in broken:
            return Infeasible(why="NaN")
        return formula(recipe, wanted)

    one = deed(store, shaky)
    verdict = one.run()
    first = ranked(one.store, one.study, one.trials)[0]
    assert verdict.winner != first.number and "explaining" in one.phases
    assert verdict.explanation is None or not verdict.explanation.ablations


def test_a_controller_killed_at_each_step_of_it_scores_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = deed(store, name="whole")
    expected = undisturbed.run()
    one = deed(store, name="killed")
    passes = [Killed, None, Killed]  # before anything is wanted, and once all is scored

    def die(point: str) -> None:
        if point == "controller.explaining" and passes and (error := passes.pop(0)) is not None:
            raise error

    monkeypatch.setattr(search.explain.explaining, "fault_point", die)
    for _ in range(2):
        with pytest.raises(Killed):
            one.run()
    verdict = one.run()
    assert verdict.explanation == expected.explanation and len(told(verdict).ablations) == 4
    assert sorted(one.scored) == sorted(undisturbed.scored)


def test_one_killed_while_they_are_scored_goes_on_with_the_rest(store: Store) -> None:
    expected = deed(store, name="whole").run()
    formula, left = answers(quality), [2]

    def dying(recipe: Recipe, wanted: Wanted) -> Scored | Infeasible | Failed:
        if wanted.part == "search" and "explaining" in one.phases:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        return formula(recipe, wanted)

    one = deed(store, dying, name="killed")
    with pytest.raises(Killed):
        one.run()
    store.evaluations.release_all(one.study.id)
    assert one.run().explanation == expected.explanation
    assert len(one.trials) == 20


def test_the_switch_may_change_while_a_study_lives(store: Store) -> None:
    on, off = (make_spec(search={"explain": explain}) for explain in (True, False))
    assert on.frozen_digest() == off.frozen_digest() and make_spec().frozen_digest() == on.frozen_digest()
    one = deed(store, search={"explain": False})
    assert one.run().explanation is None
    more = make_spec(search=EXPLAINED | {"trials": 24})
    store.studies.reopen(one.study.id, more.to_json())
    again = Deed(store, more, store.studies.by_id(one.study.id), answers(quality))
    verdict = again.run()
    assert told(verdict).ablations and len(again.trials) == 24 and verdict.holdout_reads == 2


def test_a_search_that_goes_on_is_told_nothing_of_what_explained_it(store: Store) -> None:
    ends = []
    for explain in (False, True):
        search = {"strategy": "cmaes", "explain": explain}
        one = deed(store, name=f"study-{explain}", search=search)
        assert (one.run().explanation is not None) == explain == ("explaining" in one.phases)
        more = make_spec(name=one.study.name, search=EXPLAINED | search | {"trials": 30})
        store.studies.reopen(one.study.id, more.to_json())
        again = Deed(store, more, store.studies.by_id(one.study.id), answers(quality))
        again.run()
        ends.append([(t.origin, t.params, t.value, t.estimate, t.told_order) for t in again.trials])
    assert len(ends[0]) == 30 and ends[0] == ends[1]
