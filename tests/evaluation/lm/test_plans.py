"""What is planned of requests, and what is kept."""

import numpy as np
import pytest

from evaluation.lm.plans import Bounded, make_plan


def test_equal_pairs_are_computed_once() -> None:
    plan = make_plan([[([1], [2, 3])], [([1], [4, 3])], [([1], [2, 3])]], 10, 100, 64)
    assert plan.which.tolist() == [0, 1, 0] and plan.shares.tolist() == [2, 1]
    assert sum(len(row) for row in plan.rows) == 3


def test_parts_of_a_request_count_as_parts() -> None:
    plan = make_plan([[([1], [2]), ([2], [3])], [([1], [2])], []], 10, 100, 64)
    assert plan.sizes.tolist() == [2, 1, 0] and plan.shares.tolist() == [1.5, 0.5]


def test_inputs_lose_their_beginning_where_the_window_ends() -> None:
    plan = make_plan([[([1, 2, 3, 4], [5, 6])]], 3, 100, 64)
    (row,) = plan.rows
    assert row.tokens.tolist() == [3, 4, 5] and row.places.tolist() == [1, 2] and row.targets.tolist() == [5, 6]


@pytest.mark.parametrize(("context", "continuation"), [([], [1]), ([1], []), ([1], [2] * 11)])
def test_what_cannot_be_scored_is_refused(context: list[int], continuation: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot be scored"):
        make_plan([[(context, continuation)]], 10, 100, 64)


def test_what_was_not_used_for_longest_is_given_up() -> None:
    kept: Bounded[str, np.ndarray] = Bounded(10, len)
    one = kept.get("one", lambda: np.zeros(4))
    kept.get("two", lambda: np.zeros(4))
    assert kept.get("one", lambda: np.ones(4)) is one
    kept.get("three", lambda: np.zeros(4))
    assert kept.get("one", lambda: np.ones(4)) is one
    assert kept.get("two", lambda: np.ones(4)).tolist() == [1, 1, 1, 1]
