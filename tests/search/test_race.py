"""The search with rungs, from the first trial to the finalists: who is stopped, what is told, what a restart does."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import search.controller
import search.course
import search.rescoring
from db.records import Study, Trial
from db.store import Store, open_home
from evaluation.result import Failed, Scored
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.controller import Controller, Search, Told
from search.course import Course, Finished
from search.dispatch import InlineDispatcher
from search.mirror import Mirror, mirror_url
from search.opening import open_search
from search.racing.rungs import plan_rungs
from search.references import SearchFailed
from search.searchspec import Prune
from search.space import make_space
from search.strategies.contract import Observation, Strategy
from search.study import StudySpec
from tests.search.factories import LAYERS, Measured, Outcome, answers, bowl, create_race, leading, make_spec

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}
RACES: tuple[Prune, ...] = ("paired_test", "halving", "hyperband", "one_shot", "history")


class Killed(Exception):
    """The test's own interruption."""


def quality(recipe: Recipe) -> float:
    """Between 0 and 0.9, the nearer to the best weights the more."""
    return max(0.0, 0.9 + 0.8 * bowl(recipe, BEST))


def racing(prune: str | None = None, trials: int = 20, **sections: Any) -> StudySpec:
    """A study that races; `search` and other sections are added."""
    begun = {"strategy": "random", "trials": trials, "prune": prune} | sections.pop("search", {})
    return make_spec(search=begun, **sections)


def opened(spec: StudySpec, store: Store, on_told: Callable[[Told], None] = lambda told: None) -> Search:
    study = store.studies.find(spec.name) or create_race(store, spec)
    space = make_space(spec, LAYERS)
    return Search(study, spec, spec.search.parallel, space, *open_search(spec, space), on_told)


def finish(found: Search, store: Store, evaluate: Measured | None = None) -> Finished:
    """Take a study to its finalists in this process."""
    dispatcher = InlineDispatcher(store, evaluate or answers(quality))
    return Course(found, leading(store, found.study.id), store, dispatcher.announce).run(dispatcher)


def run(spec: StudySpec, home: Path, evaluate: Measured | None = None) -> tuple[Store, Study, Finished]:
    """A study of its own, to its finalists."""
    store = open_home(home)
    found = opened(spec, store)
    return store, found.study, finish(found, store, evaluate)


def items(store: Store, trial: Trial) -> dict[int, float]:
    """What a trial's last evaluation found, by document."""
    outcome = store.evaluations.get(trial.evaluation_id or 0).outcome
    assert isinstance(outcome, Scored)
    return dict(zip(outcome.scores[0].documents, outcome.scores[0].items, strict=True))


def told(trials: tuple[Trial, ...]) -> list[tuple[object, ...]]:
    """All that is told of trials but the times."""
    return [(t.number, t.origin, t.params, t.state, t.value, t.steps, t.estimate, t.rung, t.told_order) for t in trials]


@pytest.mark.parametrize("prune", RACES)
def test_a_race_saves_documents_and_loses_no_trial(prune: Prune, tmp_path: Path) -> None:
    store, study, raced = run(racing(prune), tmp_path)
    rungs = plan_rungs(prune, 400, 1)
    trials = raced.trials
    assert [t.number for t in trials] == list(range(20)) == sorted((t.told_order or 0) - 1 for t in trials)
    assert sum(len(items(store, t)) for t in trials) < 0.7 * 400 * 20
    assert all(len(items(store, t)) == rungs[t.rung] for t in trials)
    for baseline in trials[:4]:
        assert (baseline.state, baseline.rung, baseline.steps) == ("complete", len(rungs) - 1, ())
    stopped = [t for t in trials if t.state == "pruned"]
    assert stopped and all(t.estimate is not None and t.value is None and t.why for t in stopped)
    best = raced.finalists.winner
    assert best.state == "complete" and best.value == max(t.value for t in trials if t.value is not None)
    assert store.studies.holdout_readings(study.id) == 1


def test_off_and_a_small_study_score_everything(tmp_path: Path) -> None:
    assert plan_rungs("paired_test", 119, 1) == (119,) and plan_rungs("off", 320, 1) == (320,)
    _, _, finished = run(racing("off", trials=8), tmp_path)
    assert {(t.state, t.rung, t.steps, t.estimate) for t in finished.trials} == {("complete", 1, (), None)}


def test_what_is_told_of_a_stopped_trial_is_corrected_by_the_best_of_then(tmp_path: Path) -> None:
    store, study, finished = run(racing("halving", trials=12), tmp_path)
    order = store.studies.documents(study.id)["t", "search"]
    for stopped in (t for t in finished.trials if t.state == "pruned"):
        before = [t for t in finished.trials if t.value is not None and (t.told_order or 0) < (stopped.told_order or 0)]
        best = max(before, key=lambda t: (t.value or 0.0, -t.number))
        shared, ours, theirs = order.at(stopped.rung), items(store, stopped), items(store, best)
        difference = fmean(ours[i] for i in shared) - fmean(theirs[i] for i in shared)
        assert stopped.estimate == pytest.approx((best.value or 0.0) + difference, abs=1e-12)
        assert stopped.steps[-1].value == pytest.approx(fmean(ours.values()))


def test_killed_anywhere_it_goes_on_as_if_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = racing("halving", trials=12, search={"strategy": "tpe"})
    _, _, undisturbed = run(spec, tmp_path / "one")
    points = ("added", "announced", "telling", "told", "promoting", "promoted")
    ahead = [f"controller.{point}" for point in (*points, "replayed", *reversed(points), "holdout")]

    def die(point: str) -> None:
        if ahead and point == ahead[0]:
            ahead.pop(0)
            raise Killed

    for module in (search.controller, search.course, search.rescoring):
        monkeypatch.setattr(module, "fault_point", die)
    store, deaths = open_home(tmp_path / "two"), 0
    while True:
        try:
            finished = finish(opened(spec, store), store)
            break
        except Killed:
            deaths += 1
    assert deaths == 14 and not ahead and told(finished.trials) == told(undisturbed.trials)
    assert finished.finalists.winner.number == undisturbed.finalists.winner.number


class Noting:
    """A strategy that remembers what it was told."""

    def __init__(self, inner: Strategy) -> None:
        self.propose, self.reserve, self._inner = inner.propose, inner.reserve, inner
        self.told: list[Observation] = []

    def observe(self, observation: Observation) -> None:
        """As the strategy's."""
        self.told.append(observation)
        self._inner.observe(observation)


def noting(found: Search) -> tuple[Search, Noting]:
    """The same search, its strategy listened to."""
    strategy = Noting(found.strategy)
    return Search(found.study, found.spec, found.parallel, found.space, found.starts, strategy, found.on_told), strategy


def test_the_best_of_those_stopped_are_scored_in_full_and_the_strategy_hears_what_it_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, deaths = open_home(tmp_path), 0
    spec = racing("one_shot", trials=24)
    found, before = noting(opened(spec, store))

    def die(point: str) -> None:
        nonlocal deaths
        deaths += 1
        if deaths == 4:
            raise Killed

    monkeypatch.setattr(search.rescoring, "fault_point", die)
    with pytest.raises(Killed):
        finish(found, store)
    finished = finish(opened(spec, store), store)
    rescored = [t for t in finished.trials if t.estimate is not None and t.state == "complete"]
    stopped = [t for t in finished.trials if t.state == "pruned"]
    assert len(rescored) == 8 and len(stopped) == 12, "an eighth, or eight"
    assert min(t.estimate or 0 for t in rescored) >= max(t.estimate or 0 for t in stopped)
    assert all(len(items(store, t)) == 400 for t in rescored)
    assert finished.finalists.winner.value == max(t.value for t in finished.trials if t.value is not None)
    again, after = noting(opened(spec, store))
    Controller(again, leading(store, again.study.id), store, lambda ids: None)
    assert after.told == before.told and sum(o.pruned for o in after.told) == 20
    assert all(o.value is not None for o in after.told)
    phases = [e.data["phase"] for e in store.events.after(found.study.id, 0) if e.kind == "study.phase"]
    assert phases[:2] == ["searching", "rescoring"] and phases[-2:] == ["holdout", "judging"]


def test_a_study_with_more_trials_goes_on_where_it_ended(tmp_path: Path) -> None:
    store, study, first = run(racing("one_shot", trials=13), tmp_path)
    more = racing("one_shot", trials=17)
    store.studies.reopen(study.id, more.to_json())
    second = finish(opened(more, store), store)
    assert [t.params for t in second.trials[:13]] == [t.params for t in first.trials]
    assert len(second.trials) == 17 and {t.state for t in second.trials} == {"complete", "pruned"}
    rescored = [[t.number for t in ended.trials if t.estimate and t.value is not None] for ended in (first, second)]
    assert rescored[0] and set(rescored[0]) <= set(rescored[1])
    assert store.studies.holdout_readings(study.id) == 2


def test_who_cannot_be_scored_in_full_stays_stopped(tmp_path: Path) -> None:
    def short_of_memory(recipe: Recipe, wanted: Wanted) -> Outcome:
        if len(wanted.documents["t"]) == 400 and max(recipe.groups[0].weights.values()) not in (1.0, 1 / 3):
            return Failed(why="no memory")
        return answers(quality)(recipe, wanted)

    _, _, finished = run(racing("one_shot", trials=10), tmp_path, short_of_memory)
    assert [t.state for t in finished.trials] == ["complete"] * 4 + ["pruned"] * 6
    assert finished.finalists.winner.origin == "uniform_soup"


@pytest.mark.parametrize("parallel", [1, 3])
def test_what_scores_are_compared_with_is_scored_first(parallel: int, tmp_path: Path) -> None:
    limits = [{"negative_flips": 0.02, "against": "base"}, {"task": "t", "max": 0.6}, {"task": "t", "retain": 0.01}]
    spec = racing("paired_test", trials=12, search={"parallel": parallel}, constraints=limits)
    _, _, finished = run(spec, tmp_path)
    trials = finished.trials
    assert [t.origin for t in trials[:5]] == ["expert:a", "expert:b", "expert:c", "uniform_soup", "base"]
    assert all(t.constraints is not None and len(t.constraints) == 3 for t in trials)
    assert trials[4].constraints == pytest.approx((-0.02, (trials[4].value or 0) - 0.6, -0.01))
    meeting = [t.value or 0.0 for t in trials if t.state == "complete" and max(t.constraints or ()) <= 0]
    assert finished.finalists.winner.value == max(meeting) <= 0.6
    assert max(t.value or 0.0 for t in trials) > 0.6, "a better one does not keep to the constraint"
    assert trials[4] in finished.finalists.compared


def test_a_study_ends_where_its_reference_cannot_be_scored(tmp_path: Path) -> None:
    def no_base(recipe: Recipe, wanted: Wanted) -> Outcome:
        return answers(quality)(recipe, wanted) if any(recipe.groups[0].weights.values()) else Failed(why="no disk")

    spec = racing(objective="normalized_mean", trials=6)
    with pytest.raises(SearchFailed, match=r"base could not be scored.*no disk.*run the study again"):
        run(spec, tmp_path, no_base)
    store = open_home(tmp_path)
    store.evaluations.retry_failed(store.studies.get("test").id)
    trials = finish(opened(spec, store), store).trials
    assert {t.state for t in trials[:5]} == {"complete"} and len(trials) == 6, "nothing had been told"


def test_a_reference_that_was_called_off_is_not_waited_for(tmp_path: Path) -> None:
    store, spec = open_home(tmp_path), racing(objective="normalized_mean")
    found = opened(spec, store)
    Controller(found, leading(store, found.study.id), store, lambda ids: None).step()
    store.studies.cancel("test")
    store.studies.reopen(found.study.id, spec.to_json())
    with pytest.raises(SearchFailed, match=r"a could not be scored.*cancelled.*another name"):
        finish(opened(spec, store), store)


def test_nothing_is_proposed_blindly_while_a_reference_is_scored(tmp_path: Path) -> None:
    store = open_home(tmp_path)
    found = opened(racing(objective="normalized_mean", trials=40, search={"parallel": 2}), store)
    lead = leading(store, found.study.id)
    dispatcher = InlineDispatcher(store, answers(quality))

    def all_but_the_base(ids: Sequence[int]) -> None:
        dispatcher.announce([i for i in ids if i != 5])

    controller = Controller(found, lead, store, all_but_the_base)
    for _ in range(12):
        controller.step()
        dispatcher.wait(0)
    trials = store.trials.all(found.study.id)
    assert trials[4].origin == "base" and {t.state for t in trials} == {"open"}
    assert len(trials) == len(found.starts) == 5
    dispatcher.announce([5])
    while not controller.step():
        dispatcher.wait(0)
    assert len(store.trials.all(found.study.id)) == 40


def test_a_pareto_search_tells_the_strategy_one_number_a_task(tmp_path: Path) -> None:
    found, strategy = noting(
        opened(racing(trials=7, search={"strategy": "tpe"}, objective="pareto"), open_home(tmp_path))
    )
    finished = finish(found, open_home(tmp_path))
    assert all(t.state == "complete" and not t.steps for t in finished.trials)
    assert [o.values for o in strategy.told] == [(t.value,) for t in finished.trials]


def test_a_proxy_stops_the_worse_half_before_any_document_is_scored(tmp_path: Path) -> None:
    spec = racing("halving", trials=16, evaluation={"proxy": {"kind": "entropy"}})
    store, _, finished = run(spec, tmp_path)
    raced, firsts = finished.trials[4:], [t.steps[0] for t in finished.trials[4:]]
    assert all((s.rung, s.documents) == (0, 0) for s in firsts)
    by_proxy = [t for t in raced if t.state == "pruned" and t.rung == 0]
    assert 3 <= len(by_proxy) <= 9 and all("proxy: number" in (t.why or "") for t in by_proxy)
    assert all(t.estimate is not None and 0 < t.estimate < 1 for t in by_proxy)
    assert max(s.value for s in firsts) not in {t.steps[0].value for t in by_proxy}
    assert {t.rung for t in raced if t.state == "complete"} <= {4} and len(raced[0].steps) <= 4
    baseline = store.evaluations.get(finished.trials[0].evaluation_id or 0).outcome
    assert isinstance(baseline, Scored) and {s.task for s in baseline.scores} == {"t", "proxy"}


def test_the_dashboards_copy_shows_the_race(tmp_path: Path) -> None:
    store, warnings = open_home(tmp_path), list[str]()
    spec = racing("one_shot", trials=12, constraints=[{"task": "t", "max": 0.7}])
    found = opened(spec, store)
    url = mirror_url(store.url)
    mirror = Mirror(url, found.study, found.space, store, warnings.append)

    def follow(event: Told) -> None:
        mirror.sync()

    finished = finish(replace(found, on_told=follow), store)
    during = optuna.load_study(study_name="test", storage=url).trials
    assert [t.state for t in during] == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 8
    assert all(t.value == t.intermediate_values[40] and t.user_attrs["estimate"] for t in during[4:])
    beyond = [list(t.constraints or ()) for t in finished.trials[:4]]
    assert [t.system_attrs["constraints"] for t in during[:4]] == beyond
    mirror.finish()
    after = optuna.load_study(study_name="test", storage=url)
    reached = [t.steps[-1].value if t.value is None else t.value for t in finished.trials]
    assert [t.value for t in after.trials] == reached != [t.value for t in during]
    assert after.best_trial.number == finished.finalists.winner.number and not warnings
    mirror.close()


def test_the_dashboards_copy_of_a_pareto_search_has_one_objective_a_task(tmp_path: Path) -> None:
    store, warnings = open_home(tmp_path), list[str]()
    found = opened(racing(trials=5, objective="pareto"), store)
    mirror = Mirror(mirror_url(store.url), found.study, found.space, store, warnings.append)
    finished = finish(found, store)
    mirror.finish()
    mirror.close()
    copy = optuna.load_study(study_name="test", storage=mirror_url(store.url))
    assert copy.metric_names == ["t"] and [t.values for t in copy.trials] == [[t.value] for t in finished.trials]
    assert not warnings
