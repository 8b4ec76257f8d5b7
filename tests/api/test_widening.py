"""`mergesearch widen`: two aligned models become one that stock transformers loads."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from api.cli import app
from merging.errors import InvalidRecipe
from tests.merging.permuting.decoders import decoder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_wider_average_is_written(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        decoder(seed=seed).save_pretrained(tmp_path / name)
    given = ["--ratio", 0.5, "--weight", 1, "--weight", 2, "--to", tmp_path / "wide"]
    done = run("widen", tmp_path / "a", tmp_path / "b", *given)
    assert done.exit_code == 0 and "44 hidden units a layer, now 66" in done.stderr
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "wide").config.intermediate_size == 66


def test_a_bad_ratio_writes_nothing(tmp_path: Path) -> None:
    decoder().save_pretrained(tmp_path / "a")
    done = run("widen", tmp_path / "a", tmp_path / "a", "--ratio", 2, "--to", tmp_path / "wide")
    assert isinstance(done.exception, InvalidRecipe) and "ratio" in str(done.exception)
    assert not (tmp_path / "wide").exists()
