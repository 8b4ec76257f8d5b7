"""One number out of several tasks."""

from collections.abc import Sequence

import pytest

from evaluation.objective import SMALLEST_STEP, Kind, anchored, objective, scales_between
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


@pytest.mark.parametrize("kind", ["mean", "worst", "normalized_mean"])
def test_no_weight_at_all_is_refused(kind: Kind) -> None:
    with pytest.raises(InvalidStudy, match="no task has a weight"):
        objective(kind, SCORES, {"a": 0, "b": 0, "c": 0})


def test_a_task_that_is_not_the_studys_counts_nothing() -> None:
    assert objective("mean", [*SCORES, score("proxy", 9.0)], {"a": 1, "b": 1, "c": 0}) == pytest.approx(0.65)


def test_the_normalised_mean_is_nought_for_the_base_and_one_for_the_best_experts() -> None:
    base = [score("a", 0.25), score("c", 30.0, higher=False)]
    experts = [[score("a", 0.75), score("c", 28.0, higher=False)], [score("a", 0.20), score("c", 10.0, higher=False)]]
    scales = scales_between(base, experts)
    assert scales == {"a": (0.25, 0.5), "c": (-30.0, 20.0)}
    weights = {"a": 1.0, "c": 3.0}
    assert objective("normalized_mean", base, weights, scales) == 0.0
    best = [score("a", 0.75), score("c", 10.0, higher=False)]
    assert objective("normalized_mean", best, weights, scales) == 1.0
    half = [score("a", 0.50), score("c", 30.0, higher=False)]  # half of the way in a, nothing in c: (1/2 + 3 * 0) / 4
    assert objective("normalized_mean", half, weights, scales) == pytest.approx(0.125)


def test_accuracy_and_perplexity_mix_as_shares_of_what_experts_gained() -> None:
    base = [score("a", 0.2), score("p", 40.0, higher=False)]
    scales = scales_between(base, [[score("a", 0.6), score("p", 60.0, higher=False)], [score("p", 20.0, higher=False)]])
    even = {"a": 1.0, "p": 1.0}

    def mixed(kind: Kind, accuracy: float, perplexity: float) -> float:
        return objective(kind, [score("a", accuracy), score("p", perplexity, higher=False)], even, scales)

    assert mixed("normalized_mean", 0.4, 30.0) == pytest.approx(0.5)
    # the whole of the accuracy, for a perplexity that is hardly worse; a plain mean would not have it
    assert mixed("normalized_mean", 0.6, 31.0) > mixed("normalized_mean", 0.2, 30.0)
    assert objective("mean", [score("a", 0.6), score("p", 31.0, higher=False)], even) < objective(
        "mean", [score("a", 0.2), score("p", 30.0, higher=False)], even
    )
    assert mixed("normalized_mean", 0.6, 80.0) < 0 < mixed("normalized_mean", 0.6, 40.0), "a loss is not clipped"


def test_scales_to_mix_by_have_the_base_at_the_top_of_what_no_expert_gained() -> None:
    base = [score("a", 0.2), score("p", 10.0, higher=False)]
    experts = [[score("a", 0.6), score("p", 40.0, higher=False)], [score("a", 0.1), score("p", 20.0, higher=False)]]
    assert anchored(base, experts) == {"a": (0.2, pytest.approx(0.4)), "p": (-40.0, 30.0)}
    alike = anchored([score("a", 0.5)], [[score("a", 0.5)]])
    assert alike["a"] == pytest.approx((0.5 - SMALLEST_STEP, SMALLEST_STEP))


@pytest.mark.parametrize("expert", [0.501, 0.5, 0.2])
def test_a_task_nobody_improved_does_not_explode_and_better_stays_better(expert: float) -> None:
    scales = scales_between([score("a", 0.5)], [[score("a", expert)]])
    assert scales["a"] == (0.5, SMALLEST_STEP)
    better, worse = (objective("normalized_mean", [score("a", v)], {"a": 1}, scales) for v in (0.55, 0.45))
    assert better == pytest.approx(1.0) and worse == pytest.approx(-1.0)


def test_the_smallest_step_grows_with_values_above_one() -> None:
    scales = scales_between([score("p", 40.0, higher=False)], [[score("p", 39.9, higher=False)]])
    assert scales["p"] == (-40.0, 40 * SMALLEST_STEP)
