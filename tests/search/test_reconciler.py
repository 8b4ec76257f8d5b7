"""The reconciler: takes every study nobody leads to its verdict, alone or beside others, through any fault."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from db.leads import LeadLost
from db.records import Lead, Study
from db.store import Store
from evaluation.result import Failed, Part, Scored
from merging.errors import Conflict
from merging.recipe import Recipe
from search.keeper import Keeper
from search.reconciler import LONGEST_WAIT, Reconciler
from tests.search.factories import bowl, create, make_spec, scored

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}


def by_bowl(recipe: Recipe, part: Part) -> Scored:
    return scored(bowl(recipe, BEST), 8 if part == "search" else 4)


class Fleet:
    """Workers that do what is published, at the next `work`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.pairs: list[tuple[int, str]] = []
        self.evaluate: Callable[[Recipe, Part], Scored | Failed] = by_bowl

    def publish(self, pairs: Sequence[tuple[int, str]], *, all_queued: bool) -> None:
        """As the dispatcher's."""
        self.pairs += pairs

    def work(self) -> None:
        """Do everything, messages that come twice too."""
        pairs, self.pairs = self.pairs, []
        for id_, _ in pairs:
            lease = self.store.evaluations.claim(id_, "fleet", 60)
            if lease is not None:
                self.store.evaluations.finish(lease, self.evaluate(lease.recipe, lease.part))


@pytest.fixture
def fleet(any_store: Store) -> Fleet:
    return Fleet(any_store)


@pytest.fixture
def keepers(any_store: Store) -> Iterator[Callable[[str], Keeper]]:
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Keeper(any_store, name, 30.0))


def judged(store: Store, verdict: dict[str, object] | None) -> None:
    """Do the judge's job, if there is one."""
    lease = store.jobs.claim_next(("judge",), "clerk", 60)
    if lease is None:
        return
    if verdict is None:
        store.jobs.refuse(lease, {"detail": "the tasks have changed"})
    else:
        store.jobs.finish(lease, verdict)


def turn(reconcilers: Sequence[Reconciler], fleet: Fleet, verdict: dict[str, object] | None = None) -> None:
    """Rounds until every study is over."""
    for _ in range(200):
        for reconciler in reconcilers:
            assert 0 < reconciler.round() <= LONGEST_WAIT
        fleet.work()
        judged(fleet.store, verdict)
        if all(s.state in ("finished", "failed", "cancelled") for s in fleet.store.studies.all()):
            return
    raise AssertionError("the studies did not end")


def sound(store: Store, study: Study, trials: int) -> None:
    found = store.trials.all(study.id)
    assert [t.number for t in found] == list(range(trials))
    assert sorted(t.told_order or 0 for t in found) == list(range(1, trials + 1))


def test_studies_are_taken_to_their_verdict(any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]) -> None:
    studies = [create(any_store, make_spec(name=name, search={"parallel": 3})) for name in ("one", "two")]
    changed: set[int] = set()
    turn([Reconciler(any_store, fleet.publish, keepers("c"), changed.add)], fleet, {"winner": 3})
    for study in studies:
        sound(any_store, study, 12)
        kinds = [e.kind for e in any_store.events.after(study.id, 0)]
        assert kinds.count("trial.told") == 12 and kinds[-2:] == ["study.verdict", "study.state"]
        assert any_store.studies.by_id(study.id).verdict == {"winner": 3}
    assert changed == {study.id for study in studies}
    assert any_store.metrics.read().counters["asks"] > 0


def test_two_controllers_share_and_do_not_meddle(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    studies = [create(any_store, make_spec(name=f"s{i}")) for i in range(3)]
    both = [Reconciler(any_store, fleet.publish, keepers(name), lambda id_: None) for name in ("one", "two")]
    turn(both, fleet, {"winner": 0})
    for study in studies:
        sound(any_store, study, 12)


def test_a_study_without_a_baseline_fails_with_the_reason(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    study = create(any_store, make_spec())
    fleet.evaluate = lambda recipe, part: Failed(why="no disk")
    turn([Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)], fleet)
    assert "no disk" in (any_store.studies.by_id(study.id).why or "")
    with pytest.raises(Conflict, match=r"none of its trials could be scored.*under another name"):
        any_store.studies.resume(study.name)  # its trials stay told, so it would only fail again


def test_a_verdict_that_cannot_be_reached_fails_the_study(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    study = create(any_store, make_spec())
    turn([Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)], fleet, None)
    ended = any_store.studies.by_id(study.id)
    assert ended.state == "failed" and "the tasks have changed" in (ended.why or "")
    told = any_store.trials.all(study.id)
    any_store.studies.resume(study.name)  # once they were put back
    turn([Reconciler(any_store, fleet.publish, keepers("d"), lambda id_: None)], fleet, {"winner": 1})
    ended = any_store.studies.by_id(study.id)
    assert ended.state == "finished" and ended.why is None and any_store.trials.all(study.id) == told


def test_a_paused_study_ends_what_is_begun_and_begins_nothing(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    study = create(any_store, make_spec(search={"parallel": 2}))
    reconciler = Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)
    reconciler.round()
    lease = any_store.evaluations.claim(fleet.pairs[0][0], "slow", 60)
    assert lease is not None
    any_store.studies.pause(study.name)
    fleet.work()
    assert any_store.evaluations.finish(lease, by_bowl(lease.recipe, lease.part))
    reconciler.round()
    assert any_store.studies.counts(study.id) == {"complete": 1, "open": 1}
    any_store.studies.resume(study.name)
    turn([reconciler], fleet, {"winner": 0})
    sound(any_store, study, 12)


def test_a_study_paused_at_its_end_is_not_compared_before_it_is_resumed(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    study = create(any_store, make_spec())
    reconciler = Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)
    while any_store.studies.counts(study.id).get("complete", 0) < 11:
        reconciler.round()
        fleet.work()
    any_store.studies.pause(study.name)
    reconciler.round()
    reconciler.round()
    assert any_store.studies.counts(study.id) == {"complete": 12}
    assert any_store.studies.by_id(study.id).phase == "searching" and any_store.evaluations.unfinished(study.id) == ()
    any_store.studies.resume(study.name)
    reconciler.round()
    fleet.work()
    any_store.studies.pause(study.name)
    reconciler.round()
    assert any_store.jobs.of_study(study.id, "judge") == ()
    any_store.studies.resume(study.name)
    turn([reconciler], fleet, {"winner": 0})
    sound(any_store, study, 12)


def test_a_phase_is_told_once_however_often_it_is_replayed(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    study = create(any_store, make_spec())
    reconciler = Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)
    while any_store.studies.by_id(study.id).phase != "judging":
        reconciler.round()
        fleet.work()
        reconciler.forget()
    for _ in range(3):
        reconciler.round()
        reconciler.forget()
    told = [event.data["phase"] for event in any_store.events.after(study.id, 0) if event.kind == "study.phase"]
    assert told == ["searching", "holdout", "judging"]


def test_a_study_cancelled_just_when_it_fails_is_let_go(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create(any_store, make_spec())
    fleet.evaluate = lambda recipe, part: Failed(why="no disk")
    fail = any_store.studies.fail

    def cancelled_before(lead: Lead, why: str) -> None:
        any_store.studies.cancel(study.name)
        fail(lead, why)

    monkeypatch.setattr(any_store.studies, "fail", cancelled_before)
    turn([Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)], fleet)
    assert any_store.studies.by_id(study.id).state == "cancelled" and any_store.leads.vacant() == ()


def test_a_cancelled_study_is_let_go(any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]) -> None:
    study = create(any_store, make_spec(search={"parallel": 2}))
    changed: list[int] = []
    reconciler = Reconciler(any_store, fleet.publish, keepers("c"), changed.append)
    reconciler.round()
    any_store.studies.cancel(study.name)
    reconciler.round()
    assert any_store.studies.counts(study.id) == {"cancelled": 2} and changed[-1] == study.id
    assert any_store.leads.vacant() == () and any_store.evaluations.queued() == ()


def test_one_broken_study_does_not_hold_up_the_others(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper], caplog: pytest.LogCaptureFixture
) -> None:
    broken = create(any_store, make_spec(name="broken"))
    good = create(any_store, make_spec(name="good"))
    reconciler = Reconciler(any_store, fleet.publish, keepers("c"), lambda id_: None)
    real = any_store.trials.ready

    def ready(study_id: int) -> object:
        if study_id == broken.id:
            raise ZeroDivisionError("a bug")
        return real(study_id)

    any_store.trials.ready = ready  # type: ignore[method-assign,assignment]
    for _ in range(60):
        reconciler.round()
        fleet.work()
        judged(any_store, {"winner": 0})
    assert any_store.studies.by_id(good.id).state == "finished"
    assert any_store.studies.by_id(broken.id).state == "running" and "a bug" in caplog.text


def test_a_controller_that_lost_its_lead_writes_nothing(
    any_store: Store, fleet: Fleet, keepers: Callable[[str], Keeper]
) -> None:
    study = create(any_store, make_spec())
    old = Reconciler(any_store, fleet.publish, keepers("old"), lambda id_: None)
    old.round()
    before = any_store.trials.all(study.id)
    any_store.leads.seize(study.id, "another")
    fleet.work()
    old.round()
    assert any_store.trials.all(study.id) == before, "told by nobody yet"
    with pytest.raises(LeadLost):
        any_store.studies.fail(Lead(study.id, "stale"), "no")
