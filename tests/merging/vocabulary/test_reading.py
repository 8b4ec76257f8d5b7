"""Token strings are read from every kind of file that a model folder stores them in."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from merging.errors import InvalidModel
from merging.vocabulary.sentencepiece import pieces
from merging.vocabulary.tokens import Vocabulary
from tests.merging.vocabulary.makers import KINDS, core, tokenizer


def read(folder: Path, rows: int | None = None) -> Vocabulary:
    return Vocabulary.read(folder, "models.experts[1]", rows)


def stored(folder: Path, **files: Any) -> Path:
    """A folder of these files; `__` in a name is a dot."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128, *varint(value >> 7)]) if value > 127 else bytes([value])


def sentencepiece(*tokens: str) -> bytes:
    """A model file: every piece with a score and a type, then trainer settings that must be skipped."""
    found = b""
    for token in tokens:
        text = token.encode()
        piece = b"\x0a" + varint(len(text)) + text + b"\x15\x00\x00\x80\xbf" + b"\x18\x01"
        found += b"\x0a" + varint(len(piece)) + piece
    return found + b"\x12\x03\x0a\x01x" + b"\x19" + bytes(8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_file_is_read_as_the_library_reads_it(tmp_path: Path, kind: str) -> None:
    tokenizer(core(kind), ["<tool>", "<end>"]).save_pretrained(tmp_path)
    loaded, found = AutoTokenizer.from_pretrained(tmp_path), read(tmp_path)
    assert found.ids == loaded.get_vocab()
    assert found.size == found.rows == len(loaded)
    assert {token for token, how in found.added.items() if how["special"]} == {
        "<unk>",
        "<s>",
        "</s>",
        "<tool>",
        "<end>",
    }


def test_a_bpe_vocabulary_in_files_of_its_own_is_read(tmp_path: Path) -> None:
    found = read(stored(tmp_path, vocab__json={"a": 0, "b": 1}, added_tokens__json={"<x>": 3, "<w>": 2}))
    assert found.ids == {"a": 0, "b": 1, "<w>": 2, "<x>": 3} and set(found.added) == {"<w>", "<x>"}


def test_lines_are_tokens_even_if_they_hold_other_separators(tmp_path: Path) -> None:
    found = read(stored(tmp_path, vocab__txt="[PAD]\na\u2028b\n##c\r\n".encode()))
    assert found.ids == {"[PAD]": 0, "a\u2028b": 1, "##c": 2}


def test_sentencepiece_strings_are_read_in_order(tmp_path: Path) -> None:
    long = "x" * 200
    decoder = {"3": {"content": "<tool>", "special": True}}
    settings = {"added_tokens_decoder": decoder}
    folder = stored(tmp_path, tokenizer__model=sentencepiece("<unk>", "▁größe", long), tokenizer_config__json=settings)
    assert read(folder).ids == {"<unk>": 0, "▁größe": 1, long: 2, "<tool>": 3}
    assert read(folder).added["<tool>"]["special"]


@pytest.mark.parametrize("content", [b"", b"not protobuf", sentencepiece("a", "b")[:-3], b"\xff" * 12])
def test_what_is_no_sentencepiece_model_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        pieces(content)


def test_of_two_equal_strings_the_last_counts_and_the_other_row_has_no_name(tmp_path: Path) -> None:
    model = {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0], ["a", -2.0]]}
    found = read(stored(tmp_path, tokenizer__json={"model": model, "added_tokens": []}))
    assert found.ids == {"a": 2, "b": 1} and dict(found.names) == {1: "b", 2: "a"}


def test_of_two_strings_on_one_row_the_added_one_names_it(tmp_path: Path) -> None:
    added = [{"id": 1, "content": "<im_start>", "special": True}]
    content = {"model": {"vocab": {"a": 0, "<reserved>": 1}}, "added_tokens": added}
    assert read(stored(tmp_path, tokenizer__json=content)).names == {0: "a", 1: "<im_start>"}


def test_an_added_token_that_the_vocabulary_has_keeps_the_vocabularys_id(tmp_path: Path) -> None:
    content = {"model": {"vocab": {"a": 0, "<s>": 1}}, "added_tokens": [{"id": 7, "content": "<s>", "special": True}]}
    assert read(stored(tmp_path, tokenizer__json=content)).ids == {"a": 0, "<s>": 1}


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    found = read(stored(tmp_path, vocab__json={"a": 0, "b": 5}), rows=8)
    assert (found.size, found.rows, dict(found.names)) == (6, 8, {0: "a", 5: "b"})


def test_an_id_without_a_row_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidModel, match=r"models\.experts\[1\].*token 'b' has the id 5, but 5 embedding rows; resize"
    ):
        read(stored(tmp_path, vocab__json={"a": 0, "b": 5}), rows=5)


@pytest.mark.parametrize(
    "content", [{}, [], {"model": {}}, {"model": {"vocab": {"a": -1}}}, {"model": {"vocab": {"a": "0"}}}, b"{", b"\xff"]
)
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidModel, match="holds no vocabulary that can be read"):
        read(stored(tmp_path, tokenizer__json=content))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"has no tokenizer\.json"):
        read(tmp_path)
