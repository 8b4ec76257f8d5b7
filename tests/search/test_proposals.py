"""What a model proposes is read strictly: a point of the space as it stands, or refused with the reason."""

from typing import Any

import pytest

from search.strategies.proposer.answer import Refused, checked, read_list
from tests.search.factories import space_of

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}


def point(level: float) -> dict[str, float]:
    return {f"task_arithmetic.weight[{name}]": round(best - level, 6) for name, best in BEST.items()}


REFUSED: list[tuple[Any, str]] = [
    ([1], r"\[1\] is no object"),
    ({}, r"weight\[a\] is missing"),
    (point(0.1) | {"extra": 1}, '"extra" is no parameter'),
    (point(0.1) | {"task_arithmetic.weight[a]": 99}, r"weight\[a\]: 99 is not in \["),
    (point(0.1) | {"task_arithmetic.weight[a]": True}, "true is no number"),
    (point(0.1) | {"task_arithmetic.weight[a]": "0.3"}, '"0.3" is no number'),
    (point(0.1) | {"task_arithmetic.weight[a]": float("nan")}, "NaN is no number"),
    (point(0.1) | {"task_arithmetic.weight[a]": 10**400}, "is no number"),
    (point(0.1) | {"task_arithmetic.weight[a]": None}, "null is no number"),
]


@pytest.mark.parametrize(("given", "why"), REFUSED)
def test_what_is_no_point_of_the_space_is_refused_and_not_mended(given: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        checked(space_of(), given)


def test_choices_switches_and_recipes_are_checked_too() -> None:
    space = space_of(space={"methods": ["task_arithmetic", "ties"]})
    assert checked(space, {"method": "task_arithmetic", **point(0.1)}).recipe is not None
    with pytest.raises(Refused, match="none of"):
        checked(space, {"method": "slerp", **point(0.1)})
    with pytest.raises(Refused, match="is no parameter of that recipe"):
        checked(space, {"method": "task_arithmetic", "ties.density": 0.5, **point(0.1)})
    nothing = {f"linear.weight[{name}]": 0.0 for name in BEST}
    with pytest.raises(Refused, match=r"zero|weights"):
        checked(space_of(space={"methods": ["linear"]}), nothing)


@pytest.mark.parametrize("text", ["", "no", "[1, 2]", "{}", "[" * 5000, "[{", "<think>[{}]</think>"])
def test_answers_without_a_list_of_objects_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="no JSON list"):
        read_list(text)
