"""`mergesearch stitch`: two models become one checkpoint, and the user is told what that is worth."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from api.cli import app
from api.stitching import join
from merging.errors import InvalidInput
from tests.evaluation.unlike.models import draw_texts, pair_of, write
from tests.merging.permuting.decoders import decoder, logits
from tests.merging.permuting.rotated import rotated, rotation_of


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["stitch", *(str(argument) for argument in arguments)])


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(text * 8 for text in draw_texts(30, longest=40)))
    return file


def test_a_model_is_joined_to_itself_in_other_coordinates(tmp_path: Path, texts: Path) -> None:
    front, back = decoder(), rotated(decoder(), rotation_of(32))
    write(front, tmp_path / "front")
    write(back, tmp_path / "back")
    done = run(tmp_path / "front", tmp_path / "back", "--after", 2, "--texts", texts, "--to", tmp_path / "joined")
    assert done.exit_code == 0 and "joined model in" in done.stderr and "warning" not in done.stderr
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("│")}
    assert list(rows) == ["front", "back", "identity", "orthogonal", "affine"] and "1.000" in rows["orthogonal"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(logits(loaded), logits(front), rtol=1e-4, atol=1e-4)
    record = json.loads((tmp_path / "joined" / "stitch.json").read_text())
    assert record["after"] == 2 and record["scale"] == pytest.approx(1.0, rel=1e-4)
    assert record["loss"]["orthogonal"] == pytest.approx(record["loss"]["front"], rel=1e-4)
    assert record["loss"]["identity"] > record["loss"]["front"] + 0.01 and record["explained"]["identity"] < 0
    assert record["texts"]["file"] == str(texts) and record["texts"]["apart"] == -(-record["texts"]["count"] // 5)


def test_texts_kept_apart_are_not_fitted(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(seed=1), decoder(seed=2))
    given = draw_texts(21)
    joined = join(pair, 1, given)
    assert joined.apart == 5
    fitted = [text for i, text in enumerate(given) if i % 5]
    assert joined.maps.tokens == sum(len(text) - 1 for text in fitted)
    other = join(pair, 1, tuple(text if i % 5 else "a" * 30 for i, text in enumerate(given)))
    assert torch.equal(other.maps.turn.rotation, joined.maps.turn.rotation)
    assert other.judged.loss != joined.judged.loss


def test_few_texts_are_said_to_be_few(tmp_path: Path) -> None:
    write(decoder(), tmp_path / "model")
    (tmp_path / "texts.jsonl").write_text('{"text": "abcdef"}')
    given = ["--after", 1, "--texts", tmp_path / "texts.jsonl", "--to", tmp_path / "joined"]
    done = run(tmp_path / "model", tmp_path / "model", *given)
    assert done.exit_code == 0 and "only 5 tokens for 32 coordinates" in done.stderr
    assert "for want of more" in " ".join(done.stdout.split())
    assert json.loads((tmp_path / "joined" / "stitch.json").read_text())["texts"]["apart"] == 0


@pytest.mark.parametrize(
    ("back", "after", "said"),
    [
        ("model", 3, "use 1 to 2"),
        ("wide", 1, "BACK: hidden_size"),
        ("gemma2", 1, "BACK: model_type"),
        ("foreign", 1, "use models of one tokenizer"),
        ("nowhere", 1, "BACK: .* does not exist"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path: Path, texts: Path, back: str, after: int, said: str) -> None:
    write(decoder(), tmp_path / "model")
    write(decoder(hidden_size=48), tmp_path / "wide")
    write(decoder("gemma2"), tmp_path / "gemma2")
    write(decoder(), tmp_path / "foreign", "zyx")
    before = sorted(tmp_path.iterdir())
    given = ["--after", after, "--texts", texts, "--to", tmp_path / "joined"]
    done = run(tmp_path / "model", tmp_path / back, *given)
    assert isinstance(done.exception, InvalidInput)
    with pytest.raises(InvalidInput, match=said):
        raise done.exception
    assert sorted(tmp_path.iterdir()) == before
