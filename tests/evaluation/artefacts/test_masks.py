"""Trained masks: they find the few elements that count, keep as many as asked, and leave the base behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.masks import measure_masks
from evaluation.suite import Suite
from merging.artefacts.place import VARIABLE
from merging.artefacts.shelf import MANIFEST
from merging.codecs.bits import unpack
from merging.models import ModelSet
from tests.evaluation.artefacts.planted import Bench, a_suite, planted
from tests.evaluation.conftest import Tiny

PLACE = "model.norm.weight"  # where the base went wrong
QUICK = {"steps": 60, "batch": 28, "documents": 40, "texts": "all", "l1": 0.1, "rate": 0.3}


@pytest.fixture(scope="module")
def models(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    """A base whose last norm went wrong; an expert that has it right, and larger steps to no end elsewhere."""

    def change(which: str, tensors: dict[str, Tensor]) -> None:
        generator = torch.Generator().manual_seed(1)
        if which == "base":
            tensors[PLACE].neg_()  # every channel speaks against what is right
            return
        for _, tensor in sorted(tensors.items()):
            if tensor.dim() == 2:
                chosen = torch.randperm(tensor.numel(), generator=generator)[: tensor.numel() // 256]
                tensor.view(-1)[chosen] += 4.0

    return planted(tmp_path_factory.mktemp("masks"), tiny, change, "healed")


@pytest.fixture(scope="module")
def suite(tiny: Tiny) -> Suite:
    return a_suite(tiny, "tiny_generate")


@pytest.fixture
def bench(models: ModelSet, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "artefacts"))
    (tmp_path / "artefacts").mkdir()
    return Bench(models, suite)


def share_of(bench: Bench) -> tuple[float, int]:
    """What went wrong, as a share of the model and as a count."""
    count = bench.tensors[PLACE].numel()
    return count / sum(tensor.numel() for tensor in bench.tensors.values()), count


def trained(bench: Bench, **parameters: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The masks by tensor, bool [*shape], and figures."""
    recipe = bench.recipe("graft_trained", **{**QUICK, **parameters})
    (*_, request) = bench.workshop.ensure(recipe, bench.suite)
    found = bench.workshop.shelf.require(request)
    masks = {}
    for name, tensor in bench.tensors.items():
        packed = found.tensor(name)
        assert packed is not None
        masks[name] = unpack(packed, tensor.numel()).view(tensor.shape)
    return masks, dict(found.figures)


def test_it_finds_the_few_that_count(bench: Bench) -> None:
    share, count = share_of(bench)
    masks, figures = trained(bench, share=share)
    assert figures["kept"] == sum(int(mask.sum()) for mask in masks.values()) == count
    assert int(masks[PLACE].sum()) >= 0.6 * count  # by chance a quarter
    assert figures["last loss"] < figures["first loss"]
    base, (expert,) = bench.models.stack(PLACE)
    moves = [(x[0] - b).abs() for b, x in map(bench.models.stack, bench.tensors)]
    assert sum(int((each > (expert - base).abs().max()).sum()) for each in moves) > count  # none is of the largest


def test_the_merge_is_the_base_but_for_the_mask(bench: Bench) -> None:
    share, _ = share_of(bench)
    masks, _ = trained(bench, share=share)
    bench.resident.apply(bench.recipe("graft_trained", **{**QUICK, "share": share}))
    for name, mask in masks.items():
        base, (expert,) = bench.models.stack(name)
        torch.testing.assert_close(bench.tensors[name].detach(), torch.where(mask, expert, base))


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_it_keeps_the_share(bench: Bench, share: float) -> None:
    masks, _ = trained(bench, share=share, steps=2)
    size = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == round(share * size)


def test_the_penalty_lowers_every_logit(bench: Bench) -> None:
    subject = bench.subject(bench.texts())
    request = bench.request("graft_trained", **{**QUICK, "share": 0.01, "l1": 1e6})
    measurement = measure_masks(subject, replace(request, expert="healed"))
    list(measurement.values())
    assert all(bool((leaf < 0).all()) for leaf in measurement.masks.leaves)


class Interrupted(Exception):
    """What a beat raises."""


def test_an_interrupted_one_leaves_nothing_but_the_base(bench: Bench, tmp_path: Path) -> None:
    beats = iter(range(30))

    def beat() -> None:
        if next(beats, None) is None:
            raise Interrupted

    with pytest.raises(Interrupted):
        bench.workshop.ensure(bench.recipe("graft_trained", **QUICK), bench.suite, beat)
    assert not [path for path in (tmp_path / "artefacts").rglob(MANIFEST) if "masks" in str(path)]
    assert bench.untouched()
    for name, tensor in bench.tensors.items():
        assert torch.equal(tensor.detach(), bench.models.stack(name).base)


def test_too_little_room_says_what_to_lower(bench: Bench) -> None:
    subject: Subject = bench.subject(bench.texts(), room=1000)
    with pytest.raises(MemoryError, match="lower the method's share"):
        measure_masks(subject, bench.request("graft_trained", **QUICK))
