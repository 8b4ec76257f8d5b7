"""What names an artefact: all that its numbers hang on, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from merging.artefacts.request import Request, requests
from merging.errors import InvalidRecipe
from merging.recipe import SCHEMA, GroupMerge, Recipe

SUITE = "5" * 32


@dataclass(frozen=True)
class Models:
    names: tuple[str, ...] = ("a", "b")
    fingerprints: Mapping[str, str] = field(default_factory=lambda: {"base": "0", "expert:a": "1", "expert:b": "2"})
    companions_digest: str = "c"


def recipe(*merges: tuple[str, dict[str, Any]], suite: str = SUITE, weight: float = 1.0) -> Recipe:
    groups = tuple(
        GroupMerge(layers=(i, i + 1), method=method, parameters=parameters, weights={"a": weight, "b": 1.0})
        for i, (method, parameters) in enumerate(merges)
    )
    return Recipe(schema_=SCHEMA, base="base", experts={"a": "a", "b": "b"}, groups=groups, suite=suite)


def digests(found: Recipe, models: Models | None = None) -> list[str]:
    return [one.digest for one in requests(found, models or Models())]


def kinds(found: Recipe) -> list[tuple[str, str]]:
    return [(one.kind, one.expert) for one in requests(found, Models())]


def test_an_artefact_is_wanted_of_every_expert_once() -> None:
    assert kinds(recipe(("fisher", {"texts": "all"}))) == [("fisher", "a"), ("fisher", "b")]
    several = recipe(("fisher", {"texts": "all", "floor": 1.0}), ("fisher", {"texts": "all"}), ("linear", {}))
    assert kinds(several) == [("fisher", "a"), ("fisher", "b")]


def test_what_is_measured_of_all_models_together_is_wanted_once() -> None:
    assert kinds(recipe(("pleas", {}), ("pleas", {"ridge": 0.1}))) == [("common inputs", "")]
    assert kinds(recipe(("pleas_pp", {"texts": "all"}))) == [("merged inputs", "")]
    first, second = (digests(recipe((method, {}), weight=w))[-1] for method, w in (("pleas", 1.0), ("pleas", 0.5)))
    assert first == second  # weights do not count
    first, second = (digests(recipe(("pleas_pp", {}), weight=w))[-1] for w in (1.0, 0.5))
    assert first != second  # what is measured behind the merge hangs on all of it


def test_documents_are_shared_out_before_anything_is_measured_on_them() -> None:
    found = kinds(recipe(("regmean", {})))
    assert found == [("likelihoods", "a"), ("likelihoods", "b"), ("inputs", "a"), ("inputs", "b")]


def test_what_is_not_measured_does_not_count() -> None:
    first = digests(recipe(("regmean", {"alpha": 0.3}), weight=0.2))
    assert first == digests(recipe(("regmean", {"alpha": 0.9, "lambda": 2.0})))
    assert first == digests(recipe(("regmean", {"documents": 128.0})))  # a float from YAML is the same number
    renamed = Models(("x", "y"), {"base": "0", "expert:x": "1", "expert:y": "2"})
    found = recipe(("regmean", {})).model_copy(update={"experts": {"x": "x", "y": "y"}})
    assert first == [one.digest for one in requests(found, renamed)]


@pytest.mark.parametrize(
    ("changed", "models"),
    [
        (recipe(("regmean", {"documents": 64})), Models()),
        (recipe(("regmean", {"block": 512})), Models()),
        (recipe(("regmean", {}), suite="6" * 32), Models()),
        (recipe(("regmean", {})), Models(companions_digest="d")),
        (recipe(("regmean", {})), Models(fingerprints={"base": "0", "expert:a": "1", "expert:b": "3"})),
    ],
)
def test_what_is_measured_counts(changed: Recipe, models: Models) -> None:
    before, after = digests(recipe(("regmean", {}))), digests(changed, models)
    assert after[2:] != before[2:] and not set(after[2:]) & set(before[2:])


def test_other_experts_change_whose_a_document_is_but_not_what_is_measured_on_all() -> None:
    other = Models(fingerprints={"base": "0", "expert:a": "1", "expert:b": "3"})
    own, every = recipe(("fisher", {})), recipe(("fisher", {"texts": "all"}))
    assert digests(own, other)[2] != digests(own)[2]
    assert digests(every, other)[0] == digests(every)[0]


def test_a_polish_is_of_one_recipe_with_all_its_numbers() -> None:
    def joint(weight: float) -> Request:
        return requests(recipe(("regmean_pp", {}), ("linear", {}), weight=weight), Models())[-1]

    assert joint(0.5).kind == "propagated inputs" and joint(0.5).expert == ""
    assert joint(0.5).digest == joint(0.5).digest != joint(0.6).digest


def test_a_recipe_says_whose_documents_it_looks_at() -> None:
    with pytest.raises(InvalidRecipe, match=r"suite: is missing, and regmean looks at search documents; take"):
        recipe(("regmean", {}), suite="")
    with pytest.raises(InvalidRecipe, match=r"suite: '5+' is named, but no method looks at data; leave it out"):
        recipe(("linear", {}))
    with pytest.raises(ValueError, match="suite"):
        recipe(("regmean", {}), suite="not a digest")


def test_the_suite_is_part_of_a_recipe_s_digest() -> None:
    fingerprints = Models().fingerprints
    first, second = recipe(("regmean", {})), recipe(("regmean", {}), suite="6" * 32)
    assert first.digest(fingerprints) != second.digest(fingerprints)
