"""Which numbers every tensor gets: ours, read from a configuration, against what mergekit's own planner resolves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from merging.arrangement import arrange
from merging.mergekit import read
from merging.mergekit.names import IGNORED, METHODS
from merging.mergekit.tell import BASE, tell
from merging.schedule import assign
from tests.merging.mergekit.llama import LAYERS, llama_layout, write_family

pytest.importorskip("mergekit.plan", reason="mergekit is not installed", exc_type=ImportError)

EXPERTS = ("alpha", "beta", "gamma")
Content = dict[str, Any]


def whole(method: str, *parameters: Mapping[str, Any], **more: Any) -> Content:
    """A configuration of whole models: alpha, beta … with these parameters, and a base."""
    models = [{"model": name, "parameters": dict(each)} for name, each in zip(EXPERTS, parameters, strict=False)]
    return {"merge_method": method, "base_model": "base", "models": models} | more


def stack(*parts: tuple[tuple[str, list[int], Mapping[str, Any]], ...], **more: Any) -> Content:
    """A configuration of slices, each of (model, layers, parameters)."""
    slices = [
        {"sources": [{"model": m, "layer_range": r, "parameters": dict(p)} for m, r, p in part]} for part in parts
    ]
    return {"slices": slices} | more


T_BY_MODULE = [
    {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
    {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
    {"value": 0.5},
]
CONFIGS: dict[str, Content] = {
    "gradients and filters": whole(
        "ties",
        {"density": [1, 0.7, 0.1], "weight": 1.0},
        {"density": 0.5, "weight": [0, 0.3, 0.7, 1]},
        {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]},
        parameters={"normalize": True, "int8_mask": True},
    ),
    "a gradient of t for each module": {
        "merge_method": "slerp",
        "base_model": "alpha",
        "slices": [
            {"sources": [{"model": "alpha", "layer_range": [0, 12]}, {"model": "beta", "layer_range": [0, 12]}]}
        ],
        "parameters": {"t": T_BY_MODULE},
    },
    "a filter that names a layer also names others": whole(
        "task_arithmetic",
        {"weight": [{"filter": "layers.1", "value": 0.9}, {"filter": "k_proj", "value": 0.2}, {"value": 0.1}]},
        {"weight": [{"filter": "*", "value": "1e-1"}]},
        parameters={"lambda": [{"filter": "norm", "value": [2, 1]}, {"value": 0.5}]},
    ),
    "the scopes of slice and file": {
        "merge_method": "dare_ties",
        "base_model": "base",
        "slices": [
            {
                "sources": [
                    {"model": "base", "layer_range": [0, 5]},
                    {"model": "alpha", "layer_range": [0, 5], "parameters": {"weight": 0.3}},
                    {"model": "beta", "layer_range": [0, 5]},
                ],
                "parameters": {"weight": [0.5, 0.7], "density": 0.4},
            },
            {
                "sources": [
                    {
                        "model": "alpha",
                        "layer_range": [5, 12],
                        "parameters": {"weight": {"filter": "v_proj", "value": 2}},
                    },
                    {"model": "beta", "layer_range": [5, 12]},
                    {"model": "base", "layer_range": [5, 12]},
                ],
                "parameters": {"lambda": [0.1, 0.9], "rescale": False},
            },
        ],
        "parameters": {"weight": 0.25, "density": [0.9, 0.6], "normalize": True},
    },
    "stacked layers of several models": stack(
        (("alpha", [0, 6], {}),),
        (("beta", [3, 9], {"scale": [{"filter": "o_proj", "value": 0.7}, {"filter": "down_proj", "value": 0.5}]}),),
        (("alpha", [6, 7], {"scale": [1.0, 1.5]}),),
        (("alpha", [8, 12], {}),),
        merge_method="passthrough",
        base_model="base",
    ),
    "layers that differ between the models of a slice": stack(
        (("base", [0, 6], {}), ("alpha", [2, 8], {"weight": [{"filter": "layers.4", "value": 0.9}, {"value": 0.2}]})),
        (("base", [4, 10], {}), ("alpha", [4, 10], {"weight": 0.4})),
        merge_method="task_arithmetic",
        base_model="base",
    ),
    "an average that has the base among its inputs": {
        "merge_method": "linear",
        "models": [
            {"model": "base", "parameters": {"weight": 0.2}},
            {"model": "alpha", "parameters": {"weight": [0.1, 0.9]}},
        ],
    },
    "a tensor by its name": whole(
        "breadcrumbs",
        {"weight": 1, "density": [{"filter": "model.layers.3.mlp.up_proj", "value": 0.25}, {"value": 0.9}]},
        {"weight": 1, "gamma": [{"filter": "lm_head", "value": 0.2}, {"filter": "embed", "value": 0.1}]},
    ),
    "bands of probability": whole(
        "della",
        {"weight": 0.4, "density": [0.3, 0.8], "epsilon": 0.1},
        {"weight": 0.3, "density": 0.5, "epsilon": [{"filter": "mlp", "value": 0.3}, {"value": 0.05}]},
    ),
    "nothing takes part in the first layers": whole(
        "ties", {"weight": [0, 0, 1]}, {"weight": [0, 0, 1], "density": 0.4}
    ),
}


def planned(content: Content) -> dict[str, tuple[Content, dict[str, Content], dict[str, str]]]:
    """For each tensor what mergekit resolves: shared parameters, those of each model, each model's tensor."""
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.merge import _model_out_config
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    config, options = MergeConfiguration.model_validate(content), MergeOptions()
    architecture = get_architecture_info(config, options)
    planner = MergePlanner(config, architecture, options, _model_out_config(config, architecture))
    planner._plan()
    found = {}
    for weight, task in planner._tensors:
        each = {Path(m.model.path).name: dict(v.items()) for m, v in task.input_parameters.items()}
        names = {Path(m.model.path).name: w.name for m, w in task.gather_tensors.weight_info.items()}
        found[weight.name] = (dict(task.parameters.items()), each, names)
    return found


def absolute(part: Any, root: Path) -> Any:
    """The configuration with the folders of its models under `root`."""
    if isinstance(part, list):
        return [absolute(each, root) for each in part]
    if not isinstance(part, dict):
        return part
    places = {key: str(root / part[key]) for key in ("model", "base_model") if key in part}
    return {key: absolute(value, root) for key, value in part.items()} | places


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models on disk."""
    root = tmp_path_factory.mktemp("family")
    write_family(root, EXPERTS)
    return root


@pytest.mark.filterwarnings("ignore")  # those of mergekit
def test_our_table_has_every_method_and_parameter_of_mergekit() -> None:
    from mergekit.merge_methods.registry import registered_methods

    for found in registered_methods():
        row, spec = METHODS[found.spec.name], found.spec
        ours = {k.name: (k.kind, k.per_model, k.default) for k in row.knobs}
        theirs = {}
        for parameter in spec.parameters:
            kind = getattr(parameter.value_type, "__name__", "float")  # Optional[float], the scale of passthrough
            default = None if parameter.required else 1.0 if parameter.default is None else parameter.default
            theirs[parameter.name] = (
                "float" if kind == "Optional" else kind,
                parameter.scope.value != "shared",
                default,
            )
        theirs.pop(IGNORED, None)
        assert ours == theirs, row.name
        assert (row.base == "required") == (spec.contract.base.value == "required" and row.base != "end"), row.name
    assert len(registered_methods()) == len(METHODS)


@pytest.mark.filterwarnings("ignore")  # those of mergekit
@pytest.mark.parametrize("name", CONFIGS)
def test_every_tensor_gets_the_numbers_that_mergekit_resolves(name: str, family: Path) -> None:
    content, row = CONFIGS[name], METHODS[CONFIGS[name]["merge_method"]]
    theirs = planned(absolute(content, family))
    recipe = read(content, family, llama_layout)
    experts = tuple(sorted(recipe.experts))
    arrangement = arrange(recipe, llama_layout(), experts)
    merges, index = (*recipe.groups, *recipe.overrides), assign(recipe, arrangement)
    assert set(theirs) == set(arrangement.parts)
    folders = {name: Path(place).name for name, place in recipe.experts.items()}
    end = next((name for name in experts if recipe.experts[name] == recipe.base), None)
    for tensor, (shared, each, sources) in theirs.items():
        part = arrangement.parts[tensor]
        told = tell(row, merges[index[tensor]], experts, end)
        assert {k: pytest.approx(shared[k]) for k in told.shared} == told.shared, tensor
        for expert, values in told.each.items():
            expected = each.get(folders.get(expert, "base"), {"weight": 0.0})
            for key, value in values.items():
                if not (key != "weight" and values.get("weight") == 0):
                    assert (1.0 if expected[key] is None else expected[key]) == pytest.approx(value), (
                        tensor,
                        expert,
                        key,
                    )
        if row.base == "required":
            assert sources["base"] == part.base
        taking = {folders[e]: part.experts[i] for i, e in enumerate(experts) if folders[e] in sources}
        assert {model: sources[model] for model in taking} == taking
    assert BASE not in folders and LAYERS == 12
