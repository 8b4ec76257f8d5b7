"""The folders that a study may name: only what lies, links followed, under a permitted root.

What is refused is refused in the same words whether it exists or not: nobody learns here what lies elsewhere.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from merging.errors import InvalidStudy
from search.ingredients import Ground
from search.study import StudySpec

_MOST_FILES = 20_000


def confined(spec: StudySpec, roots: Sequence[Path]) -> StudySpec:
    """The study with every folder absolute and free of links. Relative ones are looked for in each root in turn.

    Raises:
        InvalidStudy: a folder is not there, or it, or a file in it, lies outside of the roots.
    """
    real = tuple(os.path.realpath(root) for root in roots)
    return spec.placed(lambda key, folder: _place(key, folder, real))


def confining(roots: Sequence[Path]) -> Ground:
    """Where the entries of several experts are looked up: in each root in turn, and nowhere else."""
    real = tuple(os.path.realpath(root) for root in roots)
    return Ground(
        starts=lambda key, path: _all_existing(key, path, real),
        inside=lambda place: is_under(os.path.realpath(place), real),
    )


def _place(key: str, path: str, roots: Sequence[str]) -> str:
    found = _all_existing(key, path, roots)[0]
    _require_files_inside(key, path, found, roots)
    return found


def _all_existing(key: str, path: str, roots: Sequence[str]) -> list[str]:
    """What a path may stand for, links followed; never nothing."""
    candidates = [path] if os.path.isabs(path) else [os.path.join(root, path) for root in roots]
    found = [real for real in (_existing(candidate, roots) for candidate in candidates) if real is not None]
    if not found:
        rooted = "name a folder under one of them, relative to it"
        remedy = rooted if roots else "set MERGESEARCH_ROOTS on the server first"
        raise InvalidStudy(key, path, "is not under a permitted root of this service", remedy)
    return found


def _existing(path: str, roots: Sequence[str]) -> str | None:
    """The path, links followed, if it is there and under a root."""
    try:
        real = os.path.realpath(path)
        return real if is_under(real, roots) and os.path.exists(real) else None
    except (OSError, ValueError):  # too long, a NUL in it, links in a circle
        return None


def is_under(real: str, roots: Sequence[str]) -> bool:
    """Whether a path without links lies in one of these folders, or is one."""
    return any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def _require_files_inside(key: str, shown: str, folder: str, roots: Sequence[str]) -> None:
    try:
        for number, link in enumerate(_links(folder)):
            if link and not is_under(os.path.realpath(link), roots):
                inside = os.path.relpath(link, folder)
                problem = f"holds {inside!r}, which leads out of the permitted roots of this service"
                raise InvalidStudy(key, shown, problem, "put the file itself there")
            if number >= _MOST_FILES:
                raise InvalidStudy(key, shown, f"holds more than {_MOST_FILES} files", "name a folder of its own")
    except OSError as error:
        raise InvalidStudy(key, shown, f"cannot be read ({error.strerror})", "let the service read it") from error


def _links(folder: str) -> Iterator[str | None]:
    """Everything in a folder at any depth, links to folders followed once: the path of a link, else None."""
    waiting, seen = [folder], {folder}
    while waiting:
        place = waiting.pop()
        if not os.path.isdir(place):
            continue
        with os.scandir(place) as entries:
            for entry in entries:
                yield entry.path if entry.is_symlink() else None
                if entry.is_dir():
                    real = os.path.realpath(entry.path)
                    if real not in seen:
                        seen.add(real)
                        waiting.append(entry.path)
