"""The plan of a study's documents: which tasks race, in how many rungs, and what names their items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from api.documents import plan_documents
from evaluation.evaluators.contract import Subject
from evaluation.split import split
from evaluation.statistics import Aggregation
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from tests.search.factories import make_spec


@dataclass(frozen=True)
class Numbers:
    """An evaluator of many documents that is never asked."""

    name: str
    aggregation: Aggregation
    documents: Sequence[Any] = tuple(range(1000))
    shown_metric: str = "acc"
    higher_is_better: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """As the evaluator's."""
        return None

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """As the evaluator's."""
        raise NotImplementedError


def suite(**aggregations: str) -> Suite:
    """Tasks of those names, each of some 700 search documents."""
    tasks = tuple(Numbers(name, Aggregation(made, len)) for name, made in aggregations.items())
    splits = {task.name: split(task.documents, task.name, 0.3) for task in tasks}
    return Suite(tasks, splits, "all", {task.name: f"of {task.name}" for task in tasks})


def tasks(*names: str, weight: float = 1.0) -> dict[str, Any]:
    return {"tasks": [{"name": name, "weight": weight if name == names[-1] else 1.0} for name in names]}


def test_rungs_are_prefixes_of_the_scoring_order_and_the_last_has_all() -> None:
    given = suite(t="mean", u="bits_per_byte", shown="f1")
    spec = make_spec(search={"prune": "paired_test"}, evaluation=tasks("t", "u", "shown", weight=0.0))
    plan = plan_documents(spec, given, "models")
    count = {name: len(given.documents(name, "search")) for name in ("t", "u", "shown")}
    assert plan.rungs == (40, 80, 160, 320, 640, count["t"] + count["u"])
    assert plan.aggregations == {"t": "mean", "u": "bits_per_byte"} and not plan.proxied
    for name in ("t", "u"):
        found = plan.sets[name, "search"]
        assert found.ids == given.order(name, "search") and found.sizes[-1] == count[name]
        assert 18 <= found.sizes[0] <= 22
    assert plan.sets["shown", "search"].sizes == (0, 0, 0, 0, 0, count["shown"]), "only reported: scored at the end"
    assert plan.sets["t", "holdout"].sizes == (1000 - count["t"],)
    constraint = [{"task": "shown", "min": 0.5}]
    bound = plan_documents(
        make_spec(evaluation=tasks("t", "u", "shown", weight=0.0), constraints=constraint),
        suite(t="mean", u="mean", shown="mean"),
        "models",
    )
    assert bound.sets["shown", "search"].sizes[0] > 0, "a constraint is judged on every rung"


def test_an_item_is_named_by_its_task_and_the_models() -> None:
    one = plan_documents(make_spec(evaluation=tasks("t")), suite(t="mean"), "models")
    same = plan_documents(
        make_spec(search={"prune": "off"}, evaluation=tasks("t")), suite(t="mean", u="mean"), "models"
    )
    other = plan_documents(make_spec(evaluation=tasks("t")), suite(t="mean"), "other models")
    digests = [plan.sets["t", "search"].digest for plan in (one, same, other)]
    assert digests[0] == digests[1] != digests[2] and one.sets["t", "holdout"].digest == digests[0]


def test_a_metric_that_is_no_function_of_sums_does_not_race() -> None:
    evaluation = tasks("t")
    assert len(plan_documents(make_spec(evaluation=evaluation), suite(t="f1"), "models").rungs) == 1
    off = make_spec(search={"prune": "off"})
    assert plan_documents(off, suite(t="mean"), "models").rungs == (160, 698), "a rung that explains the winner"
    assert plan_documents(off, suite(t="f1"), "models").rungs == (698,)
    with pytest.raises(InvalidStudy, match=r"search\.prune.*halving.*metric of t"):
        plan_documents(make_spec(search={"prune": "halving"}, evaluation=evaluation), suite(t="f1"), "models")


def test_a_proxy_has_the_first_rung_for_itself() -> None:
    spec = make_spec(search={"prune": "paired_test"}, evaluation=tasks("t") | {"proxy": {"kind": "entropy"}})
    plan = plan_documents(spec, suite(t="mean", proxy="mean"), "models")
    assert plan.proxied and plan.rungs[:3] == (0, 40, 80)
    assert plan.sets["t", "search"].sizes[:3] == (0, 40, 80)
    assert len(set(plan.sets["proxy", "search"].sizes)) == 1
    off = make_spec(search={"prune": "off"}, evaluation=tasks("t") | {"proxy": {"kind": "entropy"}})
    plan = plan_documents(off, suite(t="mean", proxy="mean"), "models")
    assert not plan.proxied and plan.rungs == (160, 698)
