"""Products of several experts' inputs on the same tokens: against sums over single texts, in whatever parts."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from evaluation.artefacts.common import Common, measure_common
from evaluation.artefacts.contract import Joint, Subject
from evaluation.artefacts.texts import Text
from evaluation.artefacts.workshop import nobody
from evaluation.live import live_tensors
from evaluation.lm.budget import Budget
from merging.models import ModelSet
from merging.recipe import GroupMerge, Recipe
from merging.resident import ResidentModel
from tests.evaluation.artefacts.subjects import ROOM, loaded, request, seen_whole, some_texts
from tests.merging.factories import LAYERS, SUITE, open_models, recipe_of

BLOCK = 4096


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    return open_models(tmp_path_factory.mktemp("models"), experts=2)


def a_recipe(models: ModelSet, method: str = "pleas") -> Recipe:
    group = GroupMerge(layers=(0, LAYERS), method=method, weights={"add": 0.7, "sort": 0.3})
    return recipe_of(models, (group,), suite=SUITE)


def measurement(models: ModelSet, texts: list[Text], room: int = ROOM, block: int = BLOCK) -> tuple[Common, Any]:
    live = loaded(models.base.path)
    tensors = live_tensors(live, models.base.names)
    joint = Joint(models, a_recipe(models), ResidentModel(models, tensors), {})
    subject = Subject(live, tensors, texts, Budget(live, "cpu", None), room, nobody, joint)
    return measure_common(subject, request("common inputs", block=block)), live


def taken(found: Common) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in found.values()}


def expected(models: ModelSet, texts: list[Text]) -> dict[str, Tensor]:
    """E[z_i z_jᵀ] by the artefact's names."""
    seen = {
        fingerprint: seen_whole(loaded(models.experts[name].path), texts)
        for name, fingerprint in zip(models.names, models.expert_fingerprints, strict=True)
    }
    return {
        f"{ours}/{name}::with.{theirs}.0": (inputs.mT @ seen[theirs][name] / len(inputs)).float()
        for ours in seen
        for theirs in seen
        if ours <= theirs
        for name, inputs in seen[ours].items()
    }


def test_products_are_those_of_single_texts_the_last_token_too(models: ModelSet) -> None:
    texts = some_texts()
    found, _ = measurement(models, texts)
    values, wanted = taken(found), expected(models, texts)
    assert [(name, value.dtype, tuple(value.shape)) for name, value in values.items()] == found.shapes
    assert values.keys() == wanted.keys() and len(values) == 3 * (LAYERS * 7 + 1)
    for name, products in wanted.items():
        assert_close(values[name], products, rtol=1e-3, atol=1e-5)
    assert found.figures() == {"positions": sum(map(len, texts))}


def test_rounds_and_parts_change_nothing_and_fit_the_room(models: ModelSet) -> None:
    texts = some_texts(40)
    (whole, one), room = measurement(models, texts), 1 << 19
    (parts, other) = measurement(models, texts, room)
    assert parts.rounds > whole.rounds == 1 and parts.need <= room < whole.need
    passes: dict[Any, int] = {one: 0, other: 0}

    def count(live: Any) -> None:
        live.base_model.register_forward_pre_hook(lambda module, args: passes.update({live: passes[live] + 1}))

    count(one)
    count(other)
    values = taken(parts)
    for name, value in taken(whole).items():
        assert_close(values[name], value, rtol=1e-4, atol=1e-6)
    assert passes[other] > parts.rounds * passes[one]  # the texts too were cut


def test_a_shortage_of_memory_changes_nothing(models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.lm.budget._free", lambda device: None)
    texts = some_texts()
    short, live = measurement(models, texts)
    rows: list[int] = []

    def look(module: Any, args: Any, output: Any) -> None:
        rows.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    live.model.layers[1].register_forward_hook(look)
    values = taken(short)
    assert max(rows) > 2 and rows[-1] <= 2
    for name, value in taken(measurement(models, texts)[0]).items():
        assert_close(values[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block", [1, 5])
def test_wide_inputs_keep_products_within_blocks(models: ModelSet, block: int) -> None:
    texts = some_texts()
    values, wanted = taken(measurement(models, texts, block=block)[0]), expected(models, texts)
    for name, products in wanted.items():
        stem = name.removesuffix(".0")
        if block == 1:
            assert_close(values[name], products.diagonal(), rtol=1e-3, atol=1e-5)
        else:
            assert_close(values[f"{stem}.1"], products[5:10, 5:10], rtol=1e-3, atol=1e-5)


def test_a_tied_head_is_no_layer(models: ModelSet) -> None:
    found, live = measurement(models, some_texts())
    assert any(name.endswith("lm_head.weight::with." + name.split("/")[0] + ".0") for name, _, _ in found.shapes)
    live.lm_head.weight = live.model.embed_tokens.weight
    again = measure_common(found.subject, request("common inputs", block=BLOCK))
    assert len(again.shapes) == 3 * LAYERS * 7
    assert [layer.names for layer in again.layers] == [layer.names for layer in found.layers[:-1]]
