"""The doctor says what is wrong with a database before a run meets it, and prints any path."""

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from api.doctor import examine, show
from api.findings import Finding
from db.schema import VERSION_TABLE, head
from db.store import FILE, open_home


def database(home: Path) -> Finding:
    return next(finding for finding in examine(None, home) if finding.what == "database")


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_sound_database_and_one_yet_to_be_made(tmp_path: Path) -> None:
    assert database(tmp_path / "none").state == "ok" and not (tmp_path / "none").exists()
    (tmp_path / FILE).touch()
    assert database(tmp_path).state == "warning" and f"brings it to {head()}" in database(tmp_path).found
    open_home(tmp_path).close()
    assert database(tmp_path) == Finding("database", "ok", f"{tmp_path / FILE} at version {head()}")


def test_a_broken_database_is_bad(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"garbage\n" * 1000)
    found = database(tmp_path)
    assert found.state == "bad"
    assert str(tmp_path / FILE) in found.found and "not a database" in found.found and "--home" in found.found


def test_a_database_newer_than_the_code_is_bad(tmp_path: Path) -> None:
    open_home(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute(f"update {VERSION_TABLE} set version_num = '9999'")
    found = database(tmp_path)
    assert found.state == "bad" and "9999" in found.found and "install a newer" in found.found


@pytest.mark.parametrize("name", ["[/b]", "[red]x", "[link=http://x]y[/link]"])
def test_what_looks_like_markup_is_shown_as_it_is(name: str) -> None:
    console = Console(file=io.StringIO(), width=200)
    show((Finding(f"home {name}", "bad", f"/tmp/{name} cannot be written"),), console)
    shown = written(console)
    assert f"home {name}" in shown and f"/tmp/{name} cannot" in shown and "bad" in shown


def test_a_home_that_looks_like_markup_is_examined_and_shown(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=400)
    show(examine(None, tmp_path / "[" / "b]"), console)
    assert "/[/b] can be written" in written(console)
