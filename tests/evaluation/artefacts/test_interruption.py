"""Measuring that is stopped or killed in the middle of a pass: nothing half made is ever taken for an artefact."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.suite import Suite
from merging.artefacts.place import VARIABLE
from merging.artefacts.request import requests
from merging.artefacts.shelf import MANIFEST
from tests.evaluation.artefacts.shop import artefacts_in, assert_exported, once_begun, open_shop, recipe_of
from tests.evaluation.conftest import Tiny

ROOT = Path(__file__).parents[3]
VICTIM = """
import sys
from pathlib import Path
from evaluation.suite import Suite
from tests.evaluation.artefacts.shop import SUITE_TASKS, once_begun, open_shop, recipe_of
from tests.evaluation.conftest import KEY, Tiny

models, root, artefacts = map(Path, sys.argv[1:])
suite = Suite.load(Tiny(root, {}).spec(*SUITE_TASKS, documents=12), root, KEY)
shop = open_shop(models)

def stop() -> None:
    print("in the middle", flush=True)
    sys.stdin.read()  # until it is killed

recipe = recipe_of(shop.models, suite.tuning_digest, "regmean_pp", texts="all")
shop.workshop.ensure(recipe, suite, once_begun(artefacts, stop))
"""


def left_in(folder: Path) -> list[str]:
    """What lies there beside locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("method", ["regmean", "regmean_pp", "pleas", "pleas_pp"])
def test_what_is_stopped_leaves_nothing_and_begins_again(
    models: Path, suite: Suite, artefacts: Path, tmp_path: Path, method: str
) -> None:
    shop = open_shop(models)
    every = {} if method == "pleas" else {"texts": "all"}  # it always takes all
    recipe = recipe_of(shop.models, suite.tuning_digest, method, **every)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.workshop.ensure(recipe, suite, once_begun(artefacts, stop))
    assert left_in(artefacts) == []
    first, *_ = requests(recipe, shop.models)
    assert shop.workshop.shelf.find(first) is None
    assert shop.workshop.ensure(recipe, suite) == list(requests(recipe, shop.models))
    assert_exported(shop, recipe, tmp_path / "out")


def test_what_an_attempt_had_built_does_not_stay(
    models: Path, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, beats = open_shop(models), list[int]()
    recipe = recipe_of(shop.models, suite.tuning_digest, "regmean_pp", texts="all")

    def stop() -> None:
        beats.append(1)
        if len(beats) == 12:  # the first layers are built of what was measured in these batches
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.workshop.ensure(recipe, suite, stop)
    monkeypatch.setattr("evaluation.lm.budget._positions", lambda model, device: 60)  # other batches, other last bits
    assert shop.workshop.ensure(recipe, suite)
    assert_exported(shop, recipe, tmp_path / "out")


def test_what_is_stopped_keeps_what_was_finished_before(models: Path, suite: Suite, artefacts: Path) -> None:
    shop, stops = open_shop(models), list[int]()
    recipe = recipe_of(shop.models, suite.tuning_digest, "fisher", texts="all")

    def stop() -> None:
        if artefacts_in(artefacts) == ["fisher"]:
            stops.append(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.workshop.ensure(recipe, suite, stop)
    assert stops and len(left_in(artefacts)) == 1
    assert all(not each.requires_grad and each.grad is None for each in shop.live.parameters())
    assert shop.workshop.ensure(recipe, suite) == list(requests(recipe, shop.models))[1:]


def test_what_is_killed_leaves_nothing_that_is_taken_for_an_artefact(
    models: Path, suite: Suite, tiny: Tiny, artefacts: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", VICTIM, str(models), str(tiny.root), str(artefacts)]
    environment, pipe = tiny.environment | {VARIABLE: str(artefacts)}, subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True) as victim:
        assert victim.stdout is not None
        assert any(line == "in the middle\n" for line in victim.stdout)
        victim.send_signal(signal.SIGKILL)
        victim.wait(60)
    (left,) = left_in(artefacts)
    assert left.endswith(".part") and not list(artefacts.rglob(MANIFEST))
    shop = open_shop(models)
    recipe = recipe_of(shop.models, suite.tuning_digest, "regmean_pp", texts="all")
    (request,) = requests(recipe, shop.models)
    assert shop.workshop.shelf.find(request) is None
    assert shop.workshop.ensure(recipe, suite) == [request]
    assert left_in(artefacts) == [f"propagated-inputs-{request.digest}"]
    assert_exported(shop, recipe, tmp_path / "out")
