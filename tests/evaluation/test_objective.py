"""One number out of several tasks."""

from collections.abc import Sequence

import pytest

from evaluation.objective import objective
from evaluation.result import TaskScore
from merging.errors import InvalidStudy


def score(task: str, value: float, higher: bool = True) -> TaskScore:
    return TaskScore(
        task=task, metric="m", value=value, stderr=None, higher_is_better=higher, documents=(0,), items=(value,)
    )


SCORES = [score("a", 0.5), score("b", 0.8), score("c", 2.0, higher=False)]


def test_mean_weighs_and_turns_what_is_better_low() -> None:
    assert objective("mean", SCORES, {"a": 1, "b": 3, "c": 0}) == pytest.approx((0.5 + 3 * 0.8) / 4)
    assert objective("mean", SCORES, {"a": 1, "b": 0, "c": 1}) == pytest.approx((0.5 - 2.0) / 2)


@pytest.mark.parametrize(
    ("weights", "worst"), [((1, 1, 0), 0.5), ((0, 0.1, 0), 0.8), ((1, 1, 1), -2.0), ((5, 0.5, 0), 0.5)]
)
def test_worst_is_the_lowest_of_the_tasks_with_weight(weights: Sequence[float], worst: float) -> None:
    assert objective("worst", SCORES, dict(zip("abc", weights, strict=True))) == worst


@pytest.mark.parametrize("kind", ["mean", "worst"])
def test_no_weight_at_all_is_refused(kind: str) -> None:
    with pytest.raises(InvalidStudy, match="no task has a weight"):
        objective(kind, SCORES, {"a": 0, "b": 0, "c": 0})  # type: ignore[arg-type]
