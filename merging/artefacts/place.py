"""Where what is derived from a model lies: in a folder `.mergesearch` of the model, or where the environment says.

MERGESEARCH_ARTEFACTS names one folder for everything. Without it, what belongs to a model whose folder cannot be
written goes to the user's cache.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from merging.errors import OutputError

VARIABLE = "MERGESEARCH_ARTEFACTS"
_HIDDEN = ".mergesearch"
_LOOK_SECONDS = 0.1


def places(model: Path, name: str) -> list[Path]:
    """Where the folder of that name may lie, the most wanted place first.

    Args:
        model: the folder of the model that it is derived from.
    """
    if given := os.environ.get(VARIABLE):
        return [Path(given) / name]
    return [model / _HIDDEN / name, _cache() / name]


def writable(found: Sequence[Path]) -> Path:
    """The first of these places that can be written; its parent is there.

    Raises:
        OutputError: nothing can be written in any of them.
    """
    *others, last = found
    for place in others:
        try:
            place.parent.mkdir(exist_ok=True)
        except OSError:
            continue
        if os.access(place.parent, os.W_OK):
            return place
    try:
        last.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem, remedy = f"cannot be written ({error.strerror})", f"let {VARIABLE} name a folder that can"
        raise OutputError("artefacts", str(last.parent), problem, remedy) from error
    return last


@contextmanager
def locked(place: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the place against other processes; the system frees it when this one dies.

    Args:
        waiting: called now and then while another process holds it; what it raises ends the waiting.
    """
    while True:
        with lock_of(place).open("w", encoding="utf-8") as file:
            while waiting is not None and not _taken(file):
                waiting()
                time.sleep(_LOOK_SECONDS)
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is(file, lock_of(place)):  # else it was removed, and others hold a new one
                yield
                return


def lock_of(place: Path) -> Path:
    """The file that is locked by whoever makes the place."""
    return place.with_suffix(".lock")


def _is(file: TextIO, path: Path) -> bool:
    """Whether the open file is the one that lies there now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _taken(file: TextIO) -> bool:
    """Whether the lock is had at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mergesearch" / "artefacts"
