"""The table of mergekit's methods names methods, parameters and values that our catalog has."""

import pytest

from merging.catalog import CATALOG
from merging.mergekit.names import METHODS, Foreign


@pytest.mark.parametrize("row", METHODS.values(), ids=list(METHODS))
def test_every_counterpart_is_in_the_catalog(row: Foreign) -> None:
    ours = CATALOG[row.ours]
    for knob in row.knobs:
        declared = ours.parameter(knob.ours) if knob.ours else None
        assert declared is not None or not knob.ours, knob.name
        for value in knob.values.values():
            assert declared is not None
            declared.check(value, knob.name)
        if declared is not None and knob.per_model and knob.name != "scale":
            assert declared.per_expert, knob.name
    for name, value in row.fixed.items():
        found = ours.parameter(name)
        assert found is not None and found.check(value, name) == value
    if row.joint:
        over = ours.parameter(row.joint.ours)
        assert over is not None and set(row.joint.values.values()) == set(over.choices)


def test_the_methods_of_each_row_are_different() -> None:
    assert len({row.ours for row in METHODS.values()}) == len(METHODS)


def test_names_of_mergekit_that_our_recipes_know_mean_the_same_method() -> None:
    aliases = {alias: row.name for row in CATALOG.values() for alias in row.aliases}
    for name, row in METHODS.items():
        assert aliases.get(name, name) == row.ours
