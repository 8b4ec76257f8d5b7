"""A PostgreSQL server that goes away and comes back: nobody fails who waits, nothing is half written."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy.exc import SQLAlchemyError

from db.events import append_event
from db.leads import leading
from db.session import BrokenDatabase, is_away, make_engine, reader
from db.store import Store, connect_store, open_store
from db.wakeups import EVENT
from tests.db.rows import added, taken
from tests.search.factories import create, make_spec
from tests.services import Postgres


@pytest.fixture
def away(own_postgres: Postgres) -> Iterator[Store]:
    """A store on a server of the test's own."""
    with closing(open_store(own_postgres.database())) as store:
        yield store


def test_a_server_that_is_restarted(own_postgres: Postgres, away: Store) -> None:
    study = create(away, make_spec())
    lead = taken(away, study)
    engine = make_engine(away.url)
    with closing(away.wakeups(EVENT)) as waiter:
        assert waiter.wait(0) and not waiter.wait(0)
        with pytest.raises(SQLAlchemyError) as told, leading(engine, lead) as session:
            append_event(session, study.id, "half", {})
            own_postgres.stop()
            session.connection().exec_driver_sql("select 1")
        assert is_away(told.value)
        engine.dispose()
        with pytest.raises(SQLAlchemyError) as told:
            away.studies.all()
        assert is_away(told.value)
        with pytest.raises(BrokenDatabase, match="see that the server runs"):
            connect_store(away.url)
        began = time.monotonic()
        assert not waiter.wait(0.2) and time.monotonic() - began >= 0.2, "who waits neither fails nor returns sooner"

        own_postgres.start()
        assert away.studies.all() == (study,), "connections that died are replaced"
        assert away.events.last(study.id) == 1, "what was not committed is not there"
        assert added(away, lead).number == 0, "the lead is a row"
        assert waiter.wait(30), "what was said meanwhile nobody heard"
        waiter.wait(0)
        away.trials.tell(lead, 0, "failed", None)
        assert waiter.wait(30), "it listens again"


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_process_frozen_within_a_transaction_keeps_its_locks_only_for_a_while(store_url: str) -> None:
    engine = make_engine(store_url)
    for each in (engine, reader(engine)):
        with each.connect() as connection:
            assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar() == "15s"
    engine.dispose()


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_server_ends_who_idles_within_a_transaction(any_store: Store) -> None:
    study = create(any_store, make_spec())
    lead = taken(any_store, study)
    engine = make_engine(any_store.url)
    with pytest.raises(SQLAlchemyError) as told, leading(engine, lead) as session:
        session.connection().exec_driver_sql("SET idle_in_transaction_session_timeout = '100ms'")
        any_store.leads.release(lead)  # waits for the frozen one, and not for ever
        session.connection().exec_driver_sql("select 1")
    assert is_away(told.value)
    assert any_store.leads.take(study.id, "another", 60) is not None
    engine.dispose()
