"""An aligned copy of a checkpoint: an ordinary folder, the same model, in the reference's order."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.errors import InvalidModel, InvalidRecipe, OutputError
from merging.permuting.apply import inverse, permute
from merging.permuting.export import RECORD, SCHEMA, align, by_weights
from merging.permuting.matching import Match
from tests.merging.factories import fine_tuned, tiny_llama, write_tensors
from tests.merging.permuting.decoders import decoder, logits, random_orders, specification, state


def write_pair(root: Path, parts: str, *, size: str = "1GB", **how: Any) -> tuple[Any, Any, Any]:
    """A base and a fine-tune of it whose units are shuffled, as folders; the base, the fine-tune and how."""
    base = tiny_llama(**how)
    tuned = fine_tuned(base, 1)
    made = specification(tuned, parts)
    planted = random_orders(made)
    other = fine_tuned(base, 1)
    other.load_state_dict({n: permute(made, planted, n, t) for n, t in state(tuned).items()}, strict=False)
    base.save_pretrained(root / "base", max_shard_size=size)
    other.save_pretrained(root / "expert", max_shard_size=size)
    (root / "expert" / "tokenizer.json").write_text('{"a": 1}')
    return base, tuned, inverse(made, planted)


def aligned(root: Path, *parts: str) -> Path:
    align(Checkpoint(root / "expert"), Checkpoint(root / "base"), root / "aligned", parts=parts)
    return root / "aligned"


@pytest.mark.parametrize(
    ("parts", "how"),
    [
        ("mlp", {}),
        ("attention", {"size": "40KB"}),
        ("residual", {"tied": True}),
        ("all", {"dtype": torch.bfloat16}),
        ("all", {"tied": True, "size": "40KB"}),
    ],
)
def test_the_copy_is_the_fine_tune_before_it_was_shuffled(tmp_path: Path, parts: str, how: dict[str, Any]) -> None:
    _, tuned, back = write_pair(tmp_path, parts, **how)
    folder = aligned(tmp_path, parts)
    found, expert = Checkpoint(folder), Checkpoint(tmp_path / "expert")
    assert found.names == expert.names and list(found.shards) == list(expert.shards)
    assert (folder / INDEX).exists() == (SINGLE not in expert.shards)
    expected = state(tuned)
    for name in found.names:
        assert found.entry(name).dtype == expert.entry(name).dtype
        assert torch.equal(found.tensor(name), expected[name])
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    given = AutoModelForCausalLM.from_pretrained(tmp_path / "expert")
    torch.testing.assert_close(logits(loaded), logits(given), rtol=0, atol=1e-2 if "dtype" in how else 1e-5)
    assert json.loads((folder / RECORD).read_text())["permutations"] == {n: o.tolist() for n, o in back.items()}


def test_what_stands_beside_the_weights(tmp_path: Path) -> None:
    write_pair(tmp_path, "mlp")
    expert, base = Checkpoint(tmp_path / "expert"), Checkpoint(tmp_path / "base")
    match = align(expert, base, tmp_path / "aligned", parts=["mlp"], find=by_weights(3))
    record = json.loads((tmp_path / "aligned" / RECORD).read_text())
    assert {key: record[key] for key in ("schema", "by", "parts", "seed", "sweeps", "gain")} == {
        "schema": SCHEMA,
        "by": "weights",
        "parts": ["mlp"],
        "seed": 3,
        "sweeps": match.sweeps,
        "gain": match.gain,
    }
    assert record["expert"] == str(expert.path) and record["reference"] == str(base.path)
    assert record["similarity"]["before"] < 0.2 and record["similarity"]["after"] > 0.65
    assert sorted(record["permutations"]) == [f"layers.{i}.mlp" for i in range(4)]
    assert (tmp_path / "aligned" / "tokenizer.json").read_text() == '{"a": 1}'
    assert (tmp_path / "aligned" / "generation_config.json").exists()
    assert json.loads((tmp_path / "aligned" / "config.json").read_text()) == expert.config


def test_an_order_that_is_given_is_written_as_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path, "mlp")
    expert, base = Checkpoint(tmp_path / "expert"), Checkpoint(tmp_path / "base")
    given = random_orders(specification(tiny_llama(), "mlp"), 5)
    align(expert, base, tmp_path / "aligned", find=lambda *_: (Match(given, 0, 0.0), {"by": "chance"}))
    record, found = json.loads((tmp_path / "aligned" / RECORD).read_text()), Checkpoint(tmp_path / "aligned")
    assert record["by"] == "chance" and "seed" not in record
    assert record["permutations"] == {name: order.tolist() for name, order in given.items()}
    down = "model.layers.2.mlp.down_proj.weight"
    assert torch.equal(found.tensor(down), expert.tensor(down)[:, given["layers.2.mlp"]])


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    write_pair(tmp_path, "all")
    first = {file.name: file.read_bytes() for file in aligned(tmp_path, "all").iterdir()}
    (tmp_path / "aligned").rename(tmp_path / "before")
    assert {file.name: file.read_bytes() for file in aligned(tmp_path, "all").iterdir()} == first


def test_the_mean_of_aligned_models_is_the_mean_of_the_models(tmp_path: Path) -> None:
    base, tuned, _ = write_pair(tmp_path, "all")
    found, other, ours = load_file(aligned(tmp_path, "all") / SINGLE), state(tuned), state(base)
    mean = {name: (tensor + found[name]) / 2 for name, tensor in ours.items()}
    expected = {name: (tensor + other[name]) / 2 for name, tensor in ours.items()}
    assert torch.equal(logits(tiny_llama(), mean), logits(tiny_llama(), expected))


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_models_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "mlp")
    base = Checkpoint(tmp_path / "base")
    decoder("llama", intermediate_size=40, num_hidden_layers=4).save_pretrained(tmp_path / "narrow")
    decoder("llama", num_hidden_layers=3, intermediate_size=48).save_pretrained(tmp_path / "short")
    decoder("llama", num_key_value_heads=4, num_hidden_layers=4, intermediate_size=48).save_pretrained(
        tmp_path / "heads"
    )
    before = folders(tmp_path)
    for name, parts in (("narrow", "mlp"), ("short", "mlp"), ("heads", "attention")):
        with pytest.raises(InvalidModel, match="align models of one architecture and size") as error:
            align(Checkpoint(tmp_path / name, "models.experts[0]"), base, tmp_path / "aligned", parts=[parts])
        assert error.value.key == "models.experts[0]"
    with pytest.raises(InvalidModel, match="is not understood"):
        folder = write_tensors(tmp_path / "other", {"h.0.mlp.c_fc.weight": torch.zeros(2, 2)})
        align(Checkpoint(folder), base, tmp_path / "aligned")
    with pytest.raises(InvalidRecipe, match="is no part"):
        aligned(tmp_path, "layers")
    assert folders(tmp_path) == sorted([*before, "other"])


def test_a_model_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "mlp")
    broken = tiny_llama()
    broken.model.layers[2].mlp.up_proj.weight.data[3, 4] = torch.inf
    broken.save_pretrained(tmp_path / "broken")
    checkpoints = Checkpoint(tmp_path / "broken"), Checkpoint(tmp_path / "expert")
    for expert, reference in (checkpoints, checkpoints[::-1]):
        with pytest.raises(InvalidModel, match=r"broken.*NaN or infinity in tensor model.layers.2.mlp.up_proj.weight"):
            align(expert, reference, tmp_path / "aligned")
    assert "aligned" not in folders(tmp_path)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    write_pair(tmp_path, "mlp")
    (tmp_path / "aligned").mkdir()
    with pytest.raises(OutputError, match="exists"):
        aligned(tmp_path, "mlp")
    assert not list((tmp_path / "aligned").iterdir())
