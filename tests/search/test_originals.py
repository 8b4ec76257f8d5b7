"""Where experts are kept compressed, the best recipes are scored once more with the experts as they are."""

from typing import Any

import pytest

import search.originals
from db.records import Study, Trial
from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from evaluation.statistics import Aggregation
from evaluation.wanted import Wanted
from merging.compression import Compression
from merging.recipe import Recipe
from search.appraisal import reach_verdict
from search.controller import Search
from search.course import Course, Finished
from search.dispatch import InlineDispatcher
from search.opening import open_search
from search.originals import LOOKED_AT, MOST
from search.space import space_of
from search.strategies.contract import Observation
from search.study import StudySpec
from search.twins import is_twin, searched, twins
from search.verdict import Verdict
from tests.search.factories import Measured, answers, bowl, create_race, leading, make_spec

PACKED = {
    "by": Compression(codec="bitdelta").checked("compress").model_dump(),
    "bytes": 300,
    "whole_bytes": 400,
    "bits_per_parameter": 1.5,
    "fingerprints": {},
}
BEST = {"a": 0.7, "b": 0.2, "c": 0.4}


def quality(recipe: Recipe, cost: float) -> float:
    """Of compressed experts, lower by `cost`."""
    return max(0.0, 0.9 + 0.8 * bowl(recipe, BEST) - (cost if recipe.compress else 0.0))


def measured(cost: float) -> Measured:
    return answers(lambda recipe: quality(recipe, cost))


def study_of(store: Store, spec: StudySpec) -> Study:
    """The row of a study that keeps its experts compressed, whatever its file says of memory."""
    made = create_race(store, spec)
    sets = store.studies.documents(made.id)
    return store.studies.create("packed", made.spec, "d", {**made.setup, "compressed": PACKED}, sets)


def course(store: Store, study: Study, spec: StudySpec, evaluate: Measured) -> tuple[Course, InlineDispatcher]:
    space = space_of(study)
    dispatcher = InlineDispatcher(store, evaluate)
    found = Search(study, spec, 1, space, *open_search(spec, space), lambda told: None)
    return Course(found, leading(store, study.id), store, dispatcher.announce), dispatcher


def finished(store: Store, evaluate: Measured, **sections: Any) -> tuple[Study, Finished, Verdict]:
    spec = make_spec(**sections)
    study = study_of(store, spec)
    led, dispatcher = course(store, study, spec, evaluate)
    end = led.run(dispatcher)
    mean = {"t": Aggregation("mean", lambda items: sum(items) / len(items))}
    return study, end, reach_verdict(store, study, end.finalists, mean, end.trials)


def recipe(store: Store, trial: Trial) -> Recipe:
    assert trial.evaluation_id is not None
    return store.evaluations.recipe(trial.evaluation_id)


def test_baselines_are_of_the_experts_as_they_are_and_candidates_of_compressed_ones(store: Store) -> None:
    _, end, _ = finished(store, measured(0.1))
    baselines = [t for t in end.trials if t.origin.startswith("expert:") or t.origin == "uniform_soup"]
    assert len(baselines) == 4 and all(recipe(store, t).compress is None for t in baselines)
    others = [t for t in searched(end.trials) if t not in baselines]
    assert others and all(recipe(store, t).compress is not None for t in others)


def test_a_strategy_learns_of_compressed_experts_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec(search={"strategy": "cmaes", "trials": 20})
    study = study_of(store, spec)
    space = space_of(study)
    begin, strategy = open_search(spec, space)
    seen: list[Observation] = []
    observe = strategy.observe

    def noted(told: Observation) -> None:
        seen.append(told)
        observe(told)

    monkeypatch.setattr(strategy, "observe", noted)
    dispatcher = InlineDispatcher(store, measured(0.3))
    found = Search(study, spec, 1, space, begin, strategy, lambda told: None)
    Course(found, leading(store, study.id), store, dispatcher.announce).run(dispatcher)
    points = [told for told in seen if told.params is not None]
    assert len(seen) == 20 and len(points) == 16
    assert all(told.recipe == space.decode(told.params) for told in points if told.params and told.recipe)


def test_the_best_are_scored_with_the_originals_and_the_verdict_says_what_compression_cost(store: Store) -> None:
    _, end, verdict = finished(store, measured(0.1), search={"trials": 30})
    made = twins(end.trials)
    assert len(made) == MOST and len(searched(end.trials)) == 30
    by_number = {t.number: t for t in end.trials}
    for number, twin in made.items():
        asked, own = recipe(store, by_number[number]), recipe(store, twin)
        assert own == asked.model_copy(update={"compress": None}) and twin.params is None
    packed = verdict.compressed
    assert packed is not None and packed.pair is not None and packed.holdout_cost is not None
    small, whole = packed.pair
    assert made[small].number == whole == verdict.winner, "nothing is better than the best without the loss"
    assert {small, whole} < {f.trial for f in verdict.finalists}
    assert packed.search_cost == verdict.of(whole).search - verdict.of(small).search > 0
    difference = verdict.of(whole).holdout - verdict.of(small).holdout
    assert abs(packed.holdout_cost.difference - difference) < 1e-12
    assert packed.holdout_cost.low <= difference <= packed.holdout_cost.high
    assert (packed.codec, packed.bytes_, packed.whole_bytes) == ("bitdelta", 300, 400)
    assert Verdict.model_validate(verdict.model_dump(mode="json", by_alias=True)) == verdict


def test_compressed_experts_win_where_they_are_better(store: Store) -> None:
    _, end, verdict = finished(store, measured(-0.1), search={"trials": 30})
    assert verdict.compressed is not None and verdict.compressed.pair is not None
    assert verdict.winner == verdict.compressed.pair[0] and recipe(store, end.finalists.winner).compress is not None
    assert verdict.compressed.search_cost is not None and verdict.compressed.search_cost < 0


def test_a_baseline_that_wins_stands_beside_the_best_pair(store: Store) -> None:
    def a_is_best(found: Recipe) -> float:
        return 0.95 if found.compress is None and found.groups[0].weights["a"] == 1.0 else 0.3

    _, _, verdict = finished(store, answers(a_is_best), search={"trials": 12})
    assert verdict.of(verdict.winner).label == "expert:a"
    assert verdict.compressed is not None and verdict.compressed.pair is not None
    assert set(verdict.compressed.pair) < {f.trial for f in verdict.finalists}


def test_originals_that_cannot_be_built_leave_the_compressed_ones(store: Store) -> None:
    formula = measured(0.1)

    def shaky(found: Recipe, wanted: Wanted) -> Scored | Infeasible | Failed:
        baseline = found.groups[0].weights in [{n: float(n == m) for n in "abc"} for m in "abc"]
        if found.compress is None and not baseline:
            return Infeasible(why="NaN")
        return formula(found, wanted)

    _, end, verdict = finished(store, shaky, search={"trials": 20})
    failed = [t for t in end.trials if is_twin(t)]
    assert len(failed) == min(LOOKED_AT, len(failed)) > 0 and {t.state for t in failed} == {"infeasible"}
    assert verdict.compressed is not None and verdict.compressed.pair is None
    assert {f"trial {t.number} ({t.origin})" for t in failed} <= set(verdict.missing), "with the reason"
    assert recipe(store, end.finalists.winner).compress is not None


def test_a_study_that_compresses_nothing_has_no_such_trials(store: Store) -> None:
    spec = make_spec()
    study = create_race(store, spec)
    led, dispatcher = course(store, study, spec, measured(0.1))
    end = led.run(dispatcher)
    assert not twins(end.trials) and not end.finalists.pair
    assert all(recipe(store, t).compress is None for t in end.trials)


def test_where_nothing_is_lost_the_search_is_what_it_is_without(store: Store) -> None:
    spec = make_spec(search={"strategy": "tpe", "trials": 25})
    exact = {**PACKED, "by": {"codec": "xor", "settings": {}}}
    made = create_race(store, spec)
    sets = store.studies.documents(made.id)
    packed = store.studies.create("packed", made.spec, "d", {**made.setup, "compressed": exact}, sets)
    bare = answers(lambda recipe: quality(recipe, 0.0))
    found = []
    for study in (made, packed):
        led, dispatcher = course(store, study, spec, lambda recipe, wanted: bare(_plain(recipe), wanted))
        end = led.run(dispatcher)
        found.append([(t.origin, t.state, t.value, t.params, t.estimate) for t in end.trials])
        assert not end.finalists.pair
    assert found[0] == found[1]


def _plain(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"compress": None})


def test_one_recipe_is_built_from_the_originals_once(store: Store) -> None:
    sections: dict[str, Any] = {"space": {"methods": ["layer_swap"]}, "search": {"trials": 16}}
    _, end, _ = finished(store, measured(0.1), **sections)
    made = [t.evaluation_id for t in twins(end.trials).values()]
    baselines = {t.evaluation_id for t in end.trials if t.origin.startswith("expert:")}
    assert len(made) == len(set(made)) and not baselines & set(made)


def test_a_pair_that_fails_on_the_holdout_gives_way_to_the_next(store: Store) -> None:
    formula, broken = measured(0.1), set[str]()

    def shaky(found: Recipe, wanted: Wanted) -> Scored | Infeasible | Failed:
        if wanted.part == "holdout" and found.compress is not None and len(broken) < 1:
            broken.add(found.to_json())
        if wanted.part == "holdout" and found.to_json() in broken:
            return Infeasible(why="NaN")
        return formula(found, wanted)

    _, _, verdict = finished(store, shaky, search={"trials": 30, "prune": "off"})
    assert verdict.compressed is not None and verdict.compressed.pair is not None
    assert "NaN" in verdict.missing.values() and len(broken) == 1


def test_another_controller_goes_on_where_one_was_killed(store: Store) -> None:
    spec = make_spec(search={"trials": 20, "prune": "off"})
    study = study_of(store, spec)
    led, dispatcher = course(store, study, spec, measured(0.1))
    while not twins(store.trials.all(study.id)):
        assert led.step() is None
        dispatcher.wait(0)
    begun = store.trials.all(study.id)
    again, other = course(store, study, spec, measured(0.1))
    end = again.run(other)
    assert len(twins(end.trials)) == MOST and {t.number for t in begun} <= {t.number for t in end.trials}
    assert all(t.state == "complete" for t in twins(end.trials).values())


@pytest.mark.parametrize("after", range(MOST))
def test_a_controller_that_dies_among_them_adds_each_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    spec = make_spec(search={"trials": 20, "prune": "off"})
    study = study_of(store, spec)
    left = [after]

    def dies(name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(search.originals, "fault_point", dies)
    led, dispatcher = course(store, study, spec, measured(0.1))
    with pytest.raises(KeyboardInterrupt):
        led.run(dispatcher)
    assert len(twins(store.trials.all(study.id))) == after
    monkeypatch.undo()
    led, dispatcher = course(store, study, spec, measured(0.1))
    end = led.run(dispatcher)
    origins = [t.origin for t in end.trials if is_twin(t)]
    assert len(origins) == len(set(origins)) == MOST and len(end.finalists.pair) == 2


def test_more_trials_go_on_from_the_search_and_not_from_its_twins(store: Store) -> None:
    spec = make_spec(search={"trials": 20})
    study = study_of(store, spec)
    led, dispatcher = course(store, study, spec, measured(0.1))
    first = led.run(dispatcher)
    more = make_spec(search={"trials": 30})
    led, dispatcher = course(store, study, more, measured(0.1))
    end = led.run(dispatcher)
    assert len(searched(first.trials)) == 20 and len(searched(end.trials)) == 30
    assert [t.number for t in end.trials] == list(range(len(end.trials)))
    best = max(searched(end.trials), key=lambda t: (t.value or 0.0) * bool(recipe(store, t).compress))
    assert best.number in twins(end.trials)


def test_a_greedy_soup_begins_with_the_best_expert_as_it_is_kept(store: Store) -> None:
    _, end, verdict = finished(store, measured(0.2), search={"strategy": "greedy_soup", "trials": 20})
    soups = [t for t in searched(end.trials) if t.origin.startswith("greedy_soup:")]
    assert sorted(recipe(store, soups[0]).groups[0].weights.values()) == [0.0, 0.0, 1.0]
    assert len(soups) > 2, "compared with the expert as it was, every soup would be worse"
    assert verdict.exhausted
