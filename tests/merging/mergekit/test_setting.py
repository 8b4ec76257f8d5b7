"""Scopes, filters and gradients of one parameter, by hand."""

import pytest

from merging.errors import InvalidRecipe
from merging.mergekit.document import InputModel
from merging.mergekit.names import Knob
from merging.mergekit.setting import evaluate

WEIGHT = Knob("weight", "float", per_model=True)
SWITCH = Knob("switch", "bool", False)


def said(value: object, name: str = "weight") -> dict[str, object]:
    """What a scope says of a parameter, as it stands in YAML."""
    return dict(InputModel.model_validate({"model": "m", "parameters": {name: value}}).parameters)


def at(value: object, place: float, name: str = "any") -> object:
    """The weight of a tensor where one scope says `value`."""
    return evaluate(WEIGHT, [said(value)], name, place)  # type: ignore[list-item]


@pytest.mark.parametrize(("place", "value"), [(0.0, 0.0), (0.25, 0.15), (0.5, 0.3), (0.75, 0.65), (1.0, 1.0)])
def test_a_gradient_runs_straight_from_value_to_value(place: float, value: float) -> None:
    assert at([0, 0.3, 1], place) == pytest.approx(value)


def test_a_gradient_of_one_value_is_that_value() -> None:
    assert at([0.4], 0.7) == 0.4


@pytest.mark.parametrize(("place", "value"), [(0.0, True), (0.5, False), (0.99, False), (1.0, True)])
def test_a_gradient_of_switches_picks_the_one_before(place: float, value: bool) -> None:
    assert evaluate(SWITCH, [said([True, False, True], "switch")], "any", place) is value  # type: ignore[list-item]


def test_the_first_filter_that_is_part_of_the_name_wins() -> None:
    rules = [{"filter": "mlp", "value": [1, 2]}, {"filter": "up", "value": 3}, {"value": 4}]
    assert [at(rules, 1.0, name) for name in ("x.mlp.up", "x.up", "y")] == [2.0, 3.0, 4.0]


def test_a_filter_is_no_pattern() -> None:
    assert at([{"filter": "layers.*", "value": 1}, {"filter": "*", "value": 2}], 0.0, "layers.3") == 2.0


def test_a_nearer_scope_that_has_no_rule_for_the_name_leaves_it_to_the_next() -> None:
    near, far = said({"filter": "mlp", "value": 1}), said(5)
    assert evaluate(WEIGHT, [near, far], "x.mlp", 0.0) == 1.0  # type: ignore[list-item]
    assert evaluate(WEIGHT, [near, far], "x.attn", 0.0) == 5.0  # type: ignore[list-item]
    assert evaluate(WEIGHT, [said([]), far], "x", 0.0) == 5.0  # type: ignore[list-item]


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    assert at("1e-5", 0.0) == 1e-5


def test_a_parameter_that_must_be_given_and_is_not_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match=r"parameters\.weight.* x\.attn"):
        at({"filter": "mlp", "value": 1}, 0.0, "x.attn")


def test_a_word_where_a_number_should_be_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match="'much' is not of type float"):
        at("much", 0.0)
