"""When a search ends: its budgets are kept to within a trial's cost, last over runs, and little to gain ends it."""

import math
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search.controller
from db.records import DocumentSet, Study, Trial
from db.store import Store, open_home
from evaluation.result import TaskScore
from evaluation.statistics import Measure
from evaluation.wanted import Wanted
from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.appraisal import documents_spent
from search.controller import Controller, Search, Told
from search.dispatch import InlineDispatcher
from search.opening import open_search
from search.searchspec import UNLIMITED
from search.space import make_space
from search.starts.start import Start
from search.stopping.clock import SAVED_EVERY, SearchClock
from search.stopping.ended import Ended
from search.stopping.enough import require_documents
from search.stopping.gain import Attempt, beyond, by_draws, by_records, surely_gains_less
from search.stopping.ledger import Ledger, ledger_of
from search.stopping.limits import Limits, Spent
from search.stopping.noise import Noise
from search.stopping.resuming import is_over
from search.study import StudySpec
from tests.search.factories import LAYERS, Outcome, answers, bowl, create_race, leading, make_spec

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}
WHOLE = 400
Clock = Callable[[], float]


class Killed(Exception):
    """The test's own interruption."""


class Time:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def quality(recipe: Recipe) -> float:
    return max(0.0, 0.9 + 0.8 * bowl(recipe, BEST))


def flat(recipe: Recipe) -> float:
    return 0.6


def limited(**keys: object) -> StudySpec:
    return make_spec(search={"strategy": "random", "parallel": 1, "seed": 3, **keys})


def without_trials(**keys: object) -> StudySpec:
    """The same without a number of trials."""
    found = limited(**keys)
    return found.model_copy(update={"search": found.search.model_copy(update={"trials": UNLIMITED})})


def opened(
    spec: StudySpec, store: Store, on_told: Callable[[Told], None] = lambda told: None, now: Clock = monotonic
) -> Search:
    study = store.studies.find(spec.name) or create_race(store, spec, WHOLE)
    space = make_space(spec, LAYERS)
    starts, strategy = open_search(spec, space, study.setup)
    return Search(study, spec, spec.search.parallel, space, starts, strategy, on_told, now=now)


def run(
    spec: StudySpec,
    store: Store,
    shape: Callable[[Recipe], float] = quality,
    spend: Callable[[], None] = lambda: None,
    on_told: Callable[[Told], None] = lambda told: None,
    now: Clock = monotonic,
) -> tuple[Study, tuple[Trial, ...]]:
    """A search to its end; the study and its trials then."""
    found = opened(spec, store, on_told, now)

    def evaluate(recipe: Recipe, wanted: Wanted) -> Outcome:
        spend()
        return answers(shape)(recipe, wanted)

    dispatcher = InlineDispatcher(store, evaluate)
    controller = Controller(found, leading(store, found.study.id), store, dispatcher.announce)
    while not controller.step():
        dispatcher.wait(0)
    return store.studies.by_id(found.study.id), store.trials.all(found.study.id)


def spent(store: Store, study: Study, trials: tuple[Trial, ...]) -> int:
    return documents_spent(trials, store.studies.documents(study.id))[0]


@pytest.mark.parametrize(("parallel", "prune"), [(1, "off"), (1, "halving"), (5, "halving"), (4, "off")])
@pytest.mark.parametrize("documents", [2000, 3333, 5010])
def test_the_budget_of_documents_is_kept_to_within_one_trials_cost(
    parallel: int, prune: str, documents: int, tmp_path: Path
) -> None:
    spec = without_trials(parallel=parallel, prune=prune, budget={"documents": documents})
    store = open_home(tmp_path)
    shares: list[float] = []
    study, trials = run(spec, store, on_told=lambda told: shares.append(told.share))
    assert documents <= spent(store, study, trials) <= documents + WHOLE
    assert all(t.state in ("complete", "pruned") for t in trials)
    ended = Ended.model_validate(study.ended)
    assert (ended.reason, ended.why) == ("documents", f"the budget of {documents:,} documents was used up")
    assert shares[-1] == 1.0 > shares[0]
    kinds = [e for e in store.events.after(study.id, 0) if e.kind == "search.ended"]
    assert [e.data["reason"] for e in kinds] == ["documents"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_trials_cost_the_budget_is_overrun_by_less_than_one(data: st.DataObject) -> None:
    sizes = tuple(sorted(data.draw(st.sets(st.integers(1, 500), min_size=1, max_size=5))))
    limit, parallel = data.draw(st.integers(1, 5000)), data.draw(st.integers(1, 8))
    ledger = Ledger({"t": DocumentSet(tuple(range(sizes[-1])), sizes)})
    limits = Limits(without_trials(budget={"documents": limit}).search, ledger.whole)
    rungs: dict[int, int] = {}  # of the open trials
    asked = 0

    def now() -> Spent:
        return Spent(asked, ledger.documents, 0.0)

    def note(number: int, state: str, rung: int) -> None:
        ledger.note(Trial(number, "x", None, 1000 * rung + number, state, None, None, None, 0.0, None, rung))

    while True:
        while limits.reached(now()) is None and len(rungs) < parallel:
            rungs[asked] = data.draw(st.integers(0, len(sizes) - 1))
            note(asked, "open", rungs[asked])
            asked += 1
        if not rungs:
            break
        number = data.draw(st.sampled_from(sorted(rungs)))
        rung = rungs[number] + 1
        promoted = rung < len(sizes) and data.draw(st.booleans())
        if promoted and limits.allows(now(), ledger.cost(rung) - ledger.cost(rung - 1)):
            rungs[number] = rung
            note(number, "open", rung)
        else:
            note(number, "pruned", rungs.pop(number))
    assert limit <= ledger.documents <= limit + sizes[-1]
    assert limits.share(now()) >= 1.0 and limits.left(now()) <= 0


def test_the_ledger_counts_as_the_verdict_does_and_costs_nothing_twice(tmp_path: Path) -> None:
    store = open_home(tmp_path)
    study, trials = run(limited(trials=20), store)
    sets = {"t": store.studies.documents(study.id)["t", "search"]}
    assert ledger_of(sets, trials).documents == spent(store, study, trials) > 0
    doubled = [
        *trials,
        Trial(99, "again", None, trials[-1].evaluation_id, "open", None, None, None, 0.0, None, trials[-1].rung),
    ]
    assert ledger_of(sets, doubled).documents == ledger_of(sets, trials).documents
    lost = Trial(0, "expert:a", None, trials[0].evaluation_id, "failed", None, "x", 1, 0.0, 1.0, trials[0].rung)
    ledger = ledger_of(sets, trials)
    ledger.note(lost)
    assert ledger.documents == ledger_of(sets, trials).documents - WHOLE


def test_minutes_last_over_runs_and_pauses_and_dead_runs_cost_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, time = without_trials(budget={"minutes": 10}), Time()
    store = open_home(tmp_path)

    def spend() -> None:
        time.now += 30.0

    deaths = iter([True, True])

    def die(point: str) -> None:
        trials = store.trials.all(study_id)
        if point == "controller.added" and len(trials) in (6, 11) and next(deaths, False):
            raise Killed

    study_id = opened(spec, store).study.id
    monkeypatch.setattr(search.controller, "fault_point", die)
    for _ in range(2):
        with pytest.raises(Killed):
            run(spec, store, spend=spend, now=time)
        time.now += 86_400.0  # a day in which nobody searches, with a trial open
    study, trials = run(spec, store, spend=spend, now=time)
    assert Ended.model_validate(study.ended).reason == "minutes"
    assert 600.0 <= study.searched_seconds < 660.0, "to within a trial's time"
    assert sum(1 for t in trials if t.told_at) * 30.0 <= study.searched_seconds + 90.0


def test_a_pause_costs_no_time() -> None:
    time, written = Time(), list[float]()
    clock = SearchClock(100.0, written.append, time)
    for going, passes in ((True, 2.0), (True, 2.0), (False, 50.0), (False, 50.0), (True, SAVED_EVERY), (True, 1.0)):
        clock.tick(going=going)
        time.now += passes
    assert written == [4.0, SAVED_EVERY]
    assert clock.seconds == 100.0 + 4.0 + SAVED_EVERY + 1.0


@pytest.mark.parametrize("limit", ["trials", "documents", "minutes"])
def test_a_raised_budget_goes_on_where_the_search_ended(limit: str, tmp_path: Path) -> None:
    def spec(times: int) -> StudySpec:
        if limit == "trials":
            return limited(trials=8 * times)
        return without_trials(budget={limit: times * (2000 if limit == "documents" else 4)})

    store, time = open_home(tmp_path), Time()

    def spend() -> None:
        time.now += 20.0

    study, first = run(spec(1), store, spend=spend, now=time)
    sets = store.studies.documents(study.id)
    store.studies.finish(leading(store, study.id), {"winner": 0, "exhausted": False, "trials": len(first)})
    study = store.studies.by_id(study.id)
    assert is_over(study, spec(1), first, sets) and not is_over(study, spec(2), first, sets)
    store.studies.reopen(study.id, spec(2).to_json())
    study, second = run(spec(2), store, spend=spend, now=time)
    assert second[: len(first)] == first and len(second) > len(first)
    assert Ended.model_validate(study.ended).reason == limit
    assert spec(1).frozen_digest() == spec(2).frozen_digest()


def test_the_baselines_are_tried_whatever_the_budget_says(tmp_path: Path) -> None:
    spec, store, time = without_trials(budget={"minutes": 0.01}), open_home(tmp_path), Time()

    def spend() -> None:
        time.now += 60.0

    _, trials = run(spec, store, spend=spend, now=time)
    assert [t.origin for t in trials] == ["expert:a", "expert:b", "expert:c", "uniform_soup"]


def test_a_budget_below_the_baselines_is_refused(tmp_path: Path) -> None:
    spec = without_trials(budget={"documents": 1599})
    study = create_race(open_home(tmp_path), spec, WHOLE)
    starts: tuple[Start, ...] = open_search(spec, make_space(spec, LAYERS), study.setup)[0]
    sets = open_home(tmp_path).studies.documents(study.id)
    with pytest.raises(InvalidStudy, match=r"1599 does not cover the 4 baselines .* take 1600; use 1600 or more"):
        require_documents(spec, starts, sets)
    require_documents(without_trials(budget={"documents": 1600}), starts, sets)


def test_on_flat_noise_the_search_ends_and_decides_the_same_after_any_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = limited(trials=150, stop=0.05, prune="off")
    study, trials = run(spec, open_home(tmp_path / "one"), flat)
    ended = Ended.model_validate(study.ended)
    assert ended.reason == "gain" and 4 + 20 < len(trials) < 150 and ended.left == 150 - len(trials)
    assert ended.expected is not None and ended.expected < 0.05 == ended.least
    assert ended.why.startswith(f"another {ended.left} trials were expected to gain 0.0")
    ahead = [f"controller.{point}" for point in ("added", "told", "replayed", "telling", "proposed", "announced")] * 5

    def die(point: str) -> None:
        if ahead and point == ahead[0]:
            ahead.pop(0)
            raise Killed

    monkeypatch.setattr(search.controller, "fault_point", die)
    store = open_home(tmp_path / "two")
    while True:
        try:
            again, others = run(spec, store, flat)
            break
        except Killed:
            continue
    assert not ahead and again.ended == study.ended
    assert [t.params for t in others] == [t.params for t in trials]
    over = run(spec, store, flat)
    assert over[0].ended == study.ended and len(over[1]) == len(trials), "what is over stays over"


def test_without_the_key_nothing_stops_and_the_noise_is_the_least(tmp_path: Path) -> None:
    study, trials = run(limited(trials=40, prune="off"), open_home(tmp_path / "never"), flat)
    assert len(trials) == 40 and Ended.model_validate(study.ended).reason == "trials"
    spec = make_spec(search={"strategy": "cmaes", "trials": 150, "parallel": 1, "stop": True, "prune": "off"})
    study, trials = run(spec, open_home(tmp_path / "noise"))
    ended = Ended.model_validate(study.ended)
    assert ended.reason == "gain" and ended.least is not None
    assert 0.001 < ended.least < 0.04, "the standard error of a difference on 400 documents"


def test_a_search_ends_where_a_recipe_without_a_fault_would_be_no_surer(tmp_path: Path) -> None:
    def spoiled(recipe: Recipe) -> float:
        return 0.97 if max(recipe.groups[0].weights.values()) < 0.34 else 0.5

    spec = limited(trials=40, stop=True)
    perfect, trials = run(spec, open_home(tmp_path / "perfect"), lambda recipe: 1.0)
    ended = Ended.model_validate(perfect.ended)
    assert {t.origin for t in trials} == {"expert:a", "expert:b", "expert:c", "uniform_soup"}, "nothing but its starts"
    assert ended.why == "trial 0 has 400 of 400 documents right: none can be better by more than luck"
    assert (ended.reason, ended.left, ended.expected, ended.least) == ("gain", 40 - len(trials), 0.0, 0.0)
    good, tried = run(spec, open_home(tmp_path / "good"), spoiled)
    assert len(tried) > len(trials) and "right" not in Ended.model_validate(good.ended).why
    never, every = run(limited(trials=40, stop=False), open_home(tmp_path / "never"), lambda recipe: 1.0)
    assert len(every) == 40 and Ended.model_validate(never.ended).reason == "trials"


def attempts(values: list[float], noise: float = 0.0) -> list[Attempt]:
    best = np.maximum.accumulate(values)
    return [Attempt(value, noise, float(top)) for value, top in zip(values, best, strict=True)]


@pytest.mark.parametrize("tried", [24, 50, 120])
def test_steady_gain_does_not_end_a_search_and_no_gain_does(tried: int) -> None:
    rng = np.random.default_rng(tried)
    steady = attempts([0.3 + 0.004 * i + 0.001 * rng.normal() for i in range(tried)])
    assert surely_gains_less(steady, 0.3, 50, 0.01) is None
    level = attempts([0.3 + 0.001 * rng.normal() for _ in range(tried)])
    assert surely_gains_less(level, 0.3, 50, 0.01) is not None
    few = level[:23]
    assert surely_gains_less(few, 0.3, 50, 0.01) is None, "twenty, and four more to be sure"
    assert surely_gains_less(level, 0.3, 0, 0.01) is None


def test_a_trial_that_gave_nothing_promises_nothing() -> None:
    rng = np.random.default_rng(0)
    sure = attempts((0.5 + 0.02 * rng.normal(size=20)).tolist())
    half = [Attempt(a.value if i % 2 else None, 0.0, a.best) for i, a in enumerate(sure)]
    assert by_draws(half, 50) == by_draws(half[1::2], 25) > 0.0
    assert by_draws([Attempt(None, 0.0, 0.5)] * 30, 50) == 0.0
    noisy = [Attempt(a.value, 0.02, a.best) for a in sure]
    assert by_draws(noisy, 50) < by_draws(sure, 50)


def test_the_expected_best_of_normal_draws_is_that_of_the_tables() -> None:
    means = {1: 0.0, 2: 0.5642, 10: 1.5388, 100: 2.5076}  # of the largest of so many
    for draws, mean in means.items():
        assert beyond(-9.0, 1.0, draws) - 9.0 == pytest.approx(mean, abs=2e-3)
    assert beyond(0.0, 2.0, 1) == pytest.approx(2.0 / math.sqrt(2.0 * math.pi), rel=1e-4)
    assert beyond(50.0, 1.0, 1000) == pytest.approx(0.0, abs=1e-12)
    assert beyond(0.3, 0.0, 5) == 0.0
    assert by_records(attempts([0.1, 0.1, 0.3, 0.3]), 0.1, 4) == pytest.approx(0.2)


def test_what_stop_may_be(tmp_path: Path) -> None:
    assert limited().stop is False and limited(stop=True).stop is True and limited(stop=0.02).stop == 0.02
    assert limited(stop=False).frozen_digest() == limited(stop=0.5).frozen_digest() == limited().frozen_digest()
    for wrong in (0, -0.1, "often"):
        with pytest.raises(InvalidStudy, match=r"^search\.stop: "):
            limited(stop=wrong)
    with pytest.raises(InvalidStudy, match=r"search\.stop: True weighs"):
        make_spec(search={"stop": True}, objective="borda")


def test_noise_is_known_where_nobody_races_and_not_where_values_are_no_sums() -> None:
    def trial(number: int) -> Trial:
        return Trial(number, "tpe", None, number, "complete", 0.5, None, number, 0.0, 0.0)

    def scores(found: Trial) -> tuple[TaskScore, ...]:
        items = tuple(float((i * (found.number + 3)) % 5 > 1) for i in range(60))
        about = {"metric": "acc", "stderr": None, "higher_is_better": True, "documents": tuple(range(60))}
        return (TaskScore(task="t", value=sum(items) / 60, items=items, **about),)

    measure = Measure("mean", {"t": 1.0}, {})
    some = tuple(map(trial, range(3)))
    assert (Noise(0, scores).between(some, measure) or 0.0) > 0.0

    def median_of(found: Trial) -> tuple[TaskScore, ...]:
        (one,) = scores(found)
        return (one.model_copy(update={"value": 0.25}),)

    assert Noise(0, median_of).between(some, measure) is None
