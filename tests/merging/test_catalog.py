"""Every row of the catalog is complete and means what it says."""

import math
import subprocess
import sys
from typing import Any, get_args

import pytest

from merging.catalog import CATALOG, FAMILIES, Method, Parameter, implementation, method, recommended
from merging.catalog.declare import Need
from merging.errors import InvalidRecipe

ROWS = pytest.mark.parametrize("row", CATALOG.values(), ids=lambda row: row.name)
PARAMETERS = [(row, p) for row in CATALOG.values() for p in (*row.parameters, *([row.weight] if row.weight else []))]
DECLARED = pytest.mark.parametrize(("row", "p"), PARAMETERS, ids=[f"{row.name}.{p.name}" for row, p in PARAMETERS])
COUNT = Parameter("count", "", "int", 2, 0, 0, 8, 0, 8)
CHOICE = Parameter("scope", "", "choice", "tensor", "tensor", choices=("tensor", "row"))
SWITCH = Parameter("switch", "", "bool", False, False)


@ROWS
def test_a_row_loads_its_code_in_one_of_the_three_shapes(row: Method) -> None:
    code = implementation(row)
    shapes = [("coefficients",), ("program",), ("prepare", "combine")]
    assert sum(all(hasattr(code, name) for name in shape) for shape in shapes) == 1


@ROWS
def test_a_row_is_complete(row: Method) -> None:
    assert CATALOG[row.name] is row and method(row.name) is row
    assert row.paper.startswith("https://")
    for text in (row.summary, row.formula, row.cost, row.reading):
        assert not text.endswith(".") and "\n" not in text
    assert row.summary and row.formula and row.cost
    assert len(set(row.needs)) == len(row.needs) and set(row.needs) <= set(get_args(Need))
    assert 1 <= row.experts[0] <= row.experts[1] <= 64
    assert (row.weight is None) == (row.weighting == "none")
    assert not set(row.aliases) & set(CATALOG) and all(method(alias) is row for alias in row.aliases)
    names = [p.name for p in row.parameters]
    assert len(names) == len(set(names)) and "weight" not in names
    assert all(row.parameter(p.name) is p for p in row.parameters)
    assert row.parameter("weight") is row.weight and row.parameter("densty") is None


@ROWS
def test_normalised_weights_cannot_be_negative(row: Method) -> None:
    if row.normalised:
        assert row.weight is not None and row.weight.minimum >= 0


@DECLARED
def test_a_parameter_s_numbers_agree(row: Method, p: Parameter) -> None:
    assert p.doc and not p.doc.endswith(".")
    if p.kind in ("bool", "choice"):
        choices = p.choices or (False, True)
        assert (p.kind == "choice") == bool(p.choices) and p.default in choices and p.neutral in choices
        assert all(p.check(value, p.name) == value for value in choices)
        return
    assert p.minimum <= p.low < p.high <= p.maximum
    assert p.low > 0 or not p.log
    for value in (p.default, p.neutral, p.low, p.high, p.minimum, p.maximum):
        assert isinstance(value, int | float) and math.isfinite(value)
        assert p.check(value, p.name) == value


@DECLARED
def test_a_value_outside_is_refused(row: Method, p: Parameter) -> None:
    wrong: tuple[Any, ...] = (p.maximum + 1, p.minimum - 1, math.nan, math.inf, -math.inf)
    for value in wrong if p.kind in ("float", "int") else ("nonsense", 7):
        with pytest.raises(InvalidRecipe, match=r"out of range; use a value in|use one of|use a number") as caught:
            p.check(value, "some.key")
        assert caught.value.key == "some.key" and repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "given", "typed"),
    [
        (CATALOG["ties"].parameters[0], 1, 1.0),
        (COUNT, 3.0, 3),
        (COUNT, 0, 0),
        (CHOICE, "row", "row"),
        (SWITCH, True, True),
    ],
)
def test_a_value_comes_back_in_the_parameter_s_type(parameter: Parameter, given: Any, typed: Any) -> None:
    value = parameter.check(given, "key")
    assert value == typed and type(value) is type(typed)


@pytest.mark.parametrize(
    ("parameter", "given", "remedy"),
    [
        (COUNT, 2.5, "use a number, e.g. 2"),
        (COUNT, math.nan, "use a number"),
        (COUNT, math.inf, "use a number"),
        (COUNT, True, "use a number"),
        (COUNT, 9, "use a value in [0, 8]"),
        (CATALOG["ties"].parameters[0], "1.0", "use a number, e.g. 1.0"),
        (CHOICE, "column", "use one of ['tensor', 'row']"),
        (CHOICE, 1, "use one of"),
        (SWITCH, 1, "use one of [False, True]"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(parameter: Parameter, given: Any, remedy: str) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        parameter.check(given, "some.key")
    assert str(caught.value).startswith(f"some.key: {given!r} ") and remedy in str(caught.value)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRecipe, match=r"groups\[0\].method: 'tiess' is not a merge method; use one of linear, "):
        method("tiess", "groups[0].method")


def test_the_recommended_methods_take_any_number_of_experts() -> None:
    assert recommended() == ("task_arithmetic", "ties", "dare_ties")
    assert all(CATALOG[name].experts[0] == 1 for name in recommended())


def test_reading_the_catalog_loads_no_torch() -> None:
    code = "import sys, merging.catalog, merging.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_two_rows_have_one_name() -> None:
    names = [name for rows in FAMILIES.values() for row in rows for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
