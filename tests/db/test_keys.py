"""API keys: a secret is told once and kept nowhere; whatever else is sent opens nothing and breaks nothing."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text

from db.keys import Keys
from db.session import make_engine
from db.store import Store
from merging.errors import InvalidInput, NotFound


def test_the_secret_is_kept_nowhere(any_store: Store) -> None:
    key, secret = any_store.keys.create("ci", ["run"])
    assert re.fullmatch(rf"ms_{key.prefix}_[A-Za-z0-9_-]{{43}}", secret)
    engine = make_engine(any_store.url)
    with engine.connect() as connection:
        row = connection.execute(text("select * from api_key")).one()
    engine.dispose()
    tail = secret.rpartition(f"{key.prefix}_")[2]
    assert not any(tail in str(value) for value in row)


def test_a_key_opens_until_it_is_revoked_or_expires(any_store: Store) -> None:
    key, secret = any_store.keys.create("ci", ["read", "run"], expires_at=time.time() + 60)
    found = any_store.keys.authenticate(secret)
    assert found is not None and (found.id, found.name, found.scopes) == (key.id, "ci", ("read", "run"))
    for expiry in (time.time() - 1, 0.0):
        late, gone = any_store.keys.create("late", ["admin"], expires_at=expiry)
        assert any_store.keys.authenticate(gone) is None and any_store.keys.by_prefix(late.prefix) is None
    revoked = any_store.keys.revoke(key.prefix)
    assert revoked.revoked_at is not None and any_store.keys.revoke(key.prefix) == revoked
    assert any_store.keys.authenticate(secret) is None and any_store.keys.by_prefix(key.prefix) is None
    assert [k.name for k in any_store.keys.all()] == ["ci", "late", "late"]
    with pytest.raises(NotFound, match="keys list"):
        any_store.keys.revoke("ffffffff")


def test_a_wrong_secret_opens_nothing(any_store: Store) -> None:
    key, secret = any_store.keys.create("ci", ["run"])
    other, another = any_store.keys.create("other", ["run"])
    wrong = [
        secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        secret + "A",
        secret[:-1],
        " " + secret,
        secret + "\n",
        secret.upper(),
        secret.replace(key.prefix, other.prefix),
        another.replace(other.prefix, key.prefix),
        f"ms_{key.prefix}_",
    ]
    for attempt in wrong:
        assert any_store.keys.authenticate(attempt) is None, attempt
    assert all(k.last_used_at is None for k in any_store.keys.all())


GARBAGE = ["", "_", "__", "ms__", "\0", "ms_\0_\0", "ms_\udcff_x", "ms_" + "é" * 8 + "_x", "a" * 100_000, "ms_0_'; --"]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_key(any_store: Store, garbage: str) -> None:
    assert any_store.keys.authenticate(garbage) is None
    assert any_store.keys.by_prefix(garbage) is None


@given(st.text(st.characters(codec=None, categories=None)))
def test_nothing_that_is_no_key_reaches_the_database(sent: str) -> None:
    engine = make_engine("sqlite://")
    event.listen(engine, "engine_connect", lambda connection: pytest.fail("the database was asked"))
    assert Keys(engine).authenticate(sent) is None
    engine.dispose()


def test_scopes_are_known_ones(any_store: Store) -> None:
    with pytest.raises(InvalidInput, match=r"scope: 'root' is unknown; use one of read, run, admin"):
        any_store.keys.create("ci", ["read", "root"])
    assert any_store.keys.all() == ()


def test_the_last_use_is_noted_at_most_once_a_minute(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = any_store.keys.create("ci", ["read"])

    def use(at: float) -> float | None:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: at)
            assert any_store.keys.authenticate(secret) is not None
        return any_store.keys.all()[0].last_used_at

    assert [use(1000.0), use(1030.0), use(1059.9), use(1061.0), use(1100.0)] == [1000, 1000, 1000, 1061, 1061]
