"""Measuring what recipes read: once, never on the holdout, and so that what is built is what is exported."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evaluation.artefacts.likelihoods import ANSWERS
from evaluation.artefacts.texts import read_texts
from evaluation.artefacts.workshop import _write
from evaluation.calibration import calibration
from evaluation.lm.resident import ResidentLM
from evaluation.suite import Suite
from merging.artefacts.request import requests
from merging.artefacts.shelf import TENSORS, Artefact, finish
from merging.errors import InvalidRecipe, OutputError
from merging.recipe import Recipe
from merging.weightfiles import Shape
from tests.evaluation.artefacts.shop import (
    DOCUMENTS,
    EXPERTS,
    SUITE_TASKS,
    Shop,
    artefacts_in,
    assert_exported,
    open_shop,
    recipe_of,
)
from tests.evaluation.conftest import harness


@pytest.fixture
def shop(models: Path) -> Shop:
    return open_shop(models)


def kinds(shop: Shop, recipe: Recipe, suite: Suite) -> list[tuple[str, str]]:
    """What was measured now, and of whom."""
    return [(one.kind, one.expert) for one in shop.workshop.ensure(recipe, suite)]


def of_each(kind: str) -> list[tuple[str, str]]:
    return [(kind, name) for name in EXPERTS]


@pytest.mark.parametrize(
    ("methods", "measured"),
    [
        (("fisher",), [*of_each("likelihoods"), *of_each("fisher")]),
        (("regmean",), [*of_each("likelihoods"), *of_each("inputs")]),
        (("regmean_pp",), [*of_each("likelihoods"), ("propagated inputs", "")]),
        (("pleas",), [("common inputs", "")]),
        (("pleas_pp",), [*of_each("likelihoods"), ("merged inputs", "")]),
        (("fisher", "regmean"), [*of_each("likelihoods"), *of_each("fisher"), *of_each("inputs")]),
        # what hangs on the whole recipe builds all of it, whichever group asks first
        (("regmean_pp", "fisher"), [*of_each("likelihoods"), *of_each("fisher"), ("propagated inputs", "")]),
    ],
)
def test_what_is_built_is_what_is_exported(
    shop: Shop, suite: Suite, methods: tuple[str, ...], measured: list[tuple[str, str]], tmp_path: Path
) -> None:
    recipe = recipe_of(shop.models, suite.tuning_digest, *methods)
    assert kinds(shop, recipe, suite) == measured
    assert_exported(shop, recipe, tmp_path / "out")
    plain = recipe_of(shop.models, "", "linear")
    assert kinds(shop, plain, suite) == []
    shop.resident.apply(plain)
    mean = shop.weights()["model.layers.0.mlp.up_proj.weight"]
    shop.resident.apply(recipe)
    assert not torch.allclose(shop.weights()["model.layers.0.mlp.up_proj.weight"], mean, rtol=1e-3)


def test_what_was_measured_is_read_again_by_everybody(models: Path, shop: Shop, suite: Suite) -> None:
    recipe = recipe_of(shop.models, suite.tuning_digest, "fisher", "regmean")
    passes: list[Tensor] = []
    with shop.passes(passes.append):
        assert len(kinds(shop, recipe, suite)) == 6 and passes
        passes.clear()
        assert kinds(shop, recipe, suite) == [] and passes == []
    other = open_shop(models)
    with other.passes(passes.append):
        assert kinds(other, recipe, suite) == [] and passes == []
        every = recipe_of(shop.models, suite.tuning_digest, "regmean", texts="all")
        assert len(kinds(other, every, suite)) == 2 and passes
    other.resident.apply(recipe)
    shop.resident.apply(recipe)
    assert all(torch.equal(tensor, other.weights()[name]) for name, tensor in shop.weights().items())


def test_an_artefact_says_how_it_was_measured(shop: Shop, suite: Suite) -> None:
    recipe = recipe_of(shop.models, suite.tuning_digest, "regmean")
    for request in shop.workshop.ensure(recipe, suite):
        found = shop.workshop.shelf.require(request)
        assert isinstance(found, Artefact) and found.figures["rounds"] == 1
        assert found.figures["bytes"] > 0 and found.figures["seconds"] > 0
        assert request.kind != "inputs" or found.figures["positions"] > 10


def test_no_text_but_the_search_documents_is_read(shop: Shop, suite: Suite, live: tuple[Any, Any]) -> None:
    lm = ResidentLM(*live, None)
    rows: set[tuple[int, ...]] = set()
    with shop.passes(lambda ids: rows.update(map(tuple, ids.tolist()))):
        for method in ("fisher", "regmean", "regmean_pp"):
            settings = {"labels": "given"} if method == "fisher" else {}
            shop.workshop.ensure(recipe_of(shop.models, suite.tuning_digest, method, **settings), suite)
    examples = calibration(suite, DOCUMENTS["documents"]).examples
    assert len(examples) == len(SUITE_TASKS) * DOCUMENTS["documents"]
    searched = {ids(lm, each.prompt, each.continuation) for each in examples}
    held = {ids(lm, *harness(suite, task).example(i)) for task in SUITE_TASKS for i in suite.documents(task, "holdout")}
    assert all(any(begins(row, text) for row in rows) for text in searched)
    assert all(any(begins(row, text) for text in searched) for row in rows)
    assert len(held) > 4 and not any(begins(row, text) for row in rows for text in held)


def ids(lm: ResidentLM, prompt: str, continuation: str) -> tuple[int, ...]:
    """A document as far as the model says anything of it, cut to the window."""
    context, answer = lm.pair(prompt, continuation)
    return (*context, *answer)[: lm.max_length - 1]


def begins(row: tuple[int, ...], text: tuple[int, ...]) -> bool:
    """Whether the row is the text: its last token may be left out, and behind it is padding alone."""
    shown, rest = row[: len(text) - 1], row[len(text) - 1 :]
    return shown == text[:-1] and rest[:1] in ((), (0,), text[-1:]) and not any(rest[1:])


@pytest.mark.parametrize("shares", ["both", "one"])
def test_documents_are_shared_out_by_who_explains_them(
    shop: Shop, suite: Suite, live: tuple[Any, Any], shares: str
) -> None:
    recipe, shelf = recipe_of(shop.models, suite.tuning_digest, "regmean"), shop.workshop.shelf
    lm = ResidentLM(*live, None)
    texts = read_texts(suite, DOCUMENTS["documents"], lm.pair, lm.max_length)
    left = torch.arange(len(texts)) % 3 if shares == "both" else torch.ones(len(texts))
    own = {"left": texts, "right": texts}  # who explains nothing best has them all
    if shares == "both":
        own = {"left": [text for i, text in enumerate(texts) if i % 3], "right": texts[::3]}
    right = torch.full((len(texts),), 0.5)
    for request, answers in zip(requests(recipe, shop.models)[:2], (left.float(), right), strict=True):
        assert request.kind == "likelihoods"
        with shelf.making(request) as folder:
            assert folder is not None
            save_file({ANSWERS: answers}, folder / TENSORS)
            finish(folder, request, {})
    for request in shop.workshop.ensure(recipe, suite):
        assert shop.workshop.texts(suite, request, request.expert) == own[request.expert]
        assert shelf.require(request).figures["positions"] == sum(text.positions for text in own[request.expert])


def test_a_recipe_that_looks_at_no_data_needs_no_suite(shop: Shop, artefacts: Path) -> None:
    passes: list[Tensor] = []
    with shop.passes(passes.append):
        assert shop.workshop.ensure(recipe_of(shop.models, "", "linear"), cast(Suite, None)) == []
    assert passes == [] and not artefacts.exists()


def test_a_recipe_of_another_suite_is_refused(shop: Shop, suite: Suite, artefacts: Path) -> None:
    with pytest.raises(InvalidRecipe, match=rf"suite: '6+' is not the suite at hand, {suite.tuning_digest}; "):
        shop.workshop.ensure(recipe_of(shop.models, "6" * 32, "regmean"), suite)
    assert not artefacts.exists()


def test_a_full_disk_leaves_nothing_that_is_taken_for_an_artefact(
    shop: Shop, suite: Suite, artefacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(shop.models, suite.tuning_digest, "regmean_pp", texts="all")
    (request,) = requests(recipe, shop.models)

    def full(folder: Path, files: Any, fill: Any, *, indexed: bool) -> None:
        ((_, shapes),) = files
        name, dtype, shape = shapes[0]
        fill(name, torch.empty(shape, dtype=dtype))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("evaluation.artefacts.workshop.write_weights", full)
        with pytest.raises(OutputError, match="space") as raised:
            shop.workshop.ensure(recipe, suite)
    # while the error is kept, so is what was at work: it must lend nothing any more
    assert raised.value and shop.workshop.shelf.find(request) is None
    assert [path for path in artefacts.iterdir() if path.suffix != ".lock"] == []
    assert kinds(shop, recipe, suite) == [("propagated inputs", "")]
    assert_exported(shop, recipe, tmp_path / "out")


@pytest.mark.parametrize("method", ["fisher", "regmean_pp"])
def test_experts_of_equal_content_are_measured_once(
    models: Path, suite: Suite, method: str, tmp_path: Path, artefacts: Path
) -> None:
    for name in ("base", *EXPERTS):
        (tmp_path / name).symlink_to(models / name)
    shutil.copytree(models / EXPERTS[0], tmp_path / "twin")
    shop = open_shop(tmp_path, (*EXPERTS, "twin"))
    recipe = recipe_of(shop.models, suite.tuning_digest, method)
    of = [("propagated inputs", "")] if method == "regmean_pp" else of_each(method)
    assert kinds(shop, recipe, suite) == [*of_each("likelihoods"), *of]
    assert len(artefacts_in(artefacts)) == 2 + len(of)
    assert_exported(shop, recipe, tmp_path / "out")


def test_empty_tensors_are_written_too(tmp_path: Path) -> None:
    class Given:
        rounds, need = 1, 0

        @property
        def shapes(self) -> list[Shape]:
            return [("a", torch.float32, (0, 3)), ("b", torch.float32, (2,)), ("c", torch.float32, (0,))]

        def values(self) -> Iterator[tuple[str, Tensor]]:
            yield from ((name, torch.ones(shape)) for name, _, shape in self.shapes)

        def figures(self) -> dict[str, float]:
            return {}

    _write(Given(), tmp_path)
    found = load_file(tmp_path / TENSORS)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {"a": [], "b": [1.0, 1.0], "c": []}
