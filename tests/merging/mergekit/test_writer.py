"""What is written for mergekit: read again it is the same merge of every tensor; what it cannot say is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.arrangement import arrange
from merging.catalog import method
from merging.errors import InvalidRecipe
from merging.mergekit import read, write
from merging.mergekit.names import METHODS as foreign
from merging.recipe import SCHEMA, Recipe
from merging.schedule import assign
from tests.merging.mergekit.llama import LAYERS, llama_layout
from tests.merging.mergekit.test_reader import ROOT

EXPERTS = ("alpha", "beta", "gamma")
METHODS = (
    "linear",
    "task_arithmetic",
    "ties",
    "dare",
    "dare_ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "slerp",
    "nuslerp",
    "nlerp",
    "karcher",
    "model_stock",
    "sce",
    "nearswap",
    "arcee_fusion",
    "ram",
    "ram_plus",
)
FIXED: dict[str, dict[str, Any]] = {
    "model_stock": {"clamp": False},
    "karcher": {"origin": "zero"},
    "sce": {"uniform_below": 1e-6},
}
COUNTS = {"slerp": 2, "nuslerp": 2, "nearswap": 1, "arcee_fusion": 1}
BASELESS = ("linear", "slerp", "karcher")  # nothing is taken from the base there
EQUAL = ("karcher", "ram", "ram_plus")  # methods that take weights here and none in mergekit
TEXTS = ("q_proj", "mlp", "layers.1", "norm", "model.layers.3.mlp.up_proj.weight", "lm_head", "")


def merged(recipe: Recipe) -> dict[str, Any]:
    """For each tensor of the result: the method with all its numbers, and the tensors it is made from."""
    experts = tuple(sorted(recipe.experts))
    arrangement = arrange(recipe, llama_layout(), experts)
    merges, index = (*recipe.groups, *recipe.overrides), assign(recipe, arrangement)
    found = {}
    for name, part in arrangement.parts.items():
        merge = merges[index[name]]
        numbers = {}
        for parameter in method(merge.method).parameters:
            value = merge.parameters.get(parameter.name, parameter.default)
            each = value if isinstance(value, dict) else dict.fromkeys(experts, value)
            numbers[parameter.name] = [_near(each.get(expert, parameter.default)) for expert in experts]
            sources = part.experts if merge.method in BASELESS else (part.base, *part.experts)
        found[name] = (merge.method, numbers, _relative(merge.method, merge.weights), sources)
    return found


def _near(value: Any) -> Any:
    """Without the last digits: epsilon, for one, is a share here and an absolute number there."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _relative(method: str, weights: dict[str, float]) -> dict[str, float]:
    """The weights; those that mergekit is told as shares, as shares."""
    total = sum(weights.values()) if method == "slerp" or method in EQUAL else 1.0
    return {name: _near(weight / total) for name, weight in weights.items()}


def recipe_of(groups: list[dict[str, Any]], experts: tuple[str, ...] = EXPERTS, **fields: Any) -> Recipe:
    """A recipe of models under /models."""
    places = {name: f"/models/{name}" for name in experts}
    base = "/models/alpha" if groups[0]["method"] == "slerp" else "/models/base"
    content = {"schema": SCHEMA, "base": base, "experts": places, "groups": groups}
    return Recipe.model_validate(content | fields)


@st.composite
def recipes(draw: st.DrawFn, name: str) -> Recipe:
    """Any recipe of one method that mergekit has: ranges, modules, exceptions, slices."""
    row = method(name)
    experts = EXPERTS[: COUNTS.get(name, 3)]
    share = st.integers(1, 9).map(lambda n: n / 10)

    def merge() -> dict[str, Any]:
        parameters = dict(FIXED.get(name, {}))
        for parameter in row.parameters:
            told = {knob.ours for row in foreign.values() if row.ours == name for knob in row.knobs}
            if parameter.kind == "float" and parameter.name in told:
                parameters[parameter.name] = draw(share)
                if parameter.per_expert and draw(st.booleans()):
                    parameters[parameter.name] = {expert: draw(share) for expert in experts}
            if parameter.name == "rescale":
                parameters["rescale"] = draw(st.sampled_from(["l1", "none"]))
            if parameter.name == "normalize":
                parameters["normalize"] = draw(st.booleans())
        weights: dict[str, float] = {}
        if row.weight is not None:
            weights = {expert: 1.0 if name in EQUAL else draw(share) for expert in experts}
        return {"method": name, "parameters": parameters, "weights": weights}

    cuts = sorted(draw(st.sets(st.integers(1, LAYERS - 1), max_size=2)))
    spans = list(zip([0, *cuts], [*cuts, LAYERS], strict=True))
    groups = []
    for span in spans:
        kinds = ("attention", "mlp", "other") if draw(st.booleans()) else ("all",)
        groups += [{"layers": span, "modules": kind} | merge() for kind in kinds]
    overrides = [
        {"contains": draw(st.sampled_from(TEXTS))} | _where(draw, spans) | merge()
        for _ in range(draw(st.integers(0, 2)))
    ]
    slices = [{"layers": (4, 12)}, {"layers": (0, 4), "sources": {"alpha": (6, 10)}}] if draw(st.booleans()) else []
    return recipe_of(
        groups, experts, overrides=overrides, slices=slices, dtype=draw(st.sampled_from([None, "float16"]))
    )


def _where(draw: st.DrawFn, spans: list[tuple[int, int]]) -> dict[str, Any]:
    places: list[dict[str, Any]] = [{}, {"edge": "before"}, {"edge": "after"}, *({"layers": span} for span in spans)]
    return draw(st.sampled_from(places))


@pytest.mark.parametrize("name", METHODS)
@settings(derandomize=True, database=None, deadline=None, max_examples=4)
@given(st.data())
def test_read_again_it_is_the_same_merge_of_every_tensor(name: str, data: st.DataObject) -> None:
    recipe = data.draw(recipes(name))
    again = read(write(recipe, llama_layout), ROOT, llama_layout)
    assert merged(again) == merged(recipe)
    assert again.dtype == recipe.dtype and again.base == recipe.base


def swap(chosen: str, layers: tuple[int, int], modules: str = "all", **parameters: float) -> dict[str, Any]:
    """A group taken whole from one expert; from none of them it is the base."""
    weights = {name: float(name == chosen) for name in EXPERTS}
    return {"layers": layers, "modules": modules, "method": "layer_swap", "parameters": parameters, "weights": weights}


def test_whole_layers_are_passed_through() -> None:
    slices = [{"layers": [4, 12]}, {"layers": [2, 6], "sources": {"gamma": [0, 4]}}]
    recipe = recipe_of([swap("alpha", (0, 8)), swap("gamma", (8, 10), scale=0.5), swap("", (10, 12))], slices=slices)
    content = write(recipe, llama_layout)
    assert content["merge_method"] == "passthrough" and content["base_model"] == "/models/base"
    assert [part["sources"] for part in content["slices"]] == [
        [{"model": "/models/alpha", "layer_range": [4, 12]}],
        [{"model": "/models/gamma", "layer_range": [0, 2], "parameters": {"scale": 0.5}}],
        [{"model": "/models/base", "layer_range": [4, 6]}],
    ]


def test_modules_of_several_models_are_averages_of_one() -> None:
    recipe = recipe_of([swap("alpha", (0, 12), "attention"), swap("gamma", (0, 12), "mlp"), swap("", (0, 12), "other")])
    content = write(recipe, llama_layout)
    assert content["merge_method"] == "linear"
    again = read(content, ROOT, llama_layout)
    chosen = {group.modules: [name for name, weight in group.weights.items() if weight] for group in again.groups}
    assert chosen == {"attention": ["alpha"], "mlp": ["gamma"], "other": ["base-2"]}
    assert again.experts["base-2"] == recipe.base


def test_an_average_may_hold_whole_experts() -> None:
    weights = dict.fromkeys(EXPERTS, 1.0)
    recipe = recipe_of([{"layers": (0, 6), "method": "linear", "weights": weights}, swap("beta", (6, 12))])
    again = read(write(recipe, llama_layout), ROOT, llama_layout)
    assert [group.weights for group in again.groups] == [weights, {"alpha": 0.0, "beta": 1.0, "gamma": 0.0}]


def test_the_base_is_one_more_input_of_an_average_that_leaves_layers_as_it_has_them() -> None:
    weights = dict.fromkeys(EXPERTS, 1.0)
    recipe = recipe_of([{"layers": (0, 6), "method": "linear", "weights": weights}, swap("", (6, 12))])
    again = read(write(recipe, llama_layout), ROOT, llama_layout)
    assert [group.weights for group in again.groups] == [
        weights | {"base-2": 0.0},
        dict.fromkeys(EXPERTS, 0.0) | {"base-2": 1.0},
    ]


def test_layers_left_as_the_base_has_them_get_no_weight() -> None:
    ties = {"layers": (0, 6), "method": "ties", "weights": dict.fromkeys(EXPERTS, 1.0)}
    recipe = recipe_of([ties, swap("", (6, 12))])
    assert merged(read(write(recipe, llama_layout), ROOT, llama_layout)) == merged(recipe)


def test_it_is_computed_in_float32_where_the_stored_type_is_known() -> None:
    group = {"layers": (0, LAYERS), "method": "ties", "weights": dict.fromkeys(EXPERTS, 1.0)}
    content = write(recipe_of([group], tokenizer="beta"), llama_layout, "bfloat16")
    assert (content["dtype"], content["out_dtype"]) == ("float32", "bfloat16")
    assert content["tokenizer_source"] == "/models/beta" and len(content["models"]) == 4
    assert "dtype" not in write(recipe_of([group]), llama_layout)


def group(method: str, experts: tuple[str, ...] = EXPERTS, **parameters: Any) -> dict[str, Any]:
    """One group of all layers with equal weights."""
    row = {"layers": (0, LAYERS), "method": method, "parameters": parameters}
    return row if method == "model_stock" else row | {"weights": dict.fromkeys(experts, 1.0)}


REFUSED: list[tuple[Recipe, str]] = [
    (recipe_of([group("dare")]), "parameters.rescale: 'inverse' is not done by mergekit's dare_linear"),
    (recipe_of([group("model_stock")]), "parameters.clamp: True is False in mergekit's model_stock"),
    (recipe_of([group("ties", scope="model")]), "parameters.scope: 'model' is tensor in mergekit's ties"),
    (recipe_of([group("karcher", origin="zero") | {"weights": {"alpha": 1, "beta": 2, "gamma": 1}}]), "takes none"),
    (recipe_of([group("wise_ft")]), "'wise_ft' is no method of mergekit"),
    (recipe_of([group("nuslerp", EXPERTS[:1])], EXPERTS[:1]), "are 1, and mergekit's nuslerp takes 2"),
    (
        recipe_of([group("ties") | {"layers": (0, 6)}, group("linear") | {"layers": (6, 12)}]),
        "are several, and mergekit applies one",
    ),
]


@pytest.mark.parametrize(("recipe", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        write(recipe, llama_layout)
