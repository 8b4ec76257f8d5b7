"""An expert and itself with its units shuffled: aligned and fitted to each other's outputs they are the expert."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation.artefacts.common import measure_common
from evaluation.artefacts.contract import Joint, Measurement, Subject
from evaluation.artefacts.merged import measure_merged
from evaluation.artefacts.workshop import nobody
from evaluation.live import live_tensors
from evaluation.lm.budget import Budget
from merging.artefacts.request import requests
from merging.artefacts.shelf import Growing
from merging.checkpoint import Checkpoint
from merging.models import ModelSet
from merging.permuting.apply import permute
from merging.permuting.export import align
from merging.recipe import GroupMerge
from merging.resident import ResidentModel
from tests.evaluation.artefacts.subjects import ROOM, ids, loaded, some_texts
from tests.merging.factories import LAYERS, SUITE, recipe_of
from tests.merging.permuting.decoders import decoder, random_orders, specification, state

NOISE = 1e-3
TEXTS = some_texts(40)
MEASURES: dict[str, Any] = {"pleas": measure_common, "pleas_pp": measure_merged}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`expert`; `shuffled`, the same with a little noise in another order; `aligned`, that in the expert's order."""
    root = tmp_path_factory.mktemp("planted")
    model, other = (decoder(num_hidden_layers=LAYERS) for _ in range(2))
    made = specification(model, "all")
    orders, generator = random_orders(made), torch.Generator().manual_seed(5)
    noisy = {n: t * (1 + NOISE * torch.randn(t.shape, generator=generator)) for n, t in state(model).items()}
    other.load_state_dict({name: permute(made, orders, name, tensor) for name, tensor in noisy.items()})
    for name, each in (("expert", model), ("shuffled", other)):
        each.save_pretrained(root / name)
        (root / name / "tokenizer.json").write_text("{}")
    align(Checkpoint(root / "shuffled"), Checkpoint(root / "expert"), root / "aligned", parts=["all"])
    return root


def merged(root: Path, other: str, method: str) -> dict[str, Tensor]:
    """Half of the expert and half of another, after a measurement."""
    models = ModelSet.open(root / "expert", {"expert": root / "expert", "other": root / other})
    given = {} if method == "linear" else {"documents": 4} | ({"texts": "all"} if method == "pleas_pp" else {})
    weights = {"expert": 0.5, "other": 0.5}
    group = GroupMerge(layers=(0, LAYERS), method=method, weights=weights, parameters=given)
    recipe = recipe_of(models, (group,), suite=SUITE if given else "")
    live = loaded(models.base.path)
    tensors = live_tensors(live, models.base.names)
    resident, growing = ResidentModel(models, tensors), Growing()
    joint = Joint(models, recipe, resident, dict.fromkeys(models.names, TEXTS))
    subject = Subject(live, tensors, TEXTS, Budget(live, "cpu", None), ROOM, nobody, joint)
    for request in requests(recipe, models):
        found: Measurement = MEASURES[method](subject, request)
        for name, value in found.values():
            growing.add(name, value.clone())
        with resident.shelf.lending(request, growing):
            resident.apply(recipe)
    if not given:
        resident.apply(recipe)
    return {name: tensor.clone() for name, tensor in live.state_dict().items()}


@torch.no_grad()
def error(root: Path, weights: dict[str, Tensor]) -> float:
    """How far the merge's answers are from the expert's, as a share of their size."""
    expert, live = loaded(root / "expert"), loaded(root / "expert")
    live.load_state_dict(weights)
    wanted, found = (torch.cat([model(ids(text)).logits[0] for text in TEXTS]) for model in (expert, live))
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("method", ["linear", *MEASURES])
def test_aligned_it_is_the_expert(folder: Path, method: str) -> None:
    assert error(folder, merged(folder, "aligned", method)) < 10 * NOISE


@pytest.mark.parametrize("method", ["linear", *MEASURES])
def test_shuffled_it_is_not(folder: Path, method: str) -> None:
    assert error(folder, merged(folder, "shuffled", method)) > 100 * NOISE
