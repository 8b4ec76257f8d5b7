"""Packing, on hand-worked trees and as a property of any sequences."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.lm.tree import Query, Row, Shape, chains, plant

WIDE = Shape(deepest=100, widest=100, hidden=1000)
PLAIN = Shape(deepest=0, widest=100, hidden=1000)


def ask(*tokens: int, targets: int) -> Query:
    return Query(np.array(tokens, np.int32), targets)


def seen(row: Row, place: int) -> list[int]:
    """The tokens that a position sees, itself included."""
    return [int(row.tokens[j]) for j in range(place + 1) if place < row.ends[j]]


def told(rows: Sequence[Row]) -> dict[int, list[tuple[list[int], int]]]:
    """For each query what is seen at each of its targets, and the target."""
    found: dict[int, list[tuple[list[int], int]]] = {}
    for row in rows:
        for place, target, owner in zip(row.places, row.targets, row.owners, strict=True):
            assert row.depths[place] == len(seen(row, int(place))) - 1
            found.setdefault(int(owner), []).append((seen(row, int(place)), int(target)))
    return found


def test_choices_of_a_context_lie_after_it() -> None:
    row, *others = plant([ask(1, 2, 3, 4, 5, targets=3), ask(1, 2, 6, 7, targets=2)], WIDE)
    assert not others and row.branched and row.depth == 4
    assert row.tokens.tolist() == [1, 2, 3, 4, 6]
    assert row.depths.tolist() == [0, 1, 2, 3, 2]
    assert row.ends.tolist() == [5, 5, 4, 4, 5]
    assert row.places.tolist() == [1, 2, 3, 1, 4]


def test_choices_of_one_token_are_read_from_the_context_alone() -> None:
    (row,) = plant([ask(1, 2, token, targets=1) for token in (3, 4, 5)], PLAIN)
    assert row.tokens.tolist() == [1, 2] and not row.branched
    assert row.places.tolist() == [1, 1, 1] and row.targets.tolist() == [3, 4, 5]


def test_a_sequence_that_begins_another_needs_no_row() -> None:
    (row,) = plant([ask(1, 2, 3, 4, targets=2), ask(1, 2, 9, targets=1)], PLAIN)
    assert row.tokens.tolist() == [1, 2, 3]


def test_no_row_is_shared_where_it_does_not_pay() -> None:
    # one token in common, and looking at all the others costs more than computing it again
    queries = [ask(1, *range(start, start + 40), targets=1) for start in (10, 60)]
    assert len(plant(queries, Shape(deepest=100, widest=100, hidden=1))) == 2
    assert len(plant(queries, WIDE)) == 1


def test_rows_stay_within_depth_and_width() -> None:
    deep = [ask(*range(1, 40), last, 3, targets=2) for last in (50, 51)]
    assert len(plant(deep, Shape(deepest=39, widest=100, hidden=1000))) == 2
    many = [ask(1, 2, 3, 4, last, 5, targets=2) for last in range(50, 90)]
    rows = plant(many, Shape(deepest=100, widest=20, hidden=1000))
    assert max(map(len, rows)) == 20
    assert [len(row) for row in rows] == sorted(map(len, rows), reverse=True)


SEQUENCES = st.lists(
    st.lists(st.integers(1, 3), min_size=2, max_size=9).flatmap(
        lambda tokens: st.tuples(st.just(tuple(tokens)), st.integers(1, len(tokens) - 1))
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=50, deadline=None)
@given(SEQUENCES, st.sampled_from([0, 3, 100]), st.sampled_from([6, 100]))
def test_every_query_sees_what_it_would_see_alone(
    asked: list[tuple[tuple[int, ...], int]], deepest: int, widest: int
) -> None:
    queries = [ask(*tokens, targets=targets) for tokens, targets in asked]
    rows = plant(queries, Shape(deepest, widest, hidden=1000))
    alone = {
        number: [(list(tokens[:i]), tokens[i]) for i in range(len(tokens) - targets, len(tokens))]
        for number, (tokens, targets) in enumerate(asked)
    }
    assert told(rows) == alone
    taken_apart = [chain for row in rows for chain in chains(row)]
    assert not any(chain.branched for chain in taken_apart)
    assert told(taken_apart) == alone
    assert all(row.depth <= deepest for row in rows if row.branched)
