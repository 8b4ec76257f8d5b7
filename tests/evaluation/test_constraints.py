"""Constraints: one number each, met at 0 or less; and errors that say what is wrong with an entry."""

import math
from typing import Any

import pytest

from evaluation.constraints import ConstraintSpec, check_constraints, excess
from evaluation.result import TaskScore
from merging.errors import InvalidStudy


def score(task: str, items: list[Any], higher: bool = True, first: int = 0) -> TaskScore:
    return TaskScore(
        task=task,
        metric="acc",
        value=sum(items) / len(items) if all(isinstance(i, int | float) for i in items) else 0.0,
        stderr=None,
        higher_is_better=higher,
        documents=tuple(range(first, first + len(items))),
        items=tuple(items),
    )


def broken_by(asked: dict[str, Any], ours: list[TaskScore], base: list[TaskScore] | None = None) -> float:
    return excess(ConstraintSpec(**asked), "constraints[0]", ours, {"base": base or []})


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({"min": 0.7}, -0.05), ({"min": 0.75}, 0.0), ({"min": 0.8}, 0.05), ({"max": 0.7}, 0.05), ({"max": 0.0}, 0.75)],
)
def test_a_bound_is_met_at_nought_or_less(asked: dict[str, float], expected: float) -> None:
    scores = [score("a", [0, 0]), score("b", [1, 1, 1, 0])]
    assert broken_by({"task": "b"} | asked, scores) == pytest.approx(expected)


def test_a_bound_is_in_the_metrics_own_direction() -> None:
    assert broken_by({"task": "p", "max": 12.0}, [score("p", [10.0, 16.0], higher=False)]) == pytest.approx(1.0)


def test_flips_count_what_was_right_and_is_wrong_now() -> None:
    before, now = [1, 1, 1, 0, 0, 1.0, True, False], [1, 0, 1, 1, 0, 0.0, True, True]
    asked = {"negative_flips": 0.1, "against": "base"}
    assert broken_by(asked, [score("a", now)], [score("a", before)]) == pytest.approx(2 / 8 - 0.1)
    same = broken_by(asked | {"negative_flips": 0.25}, [score("a", now)], [score("a", before)])
    assert same == 0.0, "exactly as many as allowed"


def test_flips_of_a_metric_where_less_is_better() -> None:
    asked = {"negative_flips": 0.0, "against": "base"}
    before, now = score("a", [0, 0, 1, 1], higher=False), score("a", [0, 1, 1, 0], higher=False)
    assert broken_by(asked, [now], [before]) == pytest.approx(1 / 4)


def test_flips_are_of_all_tasks_that_are_right_or_wrong_or_of_the_one_named() -> None:
    base = [score("a", [1, 1]), score("b", [1] * 6), score("loss", [0.3, 0.4])]
    ours = [score("a", [0, 0]), score("b", [1] * 6), score("loss", [0.9, 0.8])]
    assert broken_by({"negative_flips": 0.0, "against": "base"}, ours, base) == pytest.approx(2 / 8)
    assert broken_by({"negative_flips": 0.0, "against": "base", "task": "b"}, ours, base) == 0.0


def test_flips_are_of_the_documents_that_both_have() -> None:
    base, ours = [score("a", [1, 1, 1, 1])], [score("a", [0, 1], first=2)]
    assert broken_by({"negative_flips": 0.0, "against": "base"}, ours, base) == pytest.approx(1 / 2)


@pytest.mark.parametrize(("higher", "expected"), [(True, 0.25 - 0.1), (False, -0.25 - 0.1)])
def test_what_is_retained_may_be_a_little_worse_in_the_metrics_direction(higher: bool, expected: float) -> None:
    base, ours = score("a", [1, 1, 1, 0], higher), score("a", [1, 1, 0, 0], higher)
    assert broken_by({"task": "a", "retain": 0.1}, [ours], [score("b", [0]), base]) == pytest.approx(expected)
    assert broken_by({"task": "a", "retain": 0.0}, [base], [base]) == 0.0


def test_what_is_retained_is_compared_on_the_candidates_documents() -> None:
    base, ours = [score("a", [1, 1, 0, 0])], [score("a", [0, 0], first=2)]
    assert broken_by({"task": "a", "retain": 0.0}, ours, base) == 0.0
    assert broken_by({"task": "a", "retain": 0.0}, [score("a", [0, 1])], base) == pytest.approx(0.5)


def test_a_perplexity_is_retained_as_it_is_on_those_documents() -> None:
    def text(items: list[list[float]], first: int = 0) -> TaskScore:
        bits = -sum(nats for nats, _ in items) / sum(size for _, size in items) / math.log(2)
        about = {"metric": "bits_per_byte", "stderr": None, "higher_is_better": False}
        documents = tuple(range(first, first + len(items)))
        return TaskScore(task="p", value=bits, documents=documents, items=tuple(items), **about)

    base = text([[-9.0, 3], [-4.0, 4], [-2.0, 1]])
    same, worse = text([[-4.0, 4], [-2.0, 1]], first=1), text([[-8.0, 4], [-2.0, 1]], first=1)
    assert broken_by({"task": "p", "retain": 0.0}, [same], [base]) == pytest.approx(0.0)
    assert broken_by({"task": "p", "retain": 0.1}, [worse], [base]) == pytest.approx(4 / 5 / math.log(2) - 0.1)


@pytest.mark.parametrize("items", [[0.5, 1.0], [[-1.0, 3], [-2.0, 4]]])
def test_flips_of_what_is_not_right_or_wrong_are_refused(items: list[Any]) -> None:
    asked = {"negative_flips": 0.1, "against": "base", "task": "a"}
    with pytest.raises(InvalidStudy, match=r"constraints\[0\].negative_flips: .*right or wrong.*a \(acc\)"):
        broken_by(asked, [score("a", items)], [score("a", items)])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"task": "t"}, r"constraints\[1\]: asks for nothing; write one of min, max, retain, negative_flips"),
        ({"task": "t", "min": 0.1, "max": 0.2}, r"constraints\[1\]: asks for min and max at once"),
        ({"min": 0.1}, r"constraints\[1\].task: is missing; name the task whose min this is"),
        ({"task": "q", "max": 0.1}, r"constraints\[1\].task: 'q' is no task of this study; use one of t, u"),
        ({"negative_flips": 0.1}, r"constraints\[1\].against: is missing; use one of base, x"),
        ({"negative_flips": 0.1, "against": "y"}, r"'y' is no model of this study; use one of base, x"),
        ({"negative_flips": 0.1, "against": "x", "task": "q"}, r"'q' is no task"),
        ({"retain": 0.1}, r"constraints\[1\].task: is missing; name the task whose retain this is"),
        ({"task": "t", "retain": 0.1, "against": "y"}, r"'y' is no model of this study; use one of base, x"),
        ({"task": "t", "retain": 0.1, "max": 1}, r"asks for max and retain at once"),
        ({"task": "t", "min": 0.1, "against": "x"}, r"'x' means nothing beside min; leave it out"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(entry: dict[str, Any], message: str) -> None:
    right = ConstraintSpec(task="t", min=0.5)
    with pytest.raises(InvalidStudy, match=message):
        check_constraints([right, ConstraintSpec(**entry)], ["t", "u"], ["x"])


def test_entries_that_can_be_are_not_refused_and_say_what_they_ask_for() -> None:
    asked = [
        ConstraintSpec(task="t", min=0.5),
        ConstraintSpec(task="u", max=0),
        ConstraintSpec(negative_flips=0.02, against="base"),
        ConstraintSpec(negative_flips=0.02, against="x", task="t"),
        ConstraintSpec(task="t", retain=0.02),
        ConstraintSpec(task="u", retain=0.5, against="x"),
    ]
    check_constraints(asked, ["t", "u"], ["x"])
    assert [c.label for c in asked] == [
        "t at least 0.5",
        "u at most 0",
        "at most 0.02 of the documents lost that base has right",
        "at most 0.02 of the documents in t lost that x has right",
        "t at most 0.02 worse than base",
        "u at most 0.5 worse than x",
    ]
