"""Exports come whole and verified, or leave nothing."""

import errno
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from api.client import download
from api.client.problems import ServiceError
from api.forms import Form
from db.jobs import Jobs
from db.records import JobLease
from merging.errors import Conflict, InvalidInput, NotFound, OutputError
from tests.api.client.conftest import FILES, WEIGHTS, Running


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to be made, in one that must hold nothing else."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine" / "winner"


def test_an_export_is_written_downloaded_and_verified(finished: Running, place: Path) -> None:
    told: list[tuple[str, int]] = []
    with finished.remote() as remote:
        done, files = remote.export("test", None, place, lambda file, have: told.append((file.name, have)))
    assert done["trial"] == 1 and [file.name for file in files] == list(FILES)
    assert contents(place) == FILES and list(place.parent.iterdir()) == [place]
    assert ("model.safetensors", len(WEIGHTS)) in told
    umask = os.umask(0)
    os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_download_goes_on_where_it_broke(finished: Running, place: Path) -> None:
    finished.cutter.budgets = [3000, 1, 200, *[150_000] * 5]
    with finished.remote(cut=True) as remote:
        remote.export("test", 1, place)
    assert contents(place) == FILES and finished.cutter.connections > 7
    assert finished.cutter.passed < 1.4 * len(WEIGHTS)  # what was under way when it broke comes again


def test_a_service_that_stays_away_leaves_nothing(finished: Running, place: Path) -> None:
    finished.cutter.budgets = [300_000] + [1] * 100
    with finished.remote(cut=True, patience=0.8) as remote, pytest.raises(ServiceError, match="broke"):
        remote.export("test", 1, place)
    assert list(place.parent.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(finished: Running, place: Path) -> None:
    def stop(file: object, have: int) -> None:
        if have > 100_000:
            raise KeyboardInterrupt

    with finished.remote() as remote, pytest.raises(KeyboardInterrupt):
        remote.export("test", 1, place, stop)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_nothing_is_overwritten(finished: Running, place: Path, there: str) -> None:
    if there == "folder":
        place.mkdir()
    elif there == "file":
        place.touch()
    else:
        place.symlink_to("nowhere")
    with finished.remote() as remote, pytest.raises(OutputError, match=r"exists; choose another folder, or remove it"):
        remote.export("test", 1, place)
    study = finished.store.studies.get("test")
    assert finished.store.jobs.of_study(study.id, "export") == (), "nothing was asked for"


def test_places_that_cannot_be_written(
    finished: Running, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with finished.remote() as remote:
        with pytest.raises(OutputError, match=r"no such folder.*create its parent folder first"):
            remote.export("test", 1, tmp_path / "no" / "x")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(OutputError, match=f"{os.strerror(errno.ENOSPC)}.*free disk space"):
            remote.export("test", 1, place)
    assert list(place.parent.iterdir()) == []


def test_a_form_is_passed_on(finished: Running, place: Path) -> None:
    with finished.remote() as remote:
        done, _ = remote.export("test", 1, place, form=Form("sparse", {"density": 0.5}))
        assert (done["as"], done["settings"]) == ("sparse", {"density": 0.5}) and place.is_dir()
        other = place.with_name("other")
        with pytest.raises(InvalidInput, match=r"settings.densty: 0.5 is no setting of sparse; its settings: density"):
            remote.export("test", 1, other, form=Form("sparse", {"densty": 0.5}))
        assert not other.exists()


def test_what_cannot_be_exported(finished: Running, place: Path) -> None:
    with finished.remote() as remote:
        with pytest.raises(Conflict, match="have changed since it ran"):
            remote.export("test", 0, place)
        with pytest.raises(NotFound, match="has no trial 7"):
            remote.export("test", 7, place)
        with pytest.raises(NotFound, match="no study is named 'no'"):
            remote.export("no", None, place)
    assert list(place.parent.iterdir()) == []


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flipped, r"model.safetensors does not have the checksum .*, twice; export the trial again"),
        (lambda content: content + b"more", r"model.safetensors does not have the checksum"),
        (lambda content: content[:-10], r"model.safetensors ended after 999990 of 1000000 bytes"),
    ],
    ids=["flipped", "longer", "shorter"],
)
def test_files_that_are_not_what_is_listed(
    finished: Running, place: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes], said: str
) -> None:
    finish = Jobs.finish

    def finish_badly(self: Jobs, lease: JobLease, result: dict[str, Any]) -> bool:
        file = Path(result["folder"]) / "model.safetensors"
        file.write_bytes(spoil(file.read_bytes()))
        return finish(self, lease, result)

    monkeypatch.setattr(Jobs, "finish", finish_badly)
    with finished.remote() as remote, pytest.raises(ServiceError, match=said):
        remote.export("test", 1, place)
    assert list(place.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a//b", "a\\b", "a\0b", "./a"])
def test_a_service_cannot_name_places_outside(name: str) -> None:
    file = {"name": name, "bytes": 1, "sha256": sha256(b"x").hexdigest()}
    with pytest.raises(ServiceError, match="not within the export"):
        download.listed({"id": 1, "files": [file]})
