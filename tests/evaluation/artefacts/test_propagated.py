"""RegMean++: against whole forward passes of the merged layers with one expert's layer behind them."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.propagated import Propagated, measure_propagated
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
from tests.evaluation.artefacts.subjects import ROOM, linear, moments, seen, some_texts
from tests.merging.factories import LAYERS, SUITE, open_models, recipe_of

WEIGHTS = {"add": 0.7, "sort": 0.3}
ALPHA, RIDGE = 0.8, 0.01


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    return open_models(tmp_path_factory.mktemp("models"), experts=2)


def loaded(path: Path) -> Any:
    return LlamaForCausalLM.from_pretrained(path).eval().requires_grad_(False)


def texts_of(models: ModelSet) -> dict[str, list[Text]]:
    return {name: some_texts(5, seed) for seed, name in enumerate(models.names)}


def a_recipe(models: ModelSet, **fields: Any) -> Recipe:
    settings = {"texts": "all", "alpha": ALPHA, "ridge": RIDGE}
    group = GroupMerge(layers=(0, LAYERS), method="regmean_pp", weights=WEIGHTS, parameters=settings)
    return recipe_of(models, (group,), **({"suite": SUITE} | fields))


def opened(models: ModelSet) -> tuple[Any, ResidentModel]:
    """A live model, and what writes into it."""
    live = loaded(models.base.path)
    return live, ResidentModel(models, live_tensors(live, models.base.names))


def measurement(models: ModelSet, recipe: Recipe, live: Any, resident: ResidentModel) -> Propagated:
    texts = texts_of(models)
    joint = Joint(models, recipe, resident, texts)
    tensors = live_tensors(live, models.base.names)
    subject = Subject(live, tensors, texts[models.names[0]], Budget(live, "cpu", None), ROOM, nobody, joint)
    return measure_propagated(subject, requests(recipe, models)[-1])


def least_squares(base: Tensor, experts: Mapping[str, Tensor], grams: Mapping[str, Tensor] | None) -> Tensor:
    """(Σ w W G + r W̄) (Σ w G + r I)⁻¹ in float64, G with its products times α, W̄ and r from the means."""
    mean = sum(WEIGHTS[name] * experts[name].double() for name in experts)
    assert isinstance(mean, Tensor)
    if grams is None:
        return mean.to(base.dtype)
    soft = {n: ALPHA * g.double() + (1 - ALPHA) * torch.diag(g.double().diagonal()) for n, g in grams.items()}
    total = sum(WEIGHTS[name] * soft[name] for name in soft)
    assert isinstance(total, Tensor)
    pull = RIDGE * total.diagonal().mean()
    moment = sum((WEIGHTS[name] * experts[name].double() @ soft[name] for name in soft), pull * mean)
    return torch.linalg.solve(total + pull * torch.eye(len(total), dtype=torch.float64), moment, left=False).float()


def reference(models: ModelSet) -> tuple[dict[str, Tensor], Any]:
    """The products by the artefact's names, and the merged model, with nothing but whole passes over single texts."""
    base, texts = loaded(models.base.path), texts_of(models)
    experts = {name: loaded(checkpoint.path) for name, checkpoint in models.experts.items()}
    merged, found = copy.deepcopy(base), dict[str, Tensor]()
    owners = dict(zip(models.names, models.expert_fingerprints, strict=True))

    def merge(inside: str, grams: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, tensor in merged.state_dict().items():
            if name.startswith(inside) if inside else ".layers." not in name:
                of = {expert: each.state_dict()[name] for expert, each in experts.items()}
                tensor.copy_(least_squares(base.state_dict()[name], of, grams.get(name)))

    merge("", {})
    for number in range(LAYERS):
        grams: dict[str, dict[str, Tensor]] = {}
        for expert, each in experts.items():
            probe = copy.deepcopy(merged)
            probe.model.layers[number].load_state_dict(each.model.layers[number].state_dict())
            inside = {n: m for n, m in linear(probe).items() if f".layers.{number}." in n}
            for name, inputs in seen(probe, inside, texts[expert]).items():
                grams.setdefault(name, {})[expert] = moments(inputs)
                found[f"{owners[expert]}/{name}::gram.0"] = moments(inputs)
        merge(f"model.layers.{number}.", grams)
    return found, merged


def test_products_and_merge_are_those_of_whole_passes(models: ModelSet) -> None:
    recipe, (live, resident) = a_recipe(models), opened(models)
    found = measurement(models, recipe, live, resident)
    values = {name: value.clone() for name, value in found.values()}
    assert [(name, value.dtype, tuple(value.shape)) for name, value in values.items()] == found.shapes
    grams, merged = reference(models)
    assert values.keys() == grams.keys() and len(grams) == 2 * LAYERS * 7
    for name, gram in grams.items():
        assert_close(values[name], gram, rtol=1e-3, atol=1e-5)
    assert found.figures() == {"positions": sum(t.positions for texts in texts_of(models).values() for t in texts)}
    weights = []
    for given in (values, grams):
        one, writer = opened(models)
        growing = Growing()
        for name, gram in given.items():
            growing.add(name, gram)
        with writer.shelf.lending(requests(recipe, models)[-1], growing):
            writer.apply(recipe)
        weights.append(one.state_dict())
    for name, tensor in merged.state_dict().items():
        assert_close(weights[0][name], weights[1][name], rtol=1e-3, atol=1e-5)
        assert_close(weights[0][name], tensor, rtol=1e-3, atol=1e-5)


def test_inputs_are_not_those_of_the_experts_alone(models: ModelSet) -> None:
    grams, merged = reference(models)
    last = f"model.layers.{LAYERS - 1}.mlp.down_proj.weight"
    for name, fingerprint in zip(models.names, models.expert_fingerprints, strict=True):
        alone = loaded(models.experts[name].path)
        plain = moments(seen(alone, {last: linear(alone)[last]}, texts_of(models)[name])[last])
        assert float((grams[f"{fingerprint}/{last}::gram.0"] - plain).norm() / plain.norm()) > 0.1
        assert not torch.equal(merged.state_dict()[last], alone.state_dict()[last])


def test_a_shortage_of_memory_changes_nothing(models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.lm.budget._free", lambda device: None)
    recipe, (live, resident) = a_recipe(models), opened(models)
    rows: list[int] = []

    def look(module: Any, args: Any, output: Any) -> None:
        rows.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    live.model.layers[2].register_forward_hook(look)
    found = measurement(models, recipe, live, resident)
    values = {name: value.clone() for name, value in found.values()}
    plain = measurement(models, recipe, *opened(models))
    assert max(rows) == 5 and rows[-1] <= 2
    for name, value in plain.values():
        assert_close(values[name], value, rtol=1e-3, atol=1e-5)
    assert found.figures() == plain.figures()


def test_recipes_that_no_pass_goes_through_are_refused(models: ModelSet) -> None:
    live, resident = opened(models)
    recipe = a_recipe(models, slices=(Slice(layers=(0, 2)), Slice(layers=(2, LAYERS))))
    with pytest.raises(InvalidRecipe, match=r"method: 'regmean_pp' goes through the layers of one stack"):
        measurement(models, recipe, live, resident)
    first = a_recipe(models).groups[0]
    halves = [
        first.model_copy(update={"layers": span, "parameters": {**first.parameters, "documents": documents}})
        for span, documents in (((0, 2), 4), ((2, LAYERS), 8))
    ]
    with pytest.raises(InvalidRecipe, match="method: 'regmean_pp' is measured with other settings in another group"):
        measurement(models, recipe_of(models, tuple(halves), suite=SUITE), live, resident)
