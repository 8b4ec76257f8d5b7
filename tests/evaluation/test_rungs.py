"""Rungs: nested shares of the documents, every task with its share at each."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluation.rungs import LEAST, rung_sizes, rung_totals


@pytest.mark.parametrize(
    ("documents", "first", "factor", "expected"),
    [
        (888, 40, 2.0, (40, 80, 160, 320, 888)),  # 640 would leave less than half a step to the last
        (1600, 40, 2.0, (40, 80, 160, 320, 640, 1600)),
        (320, 40, 2.0, (40, 80, 160, 320)),
        (50, 40, 2.0, (50,)),
        (40, 40, 2.0, (40,)),
        (3, 40, 2.0, (3,)),
        (1, 1, 2.0, (1,)),
        (10, 1, 1.1, (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)),
        (900, 100, 3.0, (100, 300, 900)),
    ],
)
def test_totals_grow_by_the_factor_to_all(documents: int, first: int, factor: float, expected: tuple[int, ...]) -> None:
    assert rung_totals(documents, first, factor) == expected


@pytest.mark.parametrize("wrong", [(0, 40, 2.0), (100, 0, 2.0), (100, 40, 1.0), (100, 40, float("nan"))])
def test_what_makes_no_rungs_is_refused(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="no rungs"):
        rung_totals(*wrong)


def test_sizes_by_hand() -> None:
    assert rung_sizes({"a": 600, "b": 300, "c": 100}, (40, 100, 1000)) == {
        "a": (24, 60, 600),
        "b": (12, 30, 300),
        "c": (4, 10, 100),
    }
    # a small task has its least, or all it has, at every rung
    assert rung_sizes({"a": 990, "b": 8, "c": 2}, (40, 1000)) == {"a": (40, 990), "b": (4, 8), "c": (2, 2)}
    # 10 shared out as 3.33 each: the remainders go by name
    assert rung_sizes({"b": 20, "a": 20, "c": 20}, (16, 60)) == {"b": (5, 20), "a": (6, 20), "c": (5, 20)}


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 400), min_size=1)


@settings(deadline=None)
@given(counts, st.integers(1, 60), st.floats(1.2, 5.0))
def test_sizes_never_fall_and_end_with_all(counts: dict[str, int], first: int, factor: float) -> None:
    totals = rung_totals(sum(counts.values()), first, factor)
    assert list(totals) == sorted(set(totals))
    sizes = rung_sizes(counts, totals)
    for task, count in counts.items():
        assert len(sizes[task]) == len(totals) and sizes[task][-1] == count
        assert list(sizes[task]) == sorted(sizes[task]) and sizes[task][0] >= min(LEAST, count)
    for i, total in enumerate(totals):
        least = sum(min(LEAST, count) for count in counts.values())
        assert total <= sum(size[i] for size in sizes.values()) <= total + least + len(counts)


@settings(deadline=None)
@given(counts, st.integers(1, 60))
def test_shares_are_in_proportion(counts: dict[str, int], first: int) -> None:
    whole = sum(counts.values())
    assume(first < whole)
    for task, size in rung_sizes(counts, (first, whole)).items():
        share = counts[task] * first / whole
        assert abs(size[0] - share) < 1 or size[0] == min(LEAST, counts[task])


@pytest.mark.parametrize("totals", [(), (10, 20), (20, 10, 30)])
def test_totals_that_do_not_end_with_all_are_refused(totals: Any) -> None:
    with pytest.raises(ValueError, match="do not end with all 30"):
        rung_sizes({"a": 30}, totals)
