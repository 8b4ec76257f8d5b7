"""Learned coefficients: they find the good expert, keep to their form, and leave the model and the holdout alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evaluation.artefacts.backward import backward_of
from evaluation.artefacts.coefficients import measure_coefficients
from evaluation.artefacts.contract import Subject
from evaluation.artefacts.forms import Free, Ratios, Softmax, ratios
from evaluation.artefacts.losses import cross_entropy
from evaluation.harness import HarnessTask
from evaluation.suite import Suite
from merging.artefacts.place import VARIABLE
from merging.artefacts.shelf import MANIFEST
from merging.coefficients import coefficient_gradient
from merging.models import ModelSet
from tests.evaluation.artefacts.planted import Bench, a_suite, contexts, noise, planted
from tests.evaluation.conftest import Tiny

TASKS = ("tiny_generate", "tiny_choice")
QUICK = {"steps": 40, "rate": 0.1, "batch": 8, "documents": 40}


@pytest.fixture(scope="module")
def models(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    """A base that has lost its way, an expert that has not, and one that went astray further."""

    def change(which: str, tensors: dict[str, Tensor]) -> None:
        for i, name in enumerate(sorted(tensors)):
            if which != "good" and tensors[name].dim() == 2:
                noise(tensors[name], i, 0.08)
                if which == "lost":
                    noise(tensors[name], 100 + i, 0.08)

    return planted(tmp_path_factory.mktemp("coefficients"), tiny, change, "good", "lost")


@pytest.fixture(scope="module")
def suite(tiny: Tiny) -> Suite:
    return a_suite(tiny, *TASKS)


@pytest.fixture
def bench(models: ModelSet, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "artefacts"))
    (tmp_path / "artefacts").mkdir()
    yield Bench(models, suite)


def learned(bench: Bench, method: str, **parameters: Any) -> tuple[Tensor, dict[str, Any]]:
    """What the artefact keeps of each expert and tensor, float64 [T, tensors], and its figures."""
    recipe = bench.recipe(method, **{**QUICK, **parameters})
    (request,) = bench.workshop.ensure(recipe, bench.suite)
    assert bench.workshop.ensure(recipe, bench.suite) == []
    found, rows = bench.workshop.shelf.require(request), []
    for fingerprint in bench.models.expert_fingerprints:
        each = [found.tensor(f"{fingerprint}/{name}") for name in bench.models.base.names]
        rows.append(torch.stack([one for one in each if one is not None]))
        assert len(rows[-1]) == len(bench.models.base.names)
    return torch.stack(rows).double(), dict(found.figures)


@pytest.mark.parametrize("granularity", ["model", "layer", "module", "tensor"])
def test_a_soup_goes_to_the_good_expert(bench: Bench, granularity: str) -> None:
    found, figures = learned(bench, "learned_soup", granularity=granularity)
    good, lost = found.mean(1).tolist()
    assert good > 0.5 and abs(lost) < 0.4 < good - lost
    assert figures["last loss"] < 0.6 * figures["first loss"] and figures["steps"] == 40
    moved = sum(tensor.dim() == 2 for tensor in bench.tensors.values())  # norms are the base's, and stay at the start
    assert len(found[0].unique()) == {"model": 1, "layer": 2, "module": 6, "tensor": moved + 1}[granularity]
    assert bench.untouched()


def test_the_gradient_is_that_of_candidates_as_they_are_built(bench: Bench) -> None:
    texts, names = bench.texts(), bench.models.base.names
    backward = backward_of(bench.subject(texts), names)

    def loss(weights: tuple[float, ...]) -> float:
        recipe = bench.recipe("task_arithmetic").model_copy(update={"suite": ""})
        group = recipe.groups[0].model_copy(update={"weights": dict(zip(bench.models.names, weights, strict=True))})
        bench.resident.apply(recipe.model_copy(update={"groups": (group,)}))
        return backward.mean(cross_entropy)

    loss((0.6, 0.4))
    slopes = dict[str, Tensor]()
    backward.gradients(cross_entropy, texts, lambda name, slope: slopes.update({name: slope.clone()}))
    found = coefficient_gradient(slopes.items(), bench.models.stack, dict.fromkeys(names, 0), 2)[:, 0].tolist()
    differences = [(loss((0.61, 0.4)) - loss((0.59, 0.4))) / 0.02, (loss((0.6, 0.41)) - loss((0.6, 0.39))) / 0.02]
    assert found == pytest.approx(differences, rel=0.02, abs=1e-3)


def test_shares_of_one_whole(bench: Bench) -> None:
    found, figures = learned(bench, "learned_soup", form="softmax", granularity="layer")
    assert torch.allclose(found.sum(0), torch.ones(()).double(), atol=1e-6) and bool((found >= 0).all())
    assert bool((found[0] > 0.8).all()) and figures["last loss"] < figures["first loss"]


def test_the_merge_is_what_was_learned(bench: Bench) -> None:
    recipe = bench.recipe("learned_soup", **QUICK)
    found, _ = learned(bench, "learned_soup")
    bench.resident.apply(recipe)
    for place, name in enumerate(bench.models.base.names):
        base, experts = bench.models.stack(name)
        expected = base.double() + sum(found[t, place] * (x - base).double() for t, x in enumerate(experts))
        torch.testing.assert_close(bench.tensors[name].detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_adamerging_makes_the_model_surer_and_looks_at_no_answer(bench: Bench) -> None:
    found, figures = learned(bench, "adamerging")
    assert figures["last loss"] < figures["first loss"] and bool((found >= 0).all())
    request, texts = bench.request("adamerging", **QUICK), bench.texts()
    values = [dict(measure_coefficients(bench.subject(each), request).values()) for each in (texts, contexts(texts))]
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])
    assert bench.untouched()


def test_averaging_keeps_its_mean_of_the_base(bench: Bench) -> None:
    found, figures = learned(bench, "adaptive_averaging", alpha0=0.3, blocks=2)
    assert torch.equal(found[0], found[1])
    first, last = found[0].unique().tolist()
    assert first < 0.3 < last and (first + last) / 2 == pytest.approx(0.3, abs=1e-7)
    assert figures["last loss"] < figures["first loss"]


@given(raw=st.lists(st.floats(-50, 50), min_size=1, max_size=40), mean=st.floats(1e-3, 1), floor=st.floats(0.01, 10))
def test_the_mean_share_is_exact(raw: list[float], mean: float, floor: float) -> None:
    found = ratios(torch.tensor(raw, dtype=torch.float64), mean, floor)
    assert float(found.mean()) == pytest.approx(mean, rel=1e-14)
    assert float(found.max() - found.min()) <= mean * len(raw) / floor


def test_forms_begin_alike_and_stay_where_they_may_be() -> None:
    assert Softmax(4, 2).weights().tolist() == [[0.25, 0.25]] * 4
    assert Ratios(2, 3, 0.2, 0.2).weights().flatten().tolist() == pytest.approx([0.4] * 6)
    form = Free(2, 1, 0.3, 0.0)
    with torch.no_grad():
        form.raw.copy_(torch.tensor([[-1.0], [99.0]]))
    form.settle()
    assert form.weights().tolist() == [[0.0], [10.0]]


class Interrupted(Exception):
    """What a beat raises."""


def test_an_interrupted_one_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    beats = iter(range(25))

    def beat() -> None:
        if next(beats, None) is None:
            raise Interrupted

    with pytest.raises(Interrupted):
        bench.workshop.ensure(bench.recipe("learned_soup", **QUICK), bench.suite, beat)
    assert not list((tmp_path / "artefacts").rglob(MANIFEST))
    assert [path for path in (tmp_path / "artefacts").iterdir() if path.suffix != ".lock"] == []
    assert bench.untouched()
    _, figures = learned(bench, "learned_soup")
    assert figures["last loss"] < figures["first loss"]


def test_no_document_that_is_held_out_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read, example = set(), HarnessTask.example

    def looking(task: HarnessTask, doc_id: int) -> tuple[str, str]:
        read.add((task.name, doc_id))
        return example(task, doc_id)

    monkeypatch.setattr(HarnessTask, "example", looking)
    learned(bench, "learned_soup", steps=1)
    assert read and read <= {(task, i) for task in TASKS for i in bench.suite.documents(task, "search")}


def test_what_it_needs_is_known_before_it_runs(bench: Bench) -> None:
    def silent() -> None:
        raise AssertionError("nothing may run yet")

    subject: Subject = bench.subject(bench.texts(), beat=silent)
    found = measure_coefficients(subject, bench.request("learned_soup", **QUICK))
    gradients = sum(tensor.numel() * 4 for tensor in bench.tensors.values())
    assert found.need > gradients and found.rounds > 5 and len(found.shapes) == 2 * len(bench.models.base.names)
