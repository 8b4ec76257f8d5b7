"""Models of differing vocabularies, merged into a folder that transformers loads and that says the same words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from merging.checkpoint import SINGLE, Checkpoint
from merging.errors import InvalidModel, InvalidRecipe
from merging.vocabulary.opening import align, embedding_rows
from tests.merging.factories import write_tensors
from tests.merging.vocabulary.makers import KINDS, TEXTS, core, llama, merge, permuted, tokenizer, write


def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer as a user loads them."""
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def scores(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """What the model predicts after the text: a logit for every token, by its string."""
    model, words = loaded(folder)
    with torch.no_grad():
        logits = model(torch.tensor([words.encode(text, add_special_tokens=False)])).logits[0, -1]
    return {token: logits[row] for token, row in words.get_vocab().items()}


def pair(
    root: Path, kind: str, base_added: tuple[str, ...] = (), x_added: tuple[str, ...] = ("<x>",)
) -> dict[str, Path]:
    """A base and an expert of one trained tokenizer, each with tokens of its own; the base is padded to 96 rows."""
    folders = {}
    for seed, (name, added) in enumerate({"base": base_added, "x": x_added}.items()):
        words = tokenizer(core(kind), added, f"{name}: {{{{ messages }}}}")
        folders[name] = write(root / name, llama(seed, 96 if name == "base" else len(words)), words)
    return folders


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_an_experts_other_order_of_tokens_is_undone_exactly(tmp_path: Path, kind: str, tied: bool) -> None:
    words = tokenizer(core(kind))
    base = write(tmp_path / "base", llama(0, len(words), tied=tied), words)
    x, y = (write(tmp_path / name, llama(seed, len(words), tied=tied), words) for seed, name in ((1, "x"), (2, "y")))
    moved = permuted(x, tmp_path / "moved", seed=3)
    assert AutoTokenizer.from_pretrained(moved).get_vocab() != words.get_vocab()
    assert merge(base, {"x": x, "y": y}, tmp_path / "plain") is None
    assert merge(base, {"x": moved, "y": y}, tmp_path / "undone") is not None
    plain, undone = (load_file(tmp_path / name / SINGLE) for name in ("plain", "undone"))
    assert all(torch.equal(plain[name], undone[name]) for name in plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", ["base", "x", "union"])
def test_an_expert_says_the_same_after_its_tokens_have_moved(tmp_path: Path, kind: str, choice: str) -> None:
    folders = pair(tmp_path, kind, base_added=("<b>",))
    moved = permuted(folders["x"], tmp_path / "moved", seed=5)
    assert merge(folders["base"], {"x": moved}, tmp_path / "out", choice, weight=1.0) is not None
    before, after = scores(moved, TEXTS[0]), scores(tmp_path / "out", TEXTS[0])
    assert len(before.keys() & after.keys()) >= len(before) - 1
    for token in before.keys() & after.keys():
        assert torch.allclose(before[token], after[token], atol=1e-5), token


@pytest.mark.parametrize("kind", KINDS)
def test_a_union_keeps_every_token_and_its_owners_row(tmp_path: Path, kind: str) -> None:
    folders = pair(tmp_path, kind, base_added=("<b>",), x_added=("<x>", "<both>"))
    words = tokenizer(core(kind), ("<both>", "<y>"))
    folders["y"] = write(tmp_path / "y", llama(7, len(words)), words)
    merge(folders["base"], {"x": folders["x"], "y": folders["y"]}, tmp_path / "out", "union", weight=0.3)
    model, out = loaded(tmp_path / "out")
    owners = {name: loaded(folder) for name, folder in folders.items()}
    assert set(out.get_vocab()) == {token for _, each in owners.values() for token in each.get_vocab()}
    for tensor in ("model.embed_tokens.weight", "lm_head.weight"):
        rows = {name: each.state_dict()[tensor] for name, (each, _) in owners.items()}
        merged = model.state_dict()[tensor]
        assert merged.shape == rows["base"].shape
        for token, name in (("<b>", "base"), ("<x>", "x"), ("<y>", "y")):
            own = rows[name][owners[name][1].convert_tokens_to_ids(token)]
            assert torch.equal(merged[out.convert_tokens_to_ids(token)], own), token
        both = [rows[name][owners[name][1].convert_tokens_to_ids("<both>")] for name in ("x", "y")]
        # the mean stands in for the base; deltas from it cancel
        assert torch.allclose(merged[out.convert_tokens_to_ids("<both>")], (both[0] + both[1]) / 2, atol=1e-6)
        assert torch.equal(merged[len(out) :], rows["base"][len(out) :]), "what is still padding is the base's"


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_of_a_union_reads_text_as_the_base_does_and_knows_the_new_tokens(
    tmp_path: Path, kind: str
) -> None:
    folders = pair(tmp_path, kind, base_added=("<b>",))
    merge(folders["base"], {"x": folders["x"]}, tmp_path / "out", "union")
    (model, out), (_, base) = loaded(tmp_path / "out"), loaded(folders["base"])
    assert model.config.vocab_size == 96 and len(out) == len(base) + 1
    for text in TEXTS:
        assert out.encode(text) == base.encode(text)
    ids = out.encode("<x>the cat<b>", add_special_tokens=False)
    assert ids[0] == len(base) and ids[-1] == base.convert_tokens_to_ids("<b>")
    assert "<x>" not in out.decode(ids, skip_special_tokens=True) and "<x>" in out.decode(ids)


def test_more_tokens_than_padding_make_the_model_grow_by_a_step_of_padding(tmp_path: Path) -> None:
    folders = pair(tmp_path, "bpe", x_added=tuple(f"<{i}>" for i in range(30)))
    merge(folders["base"], {"x": folders["x"]}, tmp_path / "out", "union")
    model, words = loaded(tmp_path / "out")
    assert len(words) > 96 and model.config.vocab_size == model.lm_head.weight.shape[0] == 128
    assert scores(tmp_path / "out", "<29> the cat")


def test_with_an_experts_vocabulary_its_files_are_kept_and_special_ids_follow(tmp_path: Path) -> None:
    folders = pair(tmp_path, "bpe")
    moved = permuted(folders["x"], tmp_path / "moved", seed=11)
    (moved / "chat_template.jinja").write_text("moved: {{ messages }}")
    alignment = merge(folders["base"], {"x": moved}, tmp_path / "out", "x")
    model, words = loaded(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (moved / "tokenizer.json").read_bytes()
    assert words.chat_template == "moved: {{ messages }}"
    assert model.config.vocab_size == len(words) == Checkpoint(moved).entry("lm_head.weight").shape[0]
    assert alignment is not None and model.config.eos_token_id == words.eos_token_id != 2
    assert model.generation_config.bos_token_id == words.bos_token_id != 1


def test_an_expert_without_a_tokenizer_has_the_bases(tmp_path: Path) -> None:
    folders = pair(tmp_path, "bpe")
    models = {name: write(tmp_path / name, llama(3, 96), tokenizer(core("bpe"), ["<y>"])) for name in ("y", "z")}
    for file in models["z"].glob("*token*"):
        file.unlink()
    alignment = merge(folders["base"], models, tmp_path / "out")
    assert alignment is not None and alignment.experts["z"].tolist() == list(range(96))
    assert alignment.experts["y"][-1] == -1
    with pytest.raises(InvalidModel, match="tokenizer: 'z' has no tokenizer files"):
        merge(folders["base"], models, tmp_path / "other", "z")


def test_models_without_any_tokenizer_need_equal_rows(tmp_path: Path) -> None:
    for name, rows in (("base", 8), ("x", 8), ("y", 9)):
        llama(0, rows).save_pretrained(tmp_path / name)
    base, x, y = (Checkpoint(tmp_path / name, f"models.{name}") for name in ("base", "x", "y"))
    assert align(base, {"x": x}) is None
    with pytest.raises(InvalidModel, match=r"models\.base.*has no tokenizer\.json"):
        align(base, {"y": y})
    tokenizer(core("bpe")).save_pretrained(tmp_path / "base")
    with pytest.raises(InvalidModel, match="but 8 embedding rows"):
        align(base, {"y": y})


def test_more_rows_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    folders = pair(tmp_path, "bpe")
    llama(0, 97).save_pretrained(tmp_path / "y")
    with pytest.raises(InvalidModel, match=r"models\.y.*97 embedding rows where the base has 96, and no tokenizer"):
        align(Checkpoint(folders["base"], "models.base"), {"y": Checkpoint(tmp_path / "y", "models.y")})


def test_of_two_embeddings_the_declared_one_is_the_vocabularys_and_the_other_cannot_be_aligned(tmp_path: Path) -> None:
    """A model with an embedding a layer (Gemma 3n) has a second vocabulary-sized table."""
    models = []
    for name, rows in (("base", 3), ("x", 4)):
        tensors = {"embed_tokens.weight": torch.zeros(2, 2), "model.text.embed_tokens.weight": torch.zeros(rows, 2)}
        folder = write_tensors(tmp_path / name, tensors)
        (folder / "config.json").write_text(json.dumps({"text_config": {"vocab_size": rows}}))
        (folder / "vocab.json").write_text(json.dumps({token: row for row, token in enumerate("abcd"[:rows])}))
        models.append(Checkpoint(folder, f"models.{name}"))
    assert [embedding_rows(each) for each in models] == [3, 4]
    with pytest.raises(InvalidModel, match=r"embed_tokens\.weight of shape \[2, 2\] beside an embedding of 3 rows"):
        align(models[0], {"x": models[1]})


def test_without_a_known_embedding_rows_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="has no embedding under a known name"):
        embedding_rows(Checkpoint(write_tensors(tmp_path / "x", {"a": torch.zeros(2, 2)})))


def test_what_cannot_be_written_is_refused_when_models_are_opened(tmp_path: Path) -> None:
    folders = pair(tmp_path, "bpe")
    (folders["base"] / "chat_template.jinja").unlink()
    folders["y"] = write(tmp_path / "y", llama(7, 96), tokenizer(core("bpe"), ["<y>"], "y: {{ messages }}"))
    base = Checkpoint(folders["base"])
    experts = {name: Checkpoint(folders[name]) for name in ("x", "y")}
    assert align(base, experts) is not None
    with pytest.raises(InvalidRecipe, match="x and y have different ones and the base has none; name the expert"):
        align(base, experts, "union")
