"""Mean losses of experts: by token as the likelihoods say, every document alike; and the merge that reads them."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluation.artefacts.likelihoods import ANSWERS, measure_likelihoods
from evaluation.artefacts.loss import LOSSES, measure_loss
from tests.evaluation.artefacts.planted import Bench, a_suite, planted
from tests.evaluation.artefacts.subjects import llama, request, some_texts, subject_of
from tests.evaluation.conftest import Tiny


def test_they_are_the_likelihoods_by_token() -> None:
    model, texts = llama(), some_texts()
    assert len({len(text.answer) for text in texts}) > 1
    answers = dict(measure_likelihoods(subject_of(model, texts), request("likelihoods")).values())[ANSWERS]
    measured = measure_loss(subject_of(model, texts), request("loss"))
    found = dict(measured.values())[LOSSES]
    wanted = -answers / torch.tensor([len(text.answer) for text in texts])
    torch.testing.assert_close(found, wanted)
    assert measured.figures() == {"loss": pytest.approx(float(wanted.mean()))}


def test_a_merge_leans_to_the_expert_of_the_lower_loss(tiny: Tiny, tmp_path: Path, artefacts: Path) -> None:
    def change(which: str, tensors: dict[str, Tensor]) -> None:
        if which == "noisy":
            generator = torch.Generator().manual_seed(1)
            for tensor in tensors.values():
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.5 * float(tensor.std()))
        else:
            next(iter(tensors.values())).mul_(1.001)

    models = planted(tmp_path / "experts", tiny, change, "good", "noisy")
    bench = Bench(models, a_suite(tiny, "tiny_generate"))
    recipe = bench.recipe("lm_cocktail", documents=12, temperature=0.5)
    made = bench.workshop.ensure(recipe, bench.suite)
    assert [(one.kind, one.expert) for one in made] == [("loss", "good"), ("loss", "noisy")]
    good, noisy = (float(bench.workshop.shelf.require(one).figures["loss"]) for one in made)
    assert abs(good - noisy) > 0.01
    bench.resident.apply(recipe)
    share = 1 / (1 + math.exp((good - noisy) / 0.5))
    for name in bench.tensors:
        _, experts = models.stack(name)
        wanted = share * experts[0].float() + (1 - share) * experts[1].float()
        torch.testing.assert_close(bench.tensors[name].detach().float(), wanted, rtol=1e-5, atol=1e-5)
