"""Opening a database: readers wait for nobody, a home that is only read stays as it is, broken files are named."""

import pickle
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import InternalError

from db.records import Lease
from db.session import BrokenDatabase, blaming_the_database, broken, make_engine, sqlite_url
from db.store import FILE, Store, find_home, open_home, open_store
from db.trials import NewTrial
from merging.errors import InvalidInput
from tests.db.rows import recipe
from tests.search.factories import create, leading, make_spec

MOVE = "move it away or name another --home"


def read_all(store: Store, study_id: int, evaluation_id: int) -> list[object]:
    """What every method that only reads says, or has nothing to write."""
    store.jobs.sweep()
    return [
        store.studies.get("test"),
        store.studies.find("test"),
        store.studies.by_id(study_id),
        store.studies.all(),
        store.studies.counts(study_id),
        store.studies.documents(study_id),
        store.trials.all(study_id),
        store.trials.ready(study_id),
        store.evaluations.get(evaluation_id),
        store.evaluations.recipe(evaluation_id),
        store.evaluations.knows(study_id, "d0"),
        store.evaluations.unfinished(study_id),
        store.evaluations.state(evaluation_id),
        store.evaluations.values([evaluation_id]),
        store.evaluations.running(study_id),
        store.evaluations.queued(),
        store.evaluations.seconds_to_next_expiry(),
        store.evaluations.want(study_id, recipe(), "d0", "search"),
        store.evaluations.wanted(Lease(evaluation_id, study_id, "", recipe(), "search", 1)),
        store.evaluations.sweep(),
        store.studies.page(None, 5),
        store.trials.page(study_id, None, 5),
        store.trials.get(study_id, 0),
        store.trials.best(study_id),
        store.events.after(study_id, 0),
        store.events.last(study_id),
        store.leads.vacant(),
        store.jobs.of_study(study_id, "export"),
        store.jobs.claim_next(("check",), "clerk", 60),
        store.keys.all(),
        store.keys.by_prefix("00000000"),
        store.processes.alive("worker"),
        store.processes.seconds_since("worker"),
        store.metrics.read(),
        store.fingerprints.get("k"),
    ]


def test_reads_do_not_wait_for_a_writer_and_see_what_was_before_it(store: Store, tmp_path: Path) -> None:
    study = create(store, make_spec())
    trial = store.trials.add(leading(store, study.id), NewTrial(0, "tpe", {}, recipe(), "d0"))
    store.fingerprints.put("k", "f")
    evaluation_id = trial.evaluation_id or 0
    before = read_all(store, study.id, evaluation_id)
    with closing(sqlite3.connect(tmp_path / "home" / FILE, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("update merge_study set state = 'failed'")
        writer.execute("delete from model_fingerprint")
        started = time.monotonic()
        assert read_all(store, study.id, evaluation_id) == before
        found = find_home(tmp_path / "home")
        assert found is not None and found.studies.find("test") == study
        assert time.monotonic() - started < 10, "a lock is waited for 30 seconds"
        found.close()
        writer.execute("COMMIT")
    assert store.studies.get("test").state == "failed" and store.fingerprints.get("k") is None


def test_a_reader_does_not_make_its_connection_lax_for_the_writers_after_it(store: Store, tmp_path: Path) -> None:
    assert store.studies.all() == ()
    study = create(store, make_spec())
    with closing(sqlite3.connect(tmp_path / "home" / FILE, timeout=0, isolation_level=None)) as other:
        with store.studies._writer.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        with store.studies._reader.begin():
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
    assert store.studies.all() == (study,)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_postgresqls_readers_see_one_state_and_write_nothing(any_store: Store) -> None:
    with any_store.studies._reader.connect() as connection:
        count = text("select count(*) from merge_study")
        assert connection.scalar(count) == 0
        study = create(any_store, make_spec())
        assert connection.scalar(count) == 0 and any_store.studies.all() == (study,)
        with pytest.raises(InternalError, match="read-only transaction"):
            connection.execute(text("delete from merge_study"))
    any_store.leads.seize(study.id, "me")


def test_a_home_that_is_only_looked_into_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_home(tmp_path / "home") is None and not (tmp_path / "home").exists()
    open_home(tmp_path / "home").close()

    def written(*args: object, **kw: object) -> None:
        raise AssertionError("the home was written to")

    for name in ("touch", "mkdir"):
        monkeypatch.setattr(Path, name, written)
    found = find_home(tmp_path / "home")
    assert found is not None and found.studies.all() == ()
    found.close()


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage\n" * 1000)


def cut_short(path: Path) -> None:
    open_store(sqlite_url(path)).close()
    path.write_bytes(path.read_bytes()[:5000])


def of_somebody_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table score (x integer)")


def with_another_version_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table mergesearch_version (x integer)")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (garbage, "file is not a database"),
        (cut_short, "database disk image is malformed"),
        (of_somebody_else, "its tables score are not mergesearch's"),
        (with_another_version_table, "no such column.*"),
        (Path.mkdir, "unable to open database file"),
    ],
)
def test_a_broken_database_is_named_with_its_cause_and_what_to_do(
    tmp_path: Path, make: Callable[[Path], None], cause: str
) -> None:
    make(tmp_path / FILE)
    for opening in (find_home, open_home):
        with pytest.raises(BrokenDatabase, match=rf"^database: '{tmp_path / FILE}' .*\({cause}\); {MOVE}$") as info:
            opening(tmp_path)
        assert isinstance(info.value, InvalidInput) and "\n" not in str(info.value)
        assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)


def test_a_busy_database_is_not_to_be_moved_away(tmp_path: Path) -> None:
    open_home(tmp_path).close()
    engine = make_engine(sqlite_url(tmp_path / FILE))
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=1"))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        told = pytest.raises(BrokenDatabase, match=r"\(database is locked\); wait for the process")
        with told, blaming_the_database(engine), engine.begin():
            pass
    engine.dispose()


def test_no_password_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = make_engine(sqlite_url(tmp_path / FILE))
    monkeypatch.setattr(engine, "url", make_url("postgresql://me:secret@host/db"))
    monkeypatch.setattr(engine.dialect, "name", "postgresql")
    assert "host/db" in str(broken(engine, "gone\naway")) and "(gone away)" in str(broken(engine, "gone\naway"))
    assert "secret" not in str(broken(engine, "gone"))
    engine.dispose()
