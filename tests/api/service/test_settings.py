"""The service's settings: from the environment, refused with the variable's name, never the example's passwords."""

from pathlib import Path

import pytest

from api.service.settings import EXAMPLE_PASSWORD, load_settings
from merging.errors import InvalidInput

URL = "postgresql+psycopg://me:secret@127.0.0.1/mergesearch"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGESEARCH_DATABASE_URL", URL)


def test_they_come_from_the_environment_and_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGESEARCH_ROOTS", "/a:/b/c:")
    monkeypatch.setenv("MERGESEARCH_PORT", "9000")
    settings = load_settings(port=None)
    assert settings.roots == (Path("/a"), Path("/b/c")) and settings.port == 9000
    assert load_settings(port=9001).port == 9001


def test_a_missing_database_is_named_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERGESEARCH_DATABASE_URL")
    with pytest.raises(InvalidInput, match=r"MERGESEARCH_DATABASE_URL: is not set; .*postgresql\+psycopg"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "many"),
        ("LEASE_SECONDS", "-1"),
        ("LOG_FORMAT", "xml"),
        ("MAX_BODY_BYTES", "3"),
        ("JUDGE_HOSTS", "judge:99999"),
        ("JUDGE_HOSTS", "judge:0"),
        ("JUDGE_HOSTS", "http://judge"),
    ],
)
def test_an_impossible_value_is_refused_by_its_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MERGESEARCH_{name}", value)
    with pytest.raises(InvalidInput, match=f"MERGESEARCH_{name}: .*{value}"):
        load_settings()


def test_judges_may_be_named_by_host_port_or_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGESEARCH_JUDGE_HOSTS", " Judge.example, 10.0.0.5:8080,,[::1]:81")
    assert load_settings().judge_hosts == ("judge.example", "10.0.0.5:8080", "[::1]:81")
    monkeypatch.setenv("MERGESEARCH_JUDGE_HOSTS", "[::::]")
    with pytest.raises(InvalidInput, match="MERGESEARCH_JUDGE_HOSTS: "):
        load_settings()


@pytest.mark.parametrize("url", ["postgres://me:secret@db/x", "mysql://me:secret@db/x", "secret", "http://[secret"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_url_of_something_else_is_refused_unseen(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MERGESEARCH_{name}", url)
    with pytest.raises(
        InvalidInput, match=rf"MERGESEARCH_{name}: is no URL .*; write (postgresql\+psycopg|redis)://"
    ) as e:
        load_settings()
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_the_examples_password_is_refused_where_others_come_in(
    host: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = "postgresql+psycopg" if name == "DATABASE_URL" else "redis"
    monkeypatch.setenv(f"MERGESEARCH_{name}", f"{scheme}://me:{EXAMPLE_PASSWORD}@127.0.0.1/0")
    with pytest.raises(InvalidInput, match=f"MERGESEARCH_{name}: holds the example password") as refused:
        load_settings(host=host)
    assert EXAMPLE_PASSWORD not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_on_this_machine_alone_it_may_stand(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGESEARCH_DATABASE_URL", f"postgresql+psycopg://me:{EXAMPLE_PASSWORD}@127.0.0.1/0")
    assert load_settings(host=host).host == host
