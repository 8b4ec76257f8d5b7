"""Where the kernel comes from: compiled once, kept safely, done without where it cannot be had."""

import logging
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from merging.errors import InvalidInput
from merging.kernel import Keep, Program, choice, run, weighted_sum
from merging.kernel.compile import NoKernel, compiled

# Answers --version, refuses what REFUSED says, and writes what it was told to make where -o says.
FAKE = """#!/bin/sh
case "$*" in
  *--version*) echo fake {version}; exit 0;;
  *{refused}*) echo cannot do {refused} >&2; exit 1;;
esac
echo "$@" >> {log}
for last; do :; done
echo library > "$last"
"""
Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a compiler of our own and an empty cache; returns the file in which it logs its calls."""

    def make(version: str = "1", refused: str = "nothing-at-all") -> Path:
        script, log = tmp_path / "fake compiler", tmp_path / "calls"
        script.write_text(FAKE.format(version=version, refused=refused, log=log))
        script.chmod(0o755)
        monkeypatch.setenv("CXX", f"'{script}'")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return log

    return make


def merged() -> list[float]:
    out = torch.empty(3)
    run(Program((Keep(0.5),), "sum"), out, torch.zeros(3), [torch.full((3,), 4.0)], torch.float32)
    return out.tolist()


def test_the_kernel_is_compiled_once_for_each_compiler(fake: Fake, tmp_path: Path) -> None:
    log = fake()
    first = compiled()
    assert compiled() == first
    assert len(log.read_text().splitlines()) == 1
    assert first.read_text() == "library\n"
    fake(version="2")
    assert compiled() != first
    assert sorted(path.suffix for path in first.parent.iterdir()) == [".so", ".so"], "nothing half-made is left"


def test_several_may_compile_at_once(fake: Fake) -> None:
    fake()
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: compiled(), range(4)))
    assert len(paths) == 1 and paths.pop().read_text() == "library\n"


def test_a_compiler_that_does_not_know_the_processor_compiles_for_any(fake: Fake) -> None:
    log = fake(refused="-march=native")
    assert compiled().exists()
    assert "-march" not in log.read_text()


def test_a_compiler_that_fails_says_why(fake: Fake) -> None:
    fake(refused="-O3")
    with pytest.raises(NoKernel, match="cannot do -O3"):
        compiled()


def test_only_its_owner_may_write_to_the_cache(fake: Fake, tmp_path: Path) -> None:
    fake()
    folder = compiled().parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(NoKernel, match="others may write"):
        compiled()


def test_a_cache_that_belongs_to_somebody_else_is_not_used(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake()
    compiled()
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    with pytest.raises(NoKernel, match="somebody else"):
        compiled()


def test_a_cache_that_cannot_be_made_is_no_kernel(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NoKernel):
        compiled()


def test_without_a_kernel_torch_merges_and_says_so_once(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake()  # what it makes cannot be loaded
    monkeypatch.setattr(choice, "_tried", [])
    monkeypatch.setenv(choice.VARIABLE, "auto")
    with caplog.at_level(logging.INFO, choice.__name__):
        assert merged() == merged() == [2.0] * 3
    assert [record.__dict__["action"] for record in caplog.records] == ["kernel"]
    monkeypatch.setenv(choice.VARIABLE, "native")
    with pytest.raises(InvalidInput, match="MERGESEARCH_KERNEL: 'native' cannot be had"):
        merged()


def test_no_compiler_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NoKernel, match="no C\\+\\+ compiler"):
        compiled()


def test_torch_alone_never_compiles(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake()
    monkeypatch.setattr(choice, "_tried", [])
    monkeypatch.setenv(choice.VARIABLE, "torch")
    assert merged() == [2.0] * 3
    assert not log.exists()


def test_an_unknown_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "cuda")
    with pytest.raises(InvalidInput, match="MERGESEARCH_KERNEL: 'cuda' is no kernel"):
        merged()


@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_merges_on_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "native")
    model, out, threads = torch.ones(1 << 19), torch.zeros(1 << 19).share_memory_(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        weighted_sum(out, [model], [1.0], torch.float32)  # the parent's threads exist
        child = os.fork()
        if child == 0:
            try:
                weighted_sum(out, [model], [3.0], torch.float32)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(threads)
    assert out[0].item() == out[-1].item() == 3.0
