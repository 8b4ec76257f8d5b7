"""The keyed split: by content alone, the same for duplicates, in any order, at the share asked for."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.result import Part
from evaluation.split import Split, canonical, require_both_parts, split
from merging.errors import InvalidStudy

documents = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 5) | st.text(max_size=3) | st.none()), min_size=1
)


def _contents(rows: list[Any], part: tuple[int, ...]) -> set[bytes]:
    return {canonical(rows[i]) for i in part}


@settings(deadline=None)
@given(documents, st.text(), st.floats(0.01, 0.99), st.none() | st.integers(1, 20))
def test_parts_are_disjoint_ascending_and_of_the_size_asked_for(
    rows: list[Any], key: str, holdout: float, cap: int | None
) -> None:
    parts = split(rows, key, holdout, cap)
    assert sorted(parts.search + parts.holdout) == sorted(set(parts.search + parts.holdout))
    assert parts.search == tuple(sorted(parts.search)) and parts.holdout == tuple(sorted(parts.holdout))
    assert len(parts.search) + len(parts.holdout) == min(len(rows), cap or len(rows))


@settings(deadline=None)
@given(documents, documents, st.floats(0.01, 0.99))
def test_the_same_content_is_on_the_same_side_in_every_task(rows: list[Any], others: list[Any], holdout: float) -> None:
    one, two = split(rows, "key", holdout), split(others + rows, "key", holdout)
    assert not _contents(rows, one.search) & _contents(others + rows, two.holdout)
    assert not _contents(rows, one.holdout) & _contents(others + rows, two.search)


def test_documents_that_differ_only_in_an_id_are_drawn_by_themselves() -> None:
    parts = split([{"q": "the same", "id": i} for i in range(100)], "key", 0.5)
    assert parts.search and parts.holdout


@settings(deadline=None)
@given(documents, st.randoms(), st.integers(1, 20))
def test_order_changes_nothing(rows: list[Any], rng: Any, cap: int) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    one, two = split(rows, "key", 0.3, cap), split(shuffled, "key", 0.3, cap)
    assert sorted(canonical(rows[i]) for i in one.search) == sorted(canonical(shuffled[i]) for i in two.search)
    assert sorted(canonical(rows[i]) for i in one.holdout) == sorted(canonical(shuffled[i]) for i in two.holdout)


@settings(deadline=None)
@given(documents, st.integers(1, 20))
def test_a_smaller_cap_takes_a_subset(rows: list[Any], cap: int) -> None:
    few, more = split(rows, "key", 0.3, cap), split(rows, "key", 0.3, cap + 5)
    assert set(few.search) <= set(more.search) and set(few.holdout) <= set(more.holdout)


@settings(deadline=None)
@given(documents, st.floats(0.01, 0.99), st.integers(1, 20))
def test_scoring_order_has_all_documents_and_a_cap_takes_its_beginning(
    rows: list[Any], holdout: float, cap: int
) -> None:
    every, capped = split(rows, "key", holdout), split(rows, "key", holdout, cap)
    assert capped.order == every.order[:cap]
    parts: tuple[Part, ...] = ("search", "holdout")
    for part, own in zip(parts, (every.search, every.holdout), strict=True):
        assert tuple(sorted(every.ordered(part))) == own
        assert list(every.ordered(part)) == [i for i in every.order if i in own]


def test_the_first_in_scoring_order_are_a_random_sample() -> None:
    # documents are often sorted by subject: a beginning in their own order would be of one subject
    order = split([{"q": i} for i in range(1000)], "key", 0.3).ordered("search")
    assert abs(sum(order[:200]) / 200 - 499.5) < 4 * (1000**2 / 12 / 200) ** 0.5
    assert order != split([{"q": i} for i in range(1000)], "other", 0.3).ordered("search")


def test_the_share_is_met_and_the_key_matters() -> None:
    rows = [{"q": i} for i in range(4000)]
    parts = split(rows, "one", 0.3)
    assert abs(len(parts.holdout) / 4000 - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5
    assert parts != split(rows, "two", 0.3)
    assert parts == split(rows, "one", 0.3)
    # rank and side are drawn apart: a cap does not change the share
    capped = split(rows, "one", 0.3, 2000)
    assert abs(len(capped.holdout) / 2000 - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_a_known_split_stays() -> None:
    # a change here would move documents between the parts of every study ever run
    assert split([{"q": i} for i in range(12)], "key", 0.3, 8) == Split(
        (2, 6, 7, 9, 10), (5, 8, 11), (2, 6, 9, 10, 5, 11, 8, 7)
    )


@pytest.mark.parametrize(("parts", "words"), [(Split((), (1,), (1,)), "search"), (Split((1,), (), (1,)), "holdout")])
def test_an_empty_part_is_refused_with_a_remedy(parts: Split, words: str) -> None:
    with pytest.raises(InvalidStudy, match=f"evaluation.tasks\\[0\\].name: 'task' has no {words} document"):
        require_both_parts(parts, "evaluation.tasks[0]", "task", 10)
