"""Trials on rungs: taken on or stopped once, made complete after all, and nothing lost whoever dies meanwhile."""

import pytest

from db.leads import LeadLost
from db.records import Step, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Failed
from tests.db.crew import Crew, each_of
from tests.db.rows import added, claimed, evaluated, found, on_rungs, recipe, taken


@pytest.fixture
def study(any_store: Store) -> Study:
    """A running study with three rungs, on each engine."""
    return on_rungs(any_store)


def score(store: Store, trial: Trial) -> None:
    """Do the evaluation that the trial waits for."""
    lease = claimed(store, trial.evaluation_id or 0)
    assert store.evaluations.finish(lease, found(store.evaluations.wanted(lease).documents["t"]))


def kinds(store: Store, study: Study) -> list[str]:
    """What happened, but for the beginning."""
    return [e.kind for e in store.events.after(study.id, 1)]


def test_a_trial_goes_on_from_rung_to_rung_and_keeps_what_it_was_worth(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    first = added(any_store, lead)
    score(any_store, first)
    assert any_store.trials.ready(study.id) == (first,) and first.rung == 0
    second = any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.25))
    assert (second.rung, second.steps, second.state) == (1, (Step(0, 2, 0.25),), "open")
    assert any_store.trials.ready(study.id) == (), "it waits for its new evaluation"
    evaluation = any_store.evaluations.get(second.evaluation_id or 0)
    assert (evaluation.rung, evaluation.recipe, evaluation.recipe_digest) == (1, recipe(0), "d0")
    assert any_store.evaluations.unfinished(study.id) == (evaluation.id,), "found by whoever leads next"
    assert [id_ for id_, _ in any_store.evaluations.queued()] == [evaluation.id]
    score(any_store, second)
    last = any_store.trials.promote(lead, 0, 2, Step(1, 4, 0.5))
    assert last.steps == (Step(0, 2, 0.25), Step(1, 4, 0.5)) and last == any_store.trials.get(study.id, 0)
    outcomes = [any_store.evaluations.get(t.evaluation_id or 0).outcome for t in (first, second)]
    assert outcomes == [found((0, 5)), found((0, 2, 5, 7))], "each rung's documents stay as they were scored"
    assert kinds(any_store, study) == ["trial.added", "trial.promoted", "trial.promoted"]
    assert any_store.events.after(study.id, 2)[0].data == {"number": 0, "origin": "tpe", "rung": 1, "value": 0.25}


def test_a_trial_is_taken_on_once(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    added(any_store, lead)
    first = any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.25))
    assert any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.75)) == first
    told = any_store.trials.tell(lead, 0, "pruned", None, "behind", estimate=0.1, step=Step(1, 4, 0.5))
    assert any_store.trials.promote(lead, 0, 2, Step(1, 4, 0.5)) == told, "what is told is over"
    assert kinds(any_store, study) == ["trial.added", "trial.promoted", "trial.told"]


def test_a_rung_scored_before_is_ready_at_once(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    score(any_store, added(any_store, lead))
    score(any_store, any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.25)))
    twin = any_store.trials.add(lead, NewTrial(1, "tpe", {}, recipe(0), "d0"))
    again = any_store.trials.promote(lead, 1, 1, Step(0, 2, 0.25))
    first = any_store.trials.all(study.id)[0]
    assert again.evaluation_id == first.evaluation_id != twin.evaluation_id
    assert any_store.trials.ready(study.id) == (first, again)
    later = any_store.trials.add(lead, NewTrial(2, "tpe", {}, recipe(5), "d5", rung=2))
    assert later.rung == 2 and any_store.evaluations.get(later.evaluation_id or 0).rung == 2


def test_nothing_is_half_done_when_a_step_breaks(
    any_store: Store, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = taken(any_store, study)
    trial = added(any_store, lead)
    score(any_store, trial)
    with monkeypatch.context() as patch:
        patch.setattr("db.trials.append_event", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.25))
    assert any_store.trials.ready(study.id) == (trial,) and any_store.evaluations.unfinished(study.id) == ()


def promote_all(store: Store, who: int, study_id: int, numbers: list[int]) -> int:
    """Take the lead and every trial on two rungs, while others do the same; how often the lead was gone."""
    lost = 0
    for number in numbers:
        lead = store.leads.seize(study_id, f"controller {who}")
        for rung in (1, 2):
            try:
                store.trials.promote(lead, number, rung, Step(rung - 1, 2 * rung, float(who)))
            except LeadLost:
                lost += 1
    return lost


def test_controllers_that_take_the_lead_from_each_other_take_a_trial_on_once(
    any_store: Store, study: Study, crew: Crew
) -> None:
    lead = taken(any_store, study)
    numbers = [added(any_store, lead, n).number for n in range(3)]
    crew.race(any_store, promote_all, each_of(study.id, numbers))
    trials = any_store.trials.all(study.id)
    last = {number: 0 for number in numbers}
    for event in any_store.events.after(study.id, 0):
        if event.kind == "trial.promoted":
            assert event.data["rung"] > last[event.data["number"]], "no rung twice"
            last[event.data["number"]] = event.data["rung"]
    assert {t.number: t.rung for t in trials} == last
    for trial in trials:
        evaluation = any_store.evaluations.get(trial.evaluation_id or 0)
        assert (evaluation.rung, evaluation.recipe_digest) == (trial.rung, f"d{trial.number}")
        assert len(trial.steps) == len({step.rung for step in trial.steps})
    unfinished = [any_store.evaluations.get(id_) for id_ in any_store.evaluations.unfinished(study.id)]
    assert len({(e.recipe_digest, e.rung) for e in unfinished}) == len(unfinished)


def test_a_pruned_trial_is_told_and_may_become_complete(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    added(any_store, lead)
    added(any_store, lead, 1)
    told = any_store.trials.tell(
        lead, 0, "pruned", None, "behind", estimate=0.4, constraints=(-0.5, 0.25), step=Step(0, 2, 0.5)
    )
    assert (told.state, told.value, told.estimate, told.constraints) == ("pruned", None, 0.4, (-0.5, 0.25))
    assert (told.steps, told.told_order) == ((Step(0, 2, 0.5),), 1)
    assert any_store.trials.page(study.id, None, 9, "pruned") == (told,) and any_store.trials.best(study.id) is None
    assert any_store.studies.counts(study.id) == {"pruned": 1, "open": 1}
    assert any_store.metrics.read().trials == {"pruned": 1, "open": 1}
    full = evaluated(any_store, study, "d0", rung=2)
    whole = any_store.trials.rescore(lead, 0, full, 0.75, (-0.1, -0.2))
    assert (whole.state, whole.value, whole.rung, whole.evaluation_id) == ("complete", 0.75, 2, full)
    assert (whole.estimate, whole.told_order, whole.constraints) == (0.4, 1, (-0.1, -0.2))
    assert any_store.trials.rescore(lead, 0, full, 0.9, None) == whole, "the first word stands"
    assert any_store.trials.rescore(lead, 1, full, 0.9, None).state == "open", "only a pruned trial is made complete"
    assert any_store.trials.best(study.id) == whole
    assert kinds(any_store, study)[-2:] == ["trial.told", "trial.rescored"]


def test_the_best_trial_meets_the_constraints_or_comes_closest(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    best = []
    for number, (value, beyond) in enumerate(
        [(0.9, (0.5, 0.0)), (0.8, (0.1, 0.2)), (0.3, (-0.1, 0.0)), (0.4, (-9.0, -9.0)), (0.4, (0.0, 0.0))]
    ):
        added(any_store, lead, number)
        any_store.trials.tell(lead, number, "complete", value, constraints=beyond)
        leader = any_store.trials.best(study.id)
        best.append(leader and leader.number)
    assert best == [0, 1, 2, 3, 3]


def test_readings_of_the_holdout_are_counted(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    read = any_store.studies.read_holdout
    assert [read(lead, 12), read(lead, 12), read(lead, 20), read(lead, 20), read(lead, 12)] == [1, 1, 2, 2, 2]
    data = [e.data for e in any_store.events.after(study.id, 0) if e.kind == "holdout.read"]
    assert data == [{"trials": 12, "readings": 1}, {"trials": 20, "readings": 2}]


def test_readings_that_an_earlier_version_did_not_write_down_count(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    for number in range(4):
        added(any_store, lead, number)
        if number > 1:  # after three trials, and after four
            any_store.evaluations.want(study.id, recipe(number), f"d{number}", "holdout")
    assert any_store.studies.read_holdout(lead, 4) == 2, "the last of them goes on"
    assert any_store.studies.read_holdout(lead, 6) == any_store.studies.holdout_readings(study.id) == 3


def test_what_no_trial_was_told_of_is_tried_again_when_a_study_is_resumed(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    told, held = added(any_store, lead), any_store.evaluations.want(study.id, recipe(), "d9", "holdout")[0].id
    assert any_store.evaluations.finish(claimed(any_store, told.evaluation_id or 0), Failed(why="no memory"))
    any_store.trials.tell(lead, 0, "failed", None, "no memory")
    added(any_store, lead, 1)
    any_store.trials.tell(lead, 1, "pruned", None, estimate=0.5)
    full = any_store.evaluations.want(study.id, recipe(1), "d1", "search", 2)[0].id
    evaluated(any_store, study, "d2")
    added(any_store, lead, 2)
    any_store.trials.tell(lead, 2, "complete", 0.5)
    for evaluation_id in (held, full):
        assert any_store.evaluations.finish(claimed(any_store, evaluation_id), Failed(why="no disk"))
    any_store.studies.fail(lead, "nobody could be scored")
    any_store.studies.resume(study.name)
    waiting = any_store.evaluations.unfinished(study.id)
    assert {held, full} <= set(waiting) and told.evaluation_id not in waiting


def test_a_cancelled_study_stops_on_every_rung(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    added(any_store, lead)
    open_one = any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.25))
    added(any_store, lead, 1)
    any_store.trials.tell(lead, 1, "pruned", None, estimate=0.5)
    any_store.studies.cancel(study.name)
    assert [t.state for t in any_store.trials.all(study.id)] == ["cancelled", "pruned"]
    assert any_store.evaluations.unfinished(study.id) == ()
    assert any_store.evaluations.state(open_one.evaluation_id or 0) == "done"
    with pytest.raises(LeadLost):
        any_store.trials.rescore(lead, 1, 1, 0.5, None)
