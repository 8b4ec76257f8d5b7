"""`mergesearch align`: a model in another one's order computes what it did, and averages with it again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from api.aligning import by_activations, by_rotation
from api.cli import app
from api.given_texts import GivenTexts
from merging.checkpoint import SINGLE, Checkpoint
from merging.errors import InvalidInput
from merging.permuting.apply import inverse, permute
from merging.permuting.rotating import align_rotated
from tests.evaluation.unlike.models import draw_texts, write
from tests.merging.factories import fine_tuned, tiny_llama
from tests.merging.permuting.decoders import decoder, logits, random_orders, specification, state
from tests.merging.permuting.rotated import rotated, rotation_of


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shuffled(model: Any) -> Any:
    """The same function with the hidden units of every MLP in another order."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            order = torch.randperm(layer.mlp.up_proj.weight.shape[0], generator=generator)
            for rows in (layer.mlp.up_proj, layer.mlp.gate_proj):
                rows.weight.copy_(rows.weight[order])
            layer.mlp.down_proj.weight.copy_(layer.mlp.down_proj.weight[:, order])
    return model


def test_a_shuffled_fine_tune_comes_back_into_the_base_s_order(tmp_path: Path) -> None:
    base = tiny_llama()
    tuned = fine_tuned(base, 1)
    base.save_pretrained(tmp_path / "base")
    tuned.save_pretrained(tmp_path / "tuned")
    shuffled(tuned).save_pretrained(tmp_path / "shuffled")
    done = run("align", tmp_path / "shuffled", "--like", tmp_path / "base", "--to", tmp_path / "aligned")
    assert done.exit_code == 0 and "cosine" in done.stderr
    record = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert record["similarity"]["after"] > record["similarity"]["before"] + 0.3 and record["parts"] == ["mlp"]
    found, wanted = (load_file(tmp_path / name / SINGLE) for name in ("aligned", "tuned"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "aligned").config.num_hidden_layers == 4


@pytest.mark.parametrize(("parts", "said"), [(("heads",), "heads"), (("mlp", "norms"), "norms")])
def test_an_unknown_part_is_refused(tmp_path: Path, parts: tuple[str, ...], said: str) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    given = [word for part in parts for word in ("--part", part)]
    done = run("align", tmp_path / "base", "--like", tmp_path / "base", "--to", tmp_path / "out", *given)
    assert isinstance(done.exception, InvalidInput) and said in str(done.exception)
    assert not (tmp_path / "out").exists()


def write_texts(file: Path, count: int = 40) -> Path:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in draw_texts(count)))
    return file


def write_shuffled(root: Path) -> dict[str, list[int]]:
    """A model, and the same with its units in another order; the orders that undo that."""
    model, other = decoder(), decoder()
    made = specification(model, "all")
    planted = random_orders(made, 2)
    other.load_state_dict({name: permute(made, planted, name, tensor) for name, tensor in state(model).items()})
    write(model, root / "model")
    write(other, root / "shuffled")
    return {name: order.tolist() for name, order in inverse(made, planted).items()}


@pytest.mark.parametrize("polish", [False, True])
def test_a_shuffled_model_comes_back_by_what_its_units_do_on_texts(tmp_path: Path, polish: bool) -> None:
    orders, texts = write_shuffled(tmp_path), write_texts(tmp_path / "texts.jsonl")
    given = ["--part", "all", "--texts", texts, *(["--polish", "--seed", "3"] if polish else [])]
    done = run("align", tmp_path / "shuffled", "--like", tmp_path / "model", "--to", tmp_path / "aligned", *given)
    assert done.exit_code == 0 and "now 1.000" in done.stderr
    record = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert record["by"] == "activations" and record["by_weights"] == {} and record["permutations"] == orders
    assert record["texts"]["file"] == str(texts) and record["texts"]["count"] == 40 and record["texts"]["tokens"] > 400
    assert record["correlation"]["after"] == pytest.approx(1.0) and abs(record["correlation"]["before"]) < 0.3
    assert record.get("polish") == ({"seed": 3, "sweeps": 1, "gain": 0.0} if polish else None)
    found, wanted = (load_file(tmp_path / name / SINGLE) for name in ("aligned", "model"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_digest_of_the_texts_is_that_of_what_was_read(tmp_path: Path) -> None:
    write_shuffled(tmp_path)
    digests = []
    for i, count in enumerate((10, 10, 11)):
        texts = write_texts(tmp_path / f"{i}.jsonl", count)
        to = tmp_path / f"aligned-{i}"
        run("align", tmp_path / "shuffled", "--like", tmp_path / "model", "--to", to, "--texts", texts)
        digests.append(json.loads((to / "alignment.json").read_text())["texts"]["digest"])
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.jsonl", None, r"--texts: .*missing.jsonl.* cannot be read"),
        ("texts.csv", "a", "is of no known kind"),
        ("texts.txt", " \n", "holds no text"),
        ("texts.jsonl", '{"prompt": "a"}', "has no text `text` in line 1"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    write_shuffled(tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    given = ["--to", tmp_path / "aligned", "--texts", tmp_path / name]
    done = run("align", tmp_path / "shuffled", "--like", tmp_path / "model", *given)
    assert isinstance(done.exception, InvalidInput) and re.search(said, str(done.exception))
    assert not (tmp_path / "aligned").exists()


def test_options_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_shuffled(tmp_path)
    texts, given = write_texts(tmp_path / "texts.jsonl"), ["--to", tmp_path / "aligned"]
    alone = run("align", tmp_path / "shuffled", "--like", tmp_path / "model", *given, "--polish")
    assert isinstance(alone.exception, InvalidInput) and "name some: --texts" in str(alone.exception)
    write(decoder(), tmp_path / "foreign", "zyx")
    foreign = run("align", tmp_path / "foreign", "--like", tmp_path / "model", *given, "--texts", texts)
    assert isinstance(foreign.exception, InvalidInput) and "use models of one tokenizer" in str(foreign.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign", "model", "shuffled", "texts.jsonl"]


def write_rotated(root: Path) -> Any:
    """A model, and the same with its stream rotated and the hidden units of its MLPs in another order; the model."""
    model = decoder()
    write(model, root / "model")
    write(shuffled(rotated(model, rotation_of(32, 4))), root / "rotated")
    return model


def test_a_rotated_model_comes_back_and_averages_with_what_it_was(tmp_path: Path) -> None:
    model, texts = write_rotated(tmp_path), write_texts(tmp_path / "texts.jsonl")
    given = ["--like", tmp_path / "model", "--to", tmp_path / "aligned", "--texts", texts, "--rotate"]
    done = run("align", tmp_path / "rotated", *given)
    assert done.exit_code == 0 and done.stderr.count("now 1.000") == 2 and "guess" not in done.stderr
    record = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert record["residual"] == "rotated" and record["by"] == "weights"
    assert record["parts"] == ["mlp", "attention", "residual"] and record["stream"]["coordinates"] == 32
    assert record["stream"]["after"] == pytest.approx(1.0) and record["stream"]["before"] < 0.5
    assert record["texts"]["file"] == str(texts) and record["texts"]["tokens"] > 400
    assert record["similarity"]["after"] == pytest.approx(1.0)
    found, wanted = load_file(tmp_path / "aligned" / SINGLE), state(model)
    mean = {name: (tensor + found[name]) / 2 for name, tensor in wanted.items()}
    torch.testing.assert_close(logits(decoder(), mean), logits(model), rtol=1e-3, atol=1e-3)


def test_a_rotation_without_texts_or_with_polish_is_refused_and_one_by_few_texts_is_told(tmp_path: Path) -> None:
    write_rotated(tmp_path)
    texts, given = write_texts(tmp_path / "texts.jsonl", 1), ["--to", tmp_path / "aligned", "--rotate"]
    models = tmp_path / "rotated", "--like", tmp_path / "model"
    alone = run("align", *models, *given)
    assert isinstance(alone.exception, InvalidInput) and "--rotate: goes by what texts say" in str(alone.exception)
    both = run("align", *models, *given, "--texts", texts, "--polish")
    assert isinstance(both.exception, InvalidInput) and "changes nothing with --rotate" in str(both.exception)
    write(decoder("llama, tied"), tmp_path / "tied")
    tied = run("align", tmp_path / "tied", *models[1:], *given, "--texts", texts)
    assert isinstance(tied.exception, InvalidInput) and "MODEL: " in str(tied.exception)
    assert not (tmp_path / "aligned").exists()
    few = run("align", *models, *given, "--texts", texts)
    assert few.exit_code == 0 and "for 32 coordinates: the rotation is a guess" in few.stderr


def test_units_of_a_rotated_model_can_be_matched_by_what_they_do(tmp_path: Path) -> None:
    write_rotated(tmp_path)
    texts = GivenTexts.read(write_texts(tmp_path / "texts.jsonl"))
    models = Checkpoint(tmp_path / "rotated"), Checkpoint(tmp_path / "model")
    turning = by_rotation(*models, texts, "cpu")
    by_weights = align_rotated(*models, tmp_path / "weights", turning, parts=("mlp",))
    find = by_activations(*models, texts, "cpu")
    by_texts = align_rotated(*models, tmp_path / "texts", turning, parts=("mlp",), find=find)
    assert all(torch.equal(order, by_weights.orders[name]) for name, order in by_texts.orders.items())
    assert json.loads((tmp_path / "texts" / "alignment.json").read_text())["by"] == "activations"
