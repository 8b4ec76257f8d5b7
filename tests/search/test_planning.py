"""What `auto` decides before a study begins."""

from typing import Any

import pytest

from search.opening import open_search
from search.planning import (
    BLIND,
    FITTED,
    LEARNED,
    MOST_MEASURED,
    MOST_RANGES,
    SHORT,
    Known,
    Plan,
    plan,
    planned,
    with_course,
)
from search.space import make_space
from search.strategies.arms.search import Arms
from search.strategies.evolution import Evolution
from search.strategies.staged import Staged
from search.study import StudySpec
from tests.search.factories import make_spec


def auto(**sections: Any) -> StudySpec:
    content = {"search": {"strategy": "auto", "trials": 100}, "space": {"methods": None}} | sections
    return make_spec(**content)


def known(**more: Any) -> Known:
    return Known(**{"layer_count": 4, "measured_bytes": 1000, "documents": 300, "answers": True} | more)


def of(spec: StudySpec, found: Known) -> Plan:
    made = plan(spec, found)
    assert made is not None
    return made


def test_other_strategies_search_what_they_say() -> None:
    spec = make_spec()
    assert plan(spec, known()) is None and planned(spec, None) is spec


def test_it_learns_from_documents_where_they_say_what_is_right_and_memory_allows() -> None:
    assert of(auto(), known()).methods == (FITTED, *BLIND)
    large = of(auto(), known(measured_bytes=MOST_MEASURED + 1))
    assert large.methods == (LEARNED, *BLIND) and "more than" in large.why[0]
    blind = of(auto(), known(answers=False))
    assert blind.methods == BLIND and "what is right" in blind.why[0]


def test_learning_is_worth_a_share_of_the_budget_and_no_more() -> None:
    short = {f"{LEARNED}.{name}": value for name, value in SHORT.items()}
    alone = of(auto(), known(measured_bytes=MOST_MEASURED + 1))
    assert alone.fixed == short, "there is no other that learns"
    rich = of(auto(search={"strategy": "auto", "trials": 4000}), known())
    assert rich.methods == (FITTED, LEARNED, *BLIND) and rich.fixed == {}
    between = of(auto(search={"strategy": "auto", "trials": 1000}), known(documents=300))
    assert between.fixed == short


def test_methods_and_layers_that_a_study_names_stay() -> None:
    spec = auto(space={"methods": ["ties"], "layers": 2})
    found = of(spec, known())
    assert (found.methods, found.layers) == (("ties",), 2)
    assert of(auto(space={"methods": None, "layers": "each"}), known()).layers == 4


@pytest.mark.parametrize(
    ("trials", "layers", "ranges"),
    [(20, 32, 1), (60, 32, 7), (1000, 32, MOST_RANGES), (100, 4, 4)],
)
def test_more_trials_pay_for_finer_layers(trials: int, layers: int, ranges: int) -> None:
    spec = auto(search={"strategy": "auto", "trials": trials})
    assert of(spec, known(layer_count=layers)).layers == ranges


def test_a_budget_in_documents_counts_as_the_trials_it_pays_for() -> None:
    spec = auto(search={"strategy": "auto", "trials": 1000, "budget": {"documents": 1500}})
    assert of(spec, known(documents=300)).layers == 1, "twenty trials of a quarter each"


def test_a_planned_study_has_the_plan_s_space() -> None:
    spec = auto()
    found = planned(spec, of(spec, known()))
    assert found.space.fixed == {}
    assert found.space.layers == 4 and found.space.method_names == (FITTED, *BLIND)


def test_what_the_study_fixes_or_bounds_stays() -> None:
    spec = auto(space={"methods": None, "fixed": {"task_arithmetic.lambda": 0.5}})
    assert planned(spec, of(spec, known())).space.fixed["task_arithmetic.lambda"] == 0.5


TASKS = {"tasks": [{"name": "t"}, {"name": "u"}]}


@pytest.mark.parametrize(
    ("sections", "rungs", "said"),
    [
        (
            {},
            (40, 80, 300),
            ["a third of the trials", "each method has a search", "40 documents", "all 300", "halving"],
        ),
        ({}, (60,), ["every trial is scored on all 60 documents"]),
        ({"search": {"prune": "off"}}, (40, 300), ["every trial is scored on all 300 documents"]),
        ({"search": {"prune": "one_shot"}}, (40, 300), ["scored on 40 documents, and the best of them in the end"]),
        ({"search": {"starts": {"most": 4, "recipes": ["a.json"]}}}, (300,), ["your recipes, and 4 others at most"]),
        ({"space": {"methods": None, "choose": "per_group", "layers": 2}}, (300,), ["its method, so evolution"]),
        ({"space": {"choose": "per_group", "layers": 2, "methods": ["ties"]}}, (300,), ["recipe of the method"]),
        ({"objective": "pareto", "evaluation": TASKS}, (300,), ["which makes most of few trials"]),
        ({"objective": "pareto", "evaluation": TASKS, "search": {"trials": 400}}, (300,), ["then NSGA-II from trial"]),
    ],
)
def test_it_says_how_it_begins_goes_on_and_whom_it_stops(
    sections: dict[str, Any], rungs: tuple[int, ...], said: list[str]
) -> None:
    search = {"strategy": "auto", "trials": 100} | sections.get("search", {})
    spec = auto(**{**sections, "search": search})
    made = of(spec, known())
    why = "\n".join(with_course(made, spec, rungs, proxied=False).why[len(made.why) :])
    assert all(part in why for part in said), why
    assert ("others" in why) == (search.get("starts") != {"most": 0}) and ("NSGA" in why) == (search["trials"] > 200)


def test_it_says_that_a_proxy_decides_and_that_nothing_else_is_tried_first() -> None:
    spec = auto(search={"strategy": "auto", "starts": {"most": 0}})
    said = with_course(of(spec, known()), spec, (0, 60), proxied=True).why
    assert "every trial in the better half by the proxy is scored on all 60 documents" in said
    assert "it begins with recipes that need no search: the baselines, methods at their defaults" in said


def test_the_search_that_is_said_is_the_one_that_is_made() -> None:
    two = ["ties", "task_arithmetic"]
    for sections, kind in (
        ({"space": {"methods": two}}, Arms),
        ({"space": {"methods": two, "choose": "per_group", "layers": 2}}, Evolution),
        ({"space": {"methods": two}, "objective": "pareto", "evaluation": TASKS}, Staged),
    ):
        spec = auto(**sections)
        assert type(open_search(spec, make_space(spec, 4))[1]) is kind
