"""One run a study and home: a file lock that goes with the process, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from merging.errors import Conflict


@contextmanager
def only_runner(home: Path, name: str) -> Iterator[None]:
    """Hold the study's lock.

    Raises:
        Conflict: another process holds it.
    """
    (home / "locks").mkdir(exist_ok=True)
    try:
        with FileLock(_file(home, name), timeout=0):
            yield
    except Timeout as error:
        raise Conflict(f"study {name!r} is being run by another process here; wait for it or end it") from error


def is_being_run(home: Path, name: str) -> bool:
    """Whether a process is running the study now."""
    if not _file(home, name).exists():
        return False
    try:
        with FileLock(_file(home, name), timeout=0):
            return False
    except Timeout:
        return True


def _file(home: Path, name: str) -> Path:
    return home / "locks" / f"study-{name}.lock"
