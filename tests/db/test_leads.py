"""One controller leads a study: elected once, replaced when it is not heard of, and nothing it writes then counts."""

from collections.abc import Callable

import pytest

from db.leads import LeadLost
from db.records import Lead, Step, Study
from db.store import Store
from merging.errors import Conflict
from tests.db.crew import Crew, each_of
from tests.db.rows import added, taken


def take_all(store: Store, number: int, study_ids: list[int]) -> list[int]:
    """The studies of which this process became the leader."""
    return [id_ for id_ in study_ids if store.leads.take(id_, f"controller {number}", 60) is not None]


def everything(store: Store, study: Study) -> list[object]:
    """All that a leader can change."""
    found = store.studies.by_id(study.id)
    return [found, store.trials.all(study.id), store.evaluations.unfinished(study.id), store.events.last(study.id)]


def test_each_study_elects_one_of_many_processes(any_store: Store, crew: Crew) -> None:
    ids = [any_store.studies.create(f"s{n}", {}, "f", {}, {}).id for n in range(10)]
    won = crew.race(any_store, take_all, each_of(ids))
    assert sorted(id_ for mine in won for id_ in mine) == ids
    assert any_store.leads.vacant() == ()


def test_a_lead_lasts_while_it_is_renewed(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study, seconds=-1)
    assert any_store.leads.vacant() == (study.id,), "its time is over"
    assert any_store.leads.renew(lead, 60), "nobody else has taken it"
    assert any_store.leads.vacant() == () and any_store.leads.take(study.id, "another", 60) is None


def test_a_released_lead_is_taken_at_once(any_store: Store, study: Study) -> None:
    first = taken(any_store, study, "one")
    any_store.leads.release(first)
    second = taken(any_store, study, "two")
    any_store.leads.release(first)
    assert any_store.leads.renew(second, 60), "a late release of another's lead does nothing"
    assert not any_store.leads.renew(first, 60)


WRITES: dict[str, Callable[[Store, Lead], object]] = {
    "add": lambda store, lead: added(store, lead, 1),
    "tell": lambda store, lead: store.trials.tell(lead, 0, "complete", 0.5),
    "promote": lambda store, lead: store.trials.promote(lead, 0, 1, Step(0, 2, 0.5)),
    "read_holdout": lambda store, lead: store.studies.read_holdout(lead, 1),
    "enter": lambda store, lead: store.studies.enter(lead, "holdout"),
    "finish": lambda store, lead: store.studies.finish(lead, {"winner": 0}),
    "fail": lambda store, lead: store.studies.fail(lead, "because"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_counts_that_a_replaced_leader_writes(
    any_store: Store, study: Study, write: Callable[[Store, Lead], object]
) -> None:
    slow = taken(any_store, study, "slow", seconds=-1)
    added(any_store, slow)
    quick = taken(any_store, study, "quick")
    before = everything(any_store, study)
    with pytest.raises(LeadLost):
        write(any_store, slow)
    assert everything(any_store, study) == before
    assert not any_store.leads.renew(slow, 60)
    write(any_store, quick)
    assert everything(any_store, study) != before


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nobody_leads_a_cancelled_study(any_store: Store, study: Study, write: Callable[[Store, Lead], object]) -> None:
    lead = taken(any_store, study)
    added(any_store, lead)
    any_store.studies.cancel(study.name)
    before = everything(any_store, study)
    with pytest.raises(LeadLost):
        write(any_store, lead)
    assert everything(any_store, study) == before
    assert not any_store.leads.renew(lead, 60) and any_store.leads.vacant() == ()
    assert any_store.leads.take(study.id, "another", 60) is None
    with pytest.raises(LeadLost, match="not running"):
        any_store.leads.seize(study.id, "me")


def test_who_is_alone_seizes_a_lead_for_good(any_store: Store, study: Study) -> None:
    earlier = taken(any_store, study)
    lead = any_store.leads.seize(study.id, "me")
    assert any_store.leads.vacant() == () and any_store.leads.take(study.id, "another", 60) is None
    with pytest.raises(LeadLost):
        added(any_store, earlier)
    added(any_store, lead)


def test_a_paused_study_is_led_and_told_but_begins_nothing(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    added(any_store, lead)
    any_store.studies.pause(study.name)
    with pytest.raises(LeadLost, match="not running"):
        added(any_store, lead, 1)
    assert any_store.trials.tell(lead, 0, "complete", 0.5).value == 0.5
    any_store.leads.release(lead)
    assert any_store.leads.vacant() == (study.id,)
    again = taken(any_store, study)
    any_store.studies.resume(study.name)
    assert added(any_store, again, 1).number == 1


def test_a_change_of_state_twice_does_no_harm_and_one_after_the_end_is_refused(any_store: Store, study: Study) -> None:
    for change in ("pause", "resume", "cancel"):
        first = getattr(any_store.studies, change)(study.name)
        last = any_store.events.last(study.id)
        assert getattr(any_store.studies, change)(study.name) == first
        assert any_store.events.last(study.id) == last, "what changed nothing is not told"
    for change in ("pause", "resume"):
        with pytest.raises(Conflict, match="is cancelled, so it cannot be"):
            getattr(any_store.studies, change)(study.name)
    states = [e.data["state"] for e in any_store.events.after(study.id, 0) if e.kind == "study.state"]
    assert states == ["paused", "running", "cancelled"]


def test_a_finished_study_has_its_verdict_and_no_leader(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    any_store.studies.finish(lead, {"winner": 3})
    found = any_store.studies.get(study.name)
    assert (found.state, found.verdict) == ("finished", {"winner": 3})
    assert [e.kind for e in any_store.events.after(study.id, 1)] == ["study.verdict", "study.state"]
    with pytest.raises(LeadLost):
        any_store.studies.fail(lead, "too late")
    with pytest.raises(Conflict, match="finished"):
        any_store.studies.cancel(study.name)
