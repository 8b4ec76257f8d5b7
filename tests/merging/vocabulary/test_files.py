"""The output's tokenizer files: one model's untouched, or the base's with the experts' tokens in every place."""

import json
from pathlib import Path
from typing import Any

import pytest

from merging.errors import InvalidModel
from merging.vocabulary.alignment import Alignment, make_alignment
from merging.vocabulary.files import output_files
from merging.vocabulary.tokens import Vocabulary

FLAGS = {"single_word": False, "lstrip": False, "rstrip": True, "normalized": False, "special": True}


def folder(path: Path, tokens: dict[str, int], added: dict[str, int] | None = None, **files: Any) -> Path:
    """A model's companion files; `__` in a name is a dot."""
    path.mkdir()
    entries = [{"id": row, "content": token, **FLAGS} for token, row in (added or {}).items()]
    files["tokenizer__json"] = {"model": {"type": "WordLevel", "vocab": tokens}, "added_tokens": entries}
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("__", ".")).write_text(text)
    return path


def union(base: Path, **experts: Path) -> dict[str, Any]:
    """The files of a union, parsed where they are JSON."""
    files = output_files("union", base, experts, aligned("union", base, **experts))
    return {name: json.loads(text) if name.endswith(".json") else text.decode() for name, text in files.items()}


def aligned(choice: str, base: Path, **experts: Path) -> Alignment | None:
    read = {name: Vocabulary.read(path, name) for name, path in experts.items()}
    return make_alignment(choice, Vocabulary.read(base, "base"), read)


WORDS = {"a": 0, "b": 1, "</s>": 2}


def test_the_base_lends_its_files_untouched(tmp_path: Path) -> None:
    base = folder(
        tmp_path / "base", WORDS, tokenizer_config__json={"a": 1}, generation_config__json={"eos_token_id": 2}
    )
    x = folder(tmp_path / "x", {**WORDS, "c": 3}, chat_template__jinja="x")
    files = output_files("base", base, {"x": x}, aligned("base", base, x=x))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert files[name] == (base / name).read_bytes()
    assert json.loads(files["generation_config.json"]) == {"eos_token_id": 2} and len(files) == 3


def test_an_expert_lends_its_tokenizer_and_the_base_the_rest(tmp_path: Path) -> None:
    base = folder(
        tmp_path / "base", WORDS, LICENSE="b", chat_template__jinja="b", generation_config__json={"eos_token_id": 2}
    )
    x = folder(
        tmp_path / "x", {"</s>": 0, "b": 1, "a": 2}, LICENSE="x", generation_config__json={"eos_token_id": 7, "k": 1}
    )
    files = output_files("x", base, {"x": x}, aligned("x", base, x=x))
    assert files["LICENSE"] == b"b" and files["tokenizer.json"] == (x / "tokenizer.json").read_bytes()
    assert json.loads(files["generation_config.json"]) == {"eos_token_id": 0}
    assert "chat_template.jinja" not in files, "the base's template is for other tokens"


def test_a_new_token_is_entered_everywhere_with_its_flags(tmp_path: Path) -> None:
    """A folder as transformers 4 wrote it names its added tokens in four files."""
    decoder = {"3": {"content": "<b>", **FLAGS}}
    base = folder(
        tmp_path / "base",
        WORDS,
        {"<b>": 3},
        tokenizer_config__json={"added_tokens_decoder": decoder, "additional_special_tokens": ["<b>"]},
        special_tokens_map__json={"eos_token": "</s>", "additional_special_tokens": ["<b>"]},
        added_tokens__json={"<b>": 3},
    )
    settings = {"extra_special_tokens": [{"content": "<x>"}]}
    x = folder(tmp_path / "x", WORDS, {"<x>": 3, "<quiet>": 4}, tokenizer_config__json=settings)
    files = union(base, x=x)
    rows = [(entry["content"], entry["id"], entry["rstrip"]) for entry in files["tokenizer.json"]["added_tokens"]]
    assert rows == [("<b>", 3, True), ("<x>", 4, True), ("<quiet>", 5, True)]
    assert files["tokenizer_config.json"]["added_tokens_decoder"]["4"] == {"content": "<x>", **FLAGS}
    assert files["tokenizer_config.json"]["additional_special_tokens"] == ["<b>", "<x>"]
    assert files["special_tokens_map.json"]["additional_special_tokens"] == ["<b>", "<x>"]
    assert files["added_tokens.json"] == {"<b>": 3, "<x>": 4, "<quiet>": 5}


def test_a_list_of_special_tokens_is_called_as_its_owners(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", WORDS, tokenizer_config__json={"eos_token": "</s>"})
    x = folder(tmp_path / "x", WORDS, {"<x>": 3}, tokenizer_config__json={"extra_special_tokens": ["<x>"]})
    settings = {"eos_token": "</s>", "extra_special_tokens": ["<x>"]}
    assert union(base, x=x)["tokenizer_config.json"] == settings
    roles = {"extra_special_tokens": {"image_token": "b"}}
    other = folder(tmp_path / "other", WORDS, tokenizer_config__json=roles)
    assert union(other, x=x)["tokenizer_config.json"] == roles, "a mapping of roles is left alone"


def test_tokens_that_only_the_settings_named_are_entered_in_the_tokenizer_too(tmp_path: Path) -> None:
    settings = {"added_tokens_decoder": {"3": {"content": "<late>", **FLAGS}}}
    base = folder(tmp_path / "base", WORDS, {"<b>": 4}, tokenizer_config__json=settings)
    x = folder(tmp_path / "x", WORDS, {"<x>": 3})
    entries = union(base, x=x)["tokenizer.json"]["added_tokens"]
    assert [(entry["content"], entry["id"]) for entry in entries] == [("<late>", 3), ("<b>", 4), ("<x>", 5)]


def test_a_tokenizer_with_gaps_takes_no_more_tokens(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", {"a": 0, "b": 5})
    x = folder(tmp_path / "x", {"a": 0, "b": 5}, {"<x>": 6})
    with pytest.raises(InvalidModel, match=r"gaps in its token ids, so that '<x>' would not be loaded as 6; keep one"):
        union(base, x=x)


def test_a_union_needs_a_tokenizer_file(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", {}, vocab__json=WORDS)
    (base / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"has no tokenizer\.json, which a union adds tokens to"):
        union(base, x=folder(tmp_path / "x", WORDS, {"<x>": 3}))


@pytest.mark.parametrize("stored", ["field", "file"])
def test_a_union_takes_the_only_chat_template_of_the_experts(tmp_path: Path, stored: str) -> None:
    """Two experts store the same template in different ways; equal vocabularies need it as well."""
    base = folder(tmp_path / "base", WORDS, tokenizer_config__json={"eos_token": "</s>"})
    how: dict[str, Any] = {
        "field": {"tokenizer_config__json": {"chat_template": "T"}},
        "file": {"chat_template__jinja": "T"},
    }
    x = folder(tmp_path / "x", WORDS, **how[stored])
    y = folder(tmp_path / "y", WORDS, **how["file"])
    files = union(base, x=x, y=y, z=folder(tmp_path / "z", WORDS))
    found = files["tokenizer_config.json"].get("chat_template") or files["chat_template.jinja"]
    assert found == "T" and files["tokenizer_config.json"]["eos_token"] == "</s>"


def test_a_union_keeps_the_bases_chat_template(tmp_path: Path) -> None:
    base = folder(tmp_path / "base", WORDS, chat_template__jinja="B")
    experts = {name: folder(tmp_path / name, WORDS, chat_template__jinja=name) for name in ("x", "y")}
    assert union(base, **experts)["chat_template.jinja"] == "B"
