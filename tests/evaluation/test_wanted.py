"""What an evaluation must have, and what of it is missing."""

from typing import Any

from evaluation.wanted import Wanted


def test_what_is_known_is_not_missing() -> None:
    known: dict[str, dict[int, Any]] = {"a": {1: 0.5, 3: None, 9: 1.0}, "b": {4: 1.0, 5: 0.0}, "c": {1: 1.0}}
    wanted = Wanted("search", {"a": (0, 1, 2, 3), "b": (4, 5), "d": (7,)}, known)
    assert wanted.missing == {"a": (0, 2), "d": (7,)}  # an item may be None, and b is known whole
    assert wanted.reused == 4


def test_nothing_known_is_all_missing() -> None:
    wanted = Wanted("holdout", {"a": (0, 1)}, {})
    assert wanted.missing == {"a": (0, 1)} and wanted.reused == 0
