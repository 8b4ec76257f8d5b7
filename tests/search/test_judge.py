"""A trial's numbers of its scores, and who is best: for every objective, with and without constraints."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from db.records import Trial
from evaluation.objective import RELATIVE
from evaluation.result import TaskScore
from evaluation.statistics import bootstrap, closed_aggregation
from merging.errors import InvalidStudy
from search.judge import Judge
from tests.search.factories import make_spec

TASKS = ("t", "u")
AGGREGATIONS = {task: closed_aggregation("mean") for task in TASKS}


def judge_of(objective: str, weights: Sequence[float] = (1, 1), **more: Any) -> Judge:
    tasks = [{"name": task, "weight": weight} for task, weight in zip(TASKS, weights, strict=True)]
    search = {"strategy": "tpe", "prune": "off"}
    return Judge(make_spec(objective=objective, search=search, evaluation={"tasks": tasks}, **more), ("a", "b", "c"))


def scores(*items: Sequence[float], higher: bool = True) -> tuple[TaskScore, ...]:
    """One list of items a task."""
    return tuple(
        TaskScore(
            task=task,
            metric="acc",
            value=sum(found) / len(found),
            stderr=None,
            higher_is_better=higher,
            documents=tuple(range(len(found))),
            items=tuple(found),
        )
        for task, found in zip(TASKS, items, strict=True)
    )


def flat(*values: float) -> tuple[TaskScore, ...]:
    """Every document of a task has its value."""
    return scores(*([value] * 4 for value in values))


def trial(number: int, value: float | None, constraints: tuple[float, ...] | None = None) -> Trial:
    state = "pruned" if value is None else "complete"
    return Trial(number, "tpe", None, number, state, value, None, number, 0.0, 1.0, constraints=constraints)


def order(judge: Judge, found: Mapping[int, Sequence[TaskScore]], **constraints: tuple[float, ...]) -> list[int]:
    """The ranking of these trials, told in order of their numbers."""
    trials = []
    for number, its in sorted(found.items()):
        trials.append(trial(number, judge.value(its), constraints.get(f"t{number}")))
        judge.learn(its)
    return [t.number for t in judge.ranking(trials[::-1], found)]


def test_mean_and_worst_need_nobody() -> None:
    for objective, value in (("mean", 0.5), ("worst", 0.2)):
        judge = judge_of(objective)
        assert judge.needs == () and judge.ready and not judge.relative
        assert judge.value(flat(0.2, 0.8)) == pytest.approx(value)
        assert judge.values(flat(0.2, 0.8)) == (judge.value(flat(0.2, 0.8)),)
        assert judge.constraints(flat(0.2, 0.8)) == ()
    assert judge_of("mean", (3, 1)).value(flat(0.2, 0.8)) == pytest.approx(0.35)


def test_a_proxy_beside_the_tasks_changes_nothing() -> None:
    (extra,) = scores([9.0], [1.0])[:1]
    beside = (*flat(0.2, 0.8), extra.model_copy(update={"task": "proxy"}))
    for objective in ("mean", "worst", "borda", "pareto"):
        judge = judge_of(objective)
        assert judge.values(beside) == judge.values(flat(0.2, 0.8))


def test_the_normalised_mean_waits_for_base_and_experts() -> None:
    judge = judge_of("normalized_mean")
    assert judge.needs == ("base", "expert:a", "expert:b", "expert:c") and not judge.ready
    judge.refer("uniform_soup", flat(0.0, 0.0))
    judge.refer("base", flat(0.2, 0.1))
    judge.refer("expert:a", flat(0.6, 0.1))
    judge.refer("expert:b", flat(0.2, 0.9))
    assert not judge.ready
    judge.refer("expert:c", flat(0.1, 0.1))
    assert judge.ready
    assert judge.value(flat(0.2, 0.1)) == 0.0 and judge.value(flat(0.6, 0.9)) == pytest.approx(1.0)
    assert judge.value(flat(0.4, 0.1)) == pytest.approx(0.25)
    measure = judge.measure(AGGREGATIONS)
    assert measure.kind == "normalized_mean"
    assert bootstrap(measure, flat(0.4, 0.1), draws=50).value == pytest.approx(0.25)


def test_a_borda_value_is_the_share_of_those_before_that_are_beaten() -> None:
    judge = judge_of("borda")
    assert judge.relative and judge.value(flat(0.1, 0.1)) == 0.5
    for before in (flat(0.1, 0.1), flat(0.2, 0.2), flat(0.3, 0.3)):
        judge.learn(before)
    assert judge.value(flat(0.9, 0.9)) == pytest.approx(7 / 8) and judge.value(flat(0.0, 0.0)) == pytest.approx(1 / 8)
    assert judge.value(flat(0.9, 0.0)) == pytest.approx(1 / 2)
    assert judge.value(flat(0.2, 0.2)) == pytest.approx((4 - 2.5 + 0.5) / 4), "a tie is half a win"


def test_borda_is_not_carried_away_by_one_task_and_ends_in_the_ranking_over_all() -> None:
    found = {0: flat(0.1, 0.3), 1: flat(0.9, 0.2), 2: flat(0.2, 0.4), 3: flat(0.1, 0.1)}
    assert order(judge_of("mean"), found)[0] == 1
    assert order(judge_of("borda"), found) == [2, 1, 0, 3]


def test_two_level_borda_ranks_documents() -> None:
    steady, lucky = ([0.2, 0.2, 0.2, 0.0], [0.5] * 4), ([0.1, 0.1, 0.1, 1.0], [0.5] * 4)
    found = {0: scores(*lucky), 1: scores(*steady)}
    assert order(judge_of("borda"), found) == [0, 1]
    assert order(judge_of("borda_documents"), found) == [1, 0]


def test_two_level_borda_needs_values_of_documents() -> None:
    odd = tuple(s.model_copy(update={"value": 0.123}) for s in flat(0.5, 0.5))  # f1 and such: no function of sums
    with pytest.raises(InvalidStudy, match=r"objective: 'borda_documents' .* t \(acc\) has no value of a single one"):
        judge_of("borda_documents").value(odd)


def test_kemeny_orders_the_best_by_majority() -> None:
    found = {0: flat(0.3, 0.1), 1: flat(0.2, 0.3), 2: flat(0.1, 0.2)}
    assert order(judge_of("kemeny", (3, 2)), found) == [0, 1, 2]
    assert order(judge_of("borda", (3, 2)), found) == [1, 0, 2]
    many = {n: flat(n / 20, n / 20) for n in range(12)}
    assert order(judge_of("kemeny"), many) == list(range(11, -1, -1))


@pytest.mark.parametrize("objective", ["borda", "borda_documents", "kemeny"])
def test_a_recipe_that_was_tried_again_counts_once(objective: str) -> None:
    judge = judge_of(objective, (1, 4))
    found = {0: flat(0.9, 0.5), 1: flat(0.1, 0.6), 2: flat(0.2, 0.1)}
    assert order(judge, found) == [1, 0, 2]
    again = [replace(trial(n, 0.5), evaluation_id=2) for n in range(3, 12)]
    everyone = [*(trial(n, 0.5) for n in range(3)), *again, replace(trial(12, 0.5), evaluation_id=0)]
    found |= {t.number: found[t.evaluation_id or 0] for t in everyone}
    assert [t.number for t in judge.ranking(everyone, found)] == [1, 0, 12, *range(2, 12)]


def test_pareto_has_a_value_a_task_and_ranks_by_front_and_knee() -> None:
    judge = judge_of("pareto")
    assert judge.values(flat(0.2, 0.8)[::-1]) == pytest.approx((0.2, 0.8)), "in the study's order"
    assert judge.values(scores([3.0], [5.0], higher=False)) == (-3.0, -5.0)
    assert judge.value(flat(0.2, 0.8)) == pytest.approx(0.5) and judge.measure(AGGREGATIONS).kind == "mean"
    found = {0: flat(1.0, 0.0), 1: flat(0.0, 1.0), 2: flat(0.8, 0.8), 3: flat(0.7, 0.7), 4: flat(0.1, 0.1)}
    assert order(judge, found) == [2, 0, 1, 3, 4]
    trials = [trial(n, judge.value(its)) for n, its in found.items()]
    assert [t.number for t in judge.front(trials, found)] == [2, 0, 1]
    copy = replace(trial(5, 0.8), evaluation_id=2)
    assert [t.number for t in judge.front([*trials, copy], found | {5: found[2]})] == [2, 0, 1]
    assert judge_of("mean").front(trials, found) == []


def test_the_knee_is_found_between_base_and_experts_where_they_were_tried() -> None:
    def both(accuracy: float, perplexity: float) -> tuple[TaskScore, ...]:
        return flat(accuracy, 0.0)[:1] + scores([0.0], [perplexity], higher=False)[1:]

    judge, origins = judge_of("pareto"), ("base", "expert:a", "expert:b", "expert:c", "tpe", "tpe", "tpe")
    values = [(0.2, 40.0), (0.6, 50.0), (0.2, 20.0), (0.3, 45.0), (0.65, 5000.0), (0.5, 25.0), (0.35, 21.0)]
    found = {n: both(*value) for n, value in enumerate(values)}
    trials = [replace(trial(n, judge.value(found[n])), origin=origin) for n, origin in enumerate(origins)]
    # 5: (3/4 + 3/4) / 2; 4 has more than any expert, which counts up to 1.2, and a perplexity far off, which counts 0
    assert [t.number for t in judge.front(trials, found)] == [5, 6, 4, 1, 2]
    assert judge.ranking(trials, found)[0].number == 5
    without = [t for t in trials if t.origin != "base"]
    assert judge.front(without, found)[0].number == 1, "by the front's span 5000 leaves no room for 50 to be worse"


def test_a_task_of_no_weight_is_no_objective() -> None:
    assert judge_of("pareto", (1, 0)).values(flat(0.2, 0.8)) == pytest.approx((0.2,))
    assert order(judge_of("borda", (1, 0)), {0: flat(0.1, 0.9), 1: flat(0.2, 0.0)}) == [1, 0]


@pytest.mark.parametrize("objective", ["mean", "worst", *RELATIVE])
def test_who_meets_the_constraints_comes_first_then_who_misses_least(objective: str) -> None:
    found = {0: flat(0.9, 0.9), 1: flat(0.2, 0.2), 2: flat(0.3, 0.3), 3: flat(0.8, 0.8), 4: flat(0.1, 0.1)}
    broken = {"t0": (0.3, -1.0), "t3": (0.1, 0.1), "t4": (-0.1, 0.0)}
    assert order(judge_of(objective), found, **broken) == [2, 1, 4, 3, 0]


@pytest.mark.parametrize("objective", ["mean", *RELATIVE])
def test_of_equals_the_earliest_is_first_and_who_was_stopped_is_not_ranked(objective: str) -> None:
    judge = judge_of(objective)
    found = dict.fromkeys(range(3), flat(0.5, 0.5))
    assert order(judge, found) == [0, 1, 2]
    assert judge.ranking([trial(4, None)], {}) == [] and judge.front([trial(4, None)], {}) == []


def test_constraints_are_numbers_and_name_whom_they_need() -> None:
    judge = judge_of(
        "mean",
        constraints=[
            {"task": "t", "min": 0.5},
            {"negative_flips": 0.25, "against": "base"},
            {"negative_flips": 0.0, "against": "b", "task": "u"},
            {"task": "u", "retain": 0.25},
        ],
    )
    assert judge.needs == ("base", "expert:b") and not judge.ready
    judge.refer("base", flat(1.0, 1.0))
    judge.refer("expert:b", flat(0.0, 0.0))
    assert judge.ready
    assert judge.constraints(scores([1, 1, 0, 0], [1, 1, 1, 1])) == pytest.approx((0.0, 0.0, 0.0, -0.25))
    assert judge.constraints(scores([1, 0, 0, 0], [0, 1, 1, 1])) == pytest.approx((0.25, 0.25, 0.0, 0.0))
    assert judge_of("mean", constraints=[{"task": "u", "retain": 0.1}]).needs == ("base",)
    assert judge_of("mean", constraints=[{"task": "u", "retain": 0.1, "against": "c"}]).needs == ("expert:c",)


def test_told_the_same_a_second_judge_says_the_same() -> None:
    found = [flat(i * 0.37 % 1, i * 0.61 % 1) for i in range(9)]
    first, second = judge_of("borda"), judge_of("borda")
    told = []
    for its in found:
        told.append(first.value(its))
        first.learn(its)
    for its in found[:5]:
        second.learn(its)
    for its, value in list(zip(found, told, strict=True))[5:]:
        assert second.value(its) == value
        second.learn(its)


def test_documents_are_ranked_where_all_have_them() -> None:
    judge = judge_of("borda_documents")
    judge.learn(scores([0.0, 0.0, 1.0, 1.0], [0.5] * 4))
    part = scores([0.1, 0.1], [0.5] * 2)
    assert judge.value(part) == pytest.approx((2 - (1 + 1.5) / 2 + 0.5) / 2)
