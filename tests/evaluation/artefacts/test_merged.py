"""Inputs behind a merge in the making: against whole passes of models that are merged matrix by matrix."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.merged import Merged, measure_merged
from evaluation.artefacts.texts import Text
from evaluation.artefacts.workshop import nobody
from evaluation.live import live_tensors
from evaluation.lm.budget import Budget
from merging.artefacts.request import requests
from merging.artefacts.shelf import Growing
from merging.errors import InvalidRecipe
from merging.models import ModelSet
from merging.recipe import GroupMerge, Recipe, Slice
from merging.resident import ResidentModel
from tests.evaluation.artefacts.subjects import ROOM, loaded, seen_whole, some_texts
from tests.merging.factories import LAYERS, SUITE, recipe_of, tiny_llama

WEIGHTS = {"add": 0.7, "sort": 0.3}
RIDGE = 0.01
ORDER = [("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    """Two models of other starts: nothing of one is like anything of the other."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", *WEIGHTS)):
        model = tiny_llama(seed)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.3 * torch.randn(parameter.shape)
        model.save_pretrained(root / name)
        (root / name / "tokenizer.json").write_text("{}")
    return ModelSet.open(root / "base", {name: root / name for name in WEIGHTS})


def a_recipe(models: ModelSet, **fields: Any) -> Recipe:
    settings = {"texts": "all", "ridge": RIDGE}
    group = GroupMerge(layers=(0, LAYERS), method="pleas_pp", weights=WEIGHTS, parameters=settings)
    return recipe_of(models, (group,), **({"suite": SUITE} | fields))


def texts_of(models: ModelSet) -> dict[str, list[Text]]:
    return {name: some_texts(9, seed) for seed, name in enumerate(models.names)}


def opened(models: ModelSet) -> tuple[Any, ResidentModel]:
    live = loaded(models.base.path)
    return live, ResidentModel(models, live_tensors(live, models.base.names))


def measurement(models: ModelSet, recipe: Recipe, live: Any, resident: ResidentModel) -> Merged:
    texts = texts_of(models)
    joint = Joint(models, recipe, resident, texts)
    tensors = live_tensors(live, models.base.names)
    subject = Subject(live, tensors, texts[models.names[0]], Budget(live, "cpu", None), ROOM, nobody, joint)
    return measure_merged(subject, requests(recipe, models)[-1])


def taken(found: Merged) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in found.values()}


def built(models: ModelSet, recipe: Recipe, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The merge of these measurements."""
    growing, (live, resident) = Growing(), opened(models)
    for name, value in given.items():
        growing.add(name, value)
    with resident.shelf.lending(requests(recipe, models)[-1], growing):
        resident.apply(recipe)
    state: dict[str, Tensor] = live.state_dict()
    return state


def reference(models: ModelSet) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The products by the artefact's names, and the merge by least squares on the inputs themselves."""
    experts = {name: loaded(each.path) for name, each in models.experts.items()}
    owners = dict(zip(models.names, models.expert_fingerprints, strict=True))
    texts = texts_of(models)
    theirs = {name: seen_whole(each, texts[name]) for name, each in experts.items()}
    merged = copy.deepcopy(experts["add"])
    for name, tensor in merged.state_dict().items():
        tensor.copy_(sum(w * experts[e].state_dict()[name].double() for e, w in WEIGHTS.items()))
    found: dict[str, Tensor] = {}
    groups = [(f"model.layers.{n}.", each) for n in range(LAYERS) for each in ORDER]
    for prefix, group in (*groups, ("", ("lm_head",))):
        ours = {name: seen_whole(merged, texts[name]) for name in experts}
        for name, tensor in merged.state_dict().items():
            if name.startswith(prefix) and name.split(".")[-2] in group:
                gram, moment = torch.zeros(2, 1, dtype=torch.float64)
                for expert, w in WEIGHTS.items():
                    x, z = ours[expert][name], theirs[expert][name]
                    y = z @ experts[expert].state_dict()[name].double().mT
                    gram, moment = gram + w * x.mT @ x / len(x), moment + w * y.mT @ x / len(x)
                    found[f"{owners[expert]}/{name}::gram.0"] = (x.mT @ x / len(x)).float()
                    found[f"{owners[expert]}/{name}::cross.0"] = (z.mT @ x / len(x)).float()
                pull = RIDGE * gram.diagonal().mean()
                damped = gram + pull * torch.eye(len(gram), dtype=torch.float64)
                tensor.copy_(torch.linalg.solve(damped, moment + pull * tensor.double(), left=False))
    return found, merged.state_dict()


def test_products_and_merge_are_those_of_whole_passes(models: ModelSet) -> None:
    recipe = a_recipe(models)
    found = measurement(models, recipe, *opened(models))
    values = taken(found)
    assert sorted((name, value.dtype, tuple(value.shape)) for name, value in values.items()) == sorted(found.shapes)
    products, merged = reference(models)
    assert values.keys() == products.keys() and len(values) == 2 * 2 * (LAYERS * 7 + 1)
    for name, wanted in products.items():
        assert_close(values[name], wanted, rtol=1e-2, atol=1e-3)
    for name, tensor in built(models, recipe, values).items():
        assert_close(tensor, merged[name], rtol=1e-2, atol=1e-3)


def test_what_is_built_on_the_way_is_not_remembered(models: ModelSet) -> None:
    live, resident = opened(models)
    taken(measurement(models, a_recipe(models), live, resident))
    memo = resident._engine._kept  # what candidates share
    assert memo.used == 0 and not memo._rows


def test_values_come_in_the_order_of_the_shapes(models: ModelSet) -> None:
    found = measurement(models, a_recipe(models), *opened(models))
    assert [name for name, _ in found.values()] == [name for name, _, _ in found.shapes]


def test_the_merge_does_what_the_experts_do_where_their_average_does_not(models: ModelSet) -> None:
    """Texts that an expert was measured on end in its own states, as far as one model can do both."""
    recipe = a_recipe(models)
    mean = built(models, recipe, {})
    fitted = built(models, recipe, taken(measurement(models, recipe, *opened(models))))
    errors = []
    for weights in (mean, fitted):
        live, _ = opened(models)
        live.load_state_dict(weights)
        error = torch.zeros((), dtype=torch.float64)
        for name, texts in texts_of(models).items():
            expert = loaded(models.experts[name].path)
            theirs, ours = seen_whole(expert, texts)["lm_head.weight"], seen_whole(live, texts)["lm_head.weight"]
            wanted, given = theirs @ expert.lm_head.weight.double().mT, ours @ weights["lm_head.weight"].double().mT
            error += WEIGHTS[name] * (wanted - given).square().mean()
        errors.append(float(error))
    assert errors[1] < 0.6 * errors[0]


def test_one_expert_alone_comes_back(models: ModelSet) -> None:
    weights = {"add": 1.0, "sort": 0.0}
    group = GroupMerge(layers=(0, LAYERS), method="pleas_pp", weights=weights, parameters={"texts": "all"})
    recipe = recipe_of(models, (group,), suite=SUITE)
    found = built(models, recipe, taken(measurement(models, recipe, *opened(models))))
    for name, tensor in loaded(models.experts["add"].path).state_dict().items():
        assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_shortage_of_memory_changes_nothing(models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.lm.budget._free", lambda device: None)
    recipe, (live, resident) = a_recipe(models), opened(models)
    rows: list[int] = []

    def look(module: Any, args: Any, output: Any) -> None:
        rows.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    live.model.layers[2].register_forward_hook(look)
    values = taken(measurement(models, recipe, live, resident))
    assert max(rows) > 2 and rows[-1] <= 2
    for name, value in taken(measurement(models, recipe, *opened(models))).items():
        assert_close(values[name], value, rtol=1e-2, atol=1e-3)


def test_recipes_that_no_pass_goes_through_are_refused(models: ModelSet) -> None:
    recipe = a_recipe(models, slices=(Slice(layers=(0, 2)), Slice(layers=(2, LAYERS))))
    with pytest.raises(InvalidRecipe, match=r"method: 'pleas_pp' goes through the layers of one stack.*use pleas"):
        measurement(models, recipe, *opened(models))
