"""Events: numbered without gaps in the order in which they become true, so a reader's cursor skips none."""

import threading

from sqlalchemy.orm import Session

from db.events import append_event
from db.records import Study
from db.session import make_engine
from db.store import Store
from tests.db.crew import SIZE, Crew, each_of
from tests.search.factories import create, make_spec

MANY = 25


def write_or_read(store: Store, number: int, study_id: int) -> list[int]:
    """Process 0 reads with a cursor until it has all, the others write; the numbers read."""
    if number:
        engine = make_engine(store.url)
        for turn in range(MANY):
            with Session(engine) as session, session.begin():
                append_event(session, study_id, "test", {"writer": number, "turn": turn})
        engine.dispose()
        return []
    seen: list[int] = []
    while len(seen) < (SIZE - 1) * MANY:
        seen += [event.seq for event in store.events.after(study_id, seen[-1] if seen else 1, limit=7)]
    return seen


def test_a_readers_cursor_skips_nothing_while_many_write(any_store: Store, study: Study, crew: Crew) -> None:
    seen = crew.race(any_store, write_or_read, each_of(study.id))[0]
    assert seen == list(range(2, (SIZE - 1) * MANY + 2))
    events = any_store.events.after(study.id, 1)
    for writer in range(1, SIZE):
        assert [e.data["turn"] for e in events if e.data["writer"] == writer] == list(range(MANY))


def test_an_event_waits_for_the_one_before_it(any_store: Store, study: Study) -> None:
    engine = make_engine(any_store.url)
    other = create(any_store, make_spec(name="other"))
    wrote = threading.Event()

    def write() -> None:
        with Session(engine) as session, session.begin():
            append_event(session, study.id, "second", {})
        wrote.set()

    with Session(engine) as session, session.begin():
        append_event(session, study.id, "first", {})
        writer = threading.Thread(target=write)
        writer.start()
        assert not wrote.wait(0.3), "its number depends on ours"
        assert any_store.events.last(study.id) == 1, "what is not committed is not told"
    writer.join(30)
    assert wrote.is_set()
    assert [(e.seq, e.kind) for e in any_store.events.after(study.id, 1)] == [(2, "first"), (3, "second")]
    assert any_store.events.last(other.id) == 1, "each study counts for itself"
    engine.dispose()


def test_an_event_whose_transaction_fails_leaves_no_gap(any_store: Store, study: Study) -> None:
    engine = make_engine(any_store.url)
    with Session(engine) as session:
        append_event(session, study.id, "undone", {})
        session.rollback()
    with Session(engine) as session, session.begin():
        append_event(session, study.id, "done", {"text": "é\0☃"})
    (event,) = any_store.events.after(study.id, 1)
    assert (event.seq, event.kind, event.data) == (2, "done", {"text": "é\0☃"})
    engine.dispose()


def test_a_study_tells_its_course_in_order(any_store: Store, study: Study) -> None:
    assert any_store.events.last(study.id + 1) == 0 and any_store.events.after(study.id + 1, 0) == ()
    lead = any_store.leads.seize(study.id, "me")
    any_store.studies.enter(lead, "searching")
    any_store.studies.enter(lead, "searching")
    any_store.studies.fail(lead, "nothing could be scored")
    events = any_store.events.after(study.id, 0)
    assert [(e.seq, e.kind, e.data) for e in events] == [
        (1, "study.created", {"name": "test"}),
        (2, "study.phase", {"phase": "searching"}),
        (3, "study.state", {"state": "failed", "why": "nothing could be scored"}),
    ]
    assert any_store.events.after(study.id, 1, limit=1) == events[1:2]
