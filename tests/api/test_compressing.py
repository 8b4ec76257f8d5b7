"""`mergesearch compress` and `merge --as`: small forms of an expert and of a merge, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.cli import app
from api.compressing import write_as
from api.forms import parsed
from merging.checkpoint import Checkpoint
from merging.codecs.catalog import CODECS
from merging.errors import InvalidInput, InvalidStudy
from merging.expertfolder import open_expert
from merging.models import ModelSet
from tests.merging.factories import a_recipe, write_models


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("codec", [*CODECS, "lora"])
def test_an_expert_is_written_in_every_form_and_opens_again(tmp_path: Path, codec: str) -> None:
    base, experts = write_models(tmp_path, experts=1)
    done = run("compress", experts["add"], "--base", base, "--codec", codec, "--to", tmp_path / "small")
    assert done.exit_code == 0, done.output
    assert ("bits a parameter" in done.stderr) == (codec != "lora") and "small" in done.stderr
    expert = open_expert(tmp_path / "small", "x", Checkpoint(base))
    models = ModelSet.open(base, {"x": tmp_path / "small", "whole": experts["add"]})
    assert expert.names == models.base.names


def test_settings_reach_the_codec(tmp_path: Path) -> None:
    base, experts = write_models(tmp_path, experts=1)
    sizes = []
    for density in (0.05, 0.5):
        to = tmp_path / str(density)
        given = ("--codec", "compeft", "--set", f"density={density}", "--to", to)
        assert run("compress", experts["add"], "--base", base, *given).exit_code == 0
        sizes.append((to / "delta.safetensors").stat().st_size)
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--codec", "zip"), "form: 'zip' is none that a merge can be written in; use one of full, lora, bitdelta"),
        (("--codec", "full"), "--codec: 'full' is no smaller form; use one of lora"),
        (
            ("--codec", "sparse", "--set", "densty=0.1"),
            "--set.densty: 0.1 is no setting of sparse; its settings: density",
        ),
        (("--codec", "sparse", "--set", "density=2"), "--set.density: 2.0 is out of range"),
        (("--codec", "sparse", "--set", "density"), "--set: 'density' is not name=number; write e.g."),
        (("--codec", "lora", "--set", "rank=0"), "--set.rank: 0.0 is out of range"),
        (("--codec", "lora", "--set", "energy=1.5"), "--set.energy: 1.5 is out of range"),
        (
            ("--codec", "lora", "--set", "density=1"),
            "--set.density: 1.0 is no setting of lora; its settings: energy, rank",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    base, experts = write_models(tmp_path, experts=1)
    done = run("compress", experts["add"], "--base", base, *given, "--to", tmp_path / "out")
    assert done.exit_code != 0 and isinstance(done.exception, InvalidInput)
    assert str(done.exception).startswith(said)
    assert not (tmp_path / "out").exists()


def test_a_merge_is_written_in_another_form(tmp_path: Path) -> None:
    models = ModelSet.open(*write_models(tmp_path, experts=2))
    recipe = a_recipe(models)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(yaml.safe_load(recipe.to_json())))
    done = run("merge", tmp_path / "recipe.yaml", "--to", tmp_path / "lora", "--as", "lora", "--set", "rank=4")
    assert done.exit_code == 0 and "ranks up to 4" in done.stderr and "energy" in done.stderr
    done = run("merge", tmp_path / "recipe.yaml", "--to", tmp_path / "delta", "--as", "xor")
    assert done.exit_code == 0 and "bits a parameter" in done.stderr
    again = ModelSet.open(tmp_path / "base", {"lora": tmp_path / "lora", "delta": tmp_path / "delta"})
    assert again.names == ("delta", "lora")


def test_a_full_checkpoint_takes_no_settings(tmp_path: Path) -> None:
    models = ModelSet.open(*write_models(tmp_path, experts=2))
    with pytest.raises(InvalidStudy, match=r"--set: 'rank' is no setting of a full checkpoint; leave it out"):
        write_as("full", a_recipe(models), models, tmp_path / "out", {"rank": 4})
    assert parsed(["a=1", "b=0.5"]) == {"a": 1.0, "b": 0.5}
