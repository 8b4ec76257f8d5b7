"""Evaluations as leased work: one at a time holds one, whoever lost it writes nothing, and every outcome comes back."""

import time

import pytest

from db.leases import MAX_ATTEMPTS
from db.records import Progress, Study
from db.store import Store
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import Conflict
from tests.db.crew import Crew, each_of
from tests.db.rows import added, claimed, queued, recipe, taken
from tests.search.factories import create, make_spec, scored


def claim_all(store: Store, number: int, ids: list[int]) -> list[int]:
    """The evaluations that this process got."""
    return [id_ for id_ in ids if store.evaluations.claim(id_, f"w{number}", 60) is not None]


def want_all(store: Store, number: int, study_id: int, digests: list[str]) -> list[tuple[int, bool]]:
    """The evaluations of those recipes, and whether this process made them."""
    found = [store.evaluations.want(study_id, recipe(), digest, "holdout") for digest in digests]
    return [(evaluation.id, made) for evaluation, made in found]


def test_the_same_recipe_and_part_are_one_evaluation(any_store: Store, study: Study) -> None:
    first, made = any_store.evaluations.want(study.id, recipe(), "d0", "search")
    again, made_again = any_store.evaluations.want(study.id, recipe(), "d0", "search")
    held, made_held = any_store.evaluations.want(study.id, recipe(), "d0", "holdout")
    assert made and not made_again and made_held
    assert first.id == again.id != held.id


def test_wanted_by_many_at_once_an_evaluation_is_made_once(any_store: Store, study: Study, crew: Crew) -> None:
    digests = [f"d{n}" for n in range(8)]
    answers = crew.race(any_store, want_all, each_of(study.id, digests))
    for each in zip(*answers, strict=True):
        assert len({id_ for id_, _ in each}) == 1 and sum(made for _, made in each) == 1


def test_nothing_more_is_wanted_of_a_study_that_is_over(any_store: Store, study: Study) -> None:
    known = queued(any_store, study)
    any_store.studies.cancel(study.name)
    assert queued(any_store, study) == known
    with pytest.raises(Conflict, match="is over"):
        queued(any_store, study, "d1")
    assert any_store.evaluations.unfinished(study.id) == ()


OUTCOMES = [
    scored(1.0),
    Infeasible(why="no such layer"),
    Failed(why="no memory"),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.kind)
def test_an_outcome_comes_back_as_it_was_written(
    any_store: Store, study: Study, outcome: Scored | Infeasible | Failed
) -> None:
    lease = claimed(any_store, queued(any_store, study))
    assert (lease.recipe, lease.part, lease.attempt, lease.study_id) == (recipe(), "search", 1, study.id)
    assert any_store.evaluations.finish(lease, outcome)
    found = any_store.evaluations.get(lease.evaluation_id)
    assert (found.outcome, found.state, found.owner, found.progress) == (outcome, "done", None, None)
    assert any_store.evaluations.unfinished(study.id) == () and any_store.evaluations.running(study.id) == ()


def test_a_reason_that_no_database_would_take_is_written_all_the_same(any_store: Store, study: Study) -> None:
    lease = claimed(any_store, queued(any_store, study))
    assert any_store.evaluations.finish(lease, Failed(why="bad \0 bytes \udcff in a name"))
    assert any_store.evaluations.get(lease.evaluation_id).outcome == Failed(why="bad \ufffd bytes ? in a name")
    any_store.studies.fail(taken(any_store, study), "\0")
    assert any_store.studies.get(study.name).why == "\ufffd"


def test_each_evaluation_is_claimed_by_one_of_many_processes(any_store: Store, study: Study, crew: Crew) -> None:
    ids = [queued(any_store, study, f"d{n}") for n in range(30)]
    won = crew.race(any_store, claim_all, each_of(ids))
    assert sorted(id_ for mine in won for id_ in mine) == ids


def test_an_expired_lease_goes_to_another_and_the_first_owners_word_no_longer_counts(
    any_store: Store, study: Study
) -> None:
    evaluation_id = queued(any_store, study)
    slow = claimed(any_store, evaluation_id, "slow", seconds=-1)
    quick = claimed(any_store, evaluation_id, "quick")
    assert quick.attempt == 2 and any_store.evaluations.claim(evaluation_id, "third", 60) is None
    assert not any_store.evaluations.renew(slow, 60)
    assert not any_store.evaluations.progress(slow, 1, 2)
    assert not any_store.evaluations.finish(slow, scored(0.1))
    assert any_store.evaluations.values([evaluation_id]) == {}, "its scores are not written either"
    assert any_store.evaluations.renew(quick, 60)
    assert any_store.evaluations.finish(quick, scored(0.5))
    assert any_store.evaluations.values([evaluation_id]) == {evaluation_id: {"t": 0.5}}
    assert not any_store.evaluations.finish(quick, Infeasible(why="twice"))
    assert any_store.evaluations.get(evaluation_id).outcome == scored(0.5)


def test_a_lease_lasts_while_it_is_renewed(any_store: Store, study: Study) -> None:
    lease = claimed(any_store, queued(any_store, study), seconds=-1)
    assert any_store.evaluations.renew(lease, 60), "nobody else has taken it"
    assert any_store.evaluations.claim(lease.evaluation_id, "another", 60) is None
    assert any_store.evaluations.sweep() == ()


@pytest.mark.parametrize("wrong", [-1e6, 1e6])
def test_leases_go_by_the_databases_clock(
    any_store: Store, study: Study, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = claimed(any_store, queued(any_store, study))
    lead = taken(any_store, study)
    right = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + wrong)
        assert any_store.evaluations.sweep() == () and any_store.leads.vacant() == ()
        assert any_store.evaluations.renew(lease, 60) and any_store.leads.renew(lead, 60)
        left = any_store.evaluations.seconds_to_next_expiry()
    assert left is not None and 30 < left <= 60


def test_progress_is_seen_while_it_lasts(any_store: Store, study: Study) -> None:
    other = create(any_store, make_spec(name="other"))
    lease = claimed(any_store, queued(any_store, study))
    claimed(any_store, queued(any_store, other))
    (found,) = any_store.evaluations.running(study.id)
    assert (found.id, found.owner, found.progress) == (lease.evaluation_id, "me", None)
    assert any_store.evaluations.progress(lease, 3, 8)
    assert any_store.evaluations.progress(lease, 4, 8, 99.5)
    (found,) = any_store.evaluations.running(study.id)
    assert found.progress == Progress(4, 8, 99.5)
    assert any_store.evaluations.progress(lease, 0, 8, measuring=(1, 3))
    (found,) = any_store.evaluations.running(study.id)
    assert found.progress == Progress(0, 8, None, artefacts_done=1, artefacts_total=3)
    any_store.evaluations.hand_back("me")
    again = claimed(any_store, lease.evaluation_id)
    (found,) = any_store.evaluations.running(study.id)
    assert found.progress is None and again.attempt == 1, "it begins anew"


def test_what_waits_is_told_with_its_pool_while_its_study_runs(any_store: Store, study: Study) -> None:
    large = create(any_store, make_spec(name="large", search={"pool": "large"}))
    paused = create(any_store, make_spec(name="paused"))
    ids = [queued(any_store, s) for s in (study, large, paused)]
    busy, done = queued(any_store, study, "d1"), queued(any_store, study, "d2")
    claimed(any_store, busy)
    any_store.evaluations.finish(claimed(any_store, done), scored(1.0))
    any_store.studies.pause("paused")
    assert any_store.evaluations.queued() == ((ids[0], "default"), (ids[1], "large"))
    any_store.studies.resume("paused")
    assert any_store.evaluations.queued()[-1] == (ids[2], "default")


@pytest.mark.parametrize("change", ["pause", "cancel"])
def test_nothing_is_begun_in_a_study_that_does_not_run(any_store: Store, study: Study, change: str) -> None:
    evaluation_id = queued(any_store, study)
    getattr(any_store.studies, change)(study.name)
    assert any_store.evaluations.claim(evaluation_id, "me", 60) is None


def test_what_is_being_scored_is_scored_to_its_end_in_a_paused_study(any_store: Store, study: Study) -> None:
    lease = claimed(any_store, queued(any_store, study))
    any_store.studies.pause(study.name)
    assert any_store.evaluations.renew(lease, 60) and any_store.evaluations.progress(lease, 1, 2)
    assert any_store.evaluations.finish(lease, scored(1.0))


def test_a_cancelled_study_stops_its_workers(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    trials = [added(any_store, lead, n) for n in range(3)]
    first, second = (claimed(any_store, t.evaluation_id or 0) for t in trials[:2])
    any_store.evaluations.finish(first, scored(1.0))
    any_store.trials.tell(lead, 0, "complete", 1.0)
    any_store.studies.cancel(study.name)
    assert not any_store.evaluations.progress(second, 1, 2)
    assert not any_store.evaluations.renew(second, 60)
    assert not any_store.evaluations.finish(second, scored(1.0))
    assert [t.state for t in any_store.trials.all(study.id)] == ["complete", "cancelled", "cancelled"]
    assert any_store.evaluations.get(first.evaluation_id).outcome == scored(1.0), "what was scored stays"
    assert any_store.evaluations.get(second.evaluation_id).outcome == Failed(why="the study was cancelled")
    assert any_store.evaluations.unfinished(study.id) == () and any_store.evaluations.queued() == ()
    assert any_store.evaluations.sweep() == any_store.evaluations.hand_back("me") == ()
    assert any_store.evaluations.seconds_to_next_expiry() is None


def test_a_retryable_failure_is_tried_again_and_not_for_ever(any_store: Store, study: Study) -> None:
    evaluation_id = queued(any_store, study)
    for _ in range(MAX_ATTEMPTS):
        assert any_store.evaluations.finish(claimed(any_store, evaluation_id), Failed(why="disk full", retryable=True))
    assert any_store.evaluations.claim(evaluation_id, "me", 60) is None
    assert any_store.evaluations.get(evaluation_id).outcome == Failed(why="disk full")
    retried = [e.data for e in any_store.events.after(study.id, 0) if e.kind == "trial.retried"]
    assert retried == [{"evaluation": evaluation_id, "attempt": n, "why": "disk full"} for n in (1, 2)]


def test_a_failed_evaluation_may_be_asked_for_once_more(any_store: Store, study: Study) -> None:
    evaluation_id = queued(any_store, study)
    assert any_store.evaluations.finish(claimed(any_store, evaluation_id), Failed(why="no memory"))
    any_store.evaluations.retry_failed(study.id, "search")
    again = claimed(any_store, evaluation_id)
    assert again.attempt == 1 and any_store.evaluations.finish(again, scored(0.5))
    any_store.evaluations.retry_failed(study.id, "search")
    assert any_store.evaluations.get(evaluation_id).outcome == scored(0.5), "what did not fail is left alone"
