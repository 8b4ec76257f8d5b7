"""Documents in the user's files: how a text is cut, and what is refused."""

import os
from pathlib import Path

import pytest

from evaluation.evaluators.documents import LEAST_CHARACTERS, MOST_BYTES, paragraphs, read_rows, read_texts
from merging.errors import InvalidStudy


def test_a_text_is_cut_at_blank_lines_into_documents_of_some_length() -> None:
    long, short = "long " * 50, "short"
    text = f"\n\n{long}\n \n{short}\n\n\n{long}\r\n\n{short}\n".replace("\r\n", "\n")
    assert paragraphs(text) == [long, f"{short}\n\n{long}\n\n{short}"]
    assert paragraphs(short) == [short] and paragraphs(" \n\n ") == []
    assert all(len(part) >= LEAST_CHARACTERS for part in paragraphs("\n\n".join(["line"] * 500)))


def test_nothing_of_a_text_is_lost() -> None:
    text = "\n\n".join(f"paragraph {i} " + "x" * (i * 7 % 90) for i in range(60))
    assert "\n\n".join(paragraphs(text)) == text


def test_rows_keep_their_fields_and_lines_their_ends(tmp_path: Path) -> None:
    # U+2028 ends a line for Python's splitlines, and may stand in JSON
    (tmp_path / "a.jsonl").write_text('\ufeff{"text": "ä\u2028b", "id": 1}\r\n\n{"text": "c"}', encoding="utf-8")
    assert read_texts("a.jsonl", tmp_path, "key") == [{"text": "ä\u2028b", "id": 1}, {"text": "c"}]


BAD = [
    ("a.csv", b"x", "key: 'a.csv' is of no known kind; name a .jsonl file or .txt"),
    ("a.txt", b" \n\n", "key: 'a.txt' holds no text"),
    ("a.txt", b"\xff", "is not UTF-8"),
    ("a.jsonl", b"", "holds no documents"),
    ("a.jsonl", b'{"text": "a"}\n[', "is not JSON in line 2"),
    ("a.jsonl", b"[" * 100_000, "is not JSON in line 1"),
    ("a.jsonl", b"3", "holds no object in line 1"),
    ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}', "has no text `text` in line 2; give each object a `text`"),
    ("a.jsonl", b'{"text": "  "}', "has no text `text` in line 1"),
    ("a.jsonl", b'{"text": 3}', "has no text `text` in line 1"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}', "holds text in line 2 that is no Unicode"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=range(len(BAD)))
def test_files_of_no_use_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidStudy) as refused:
        read_texts(name, tmp_path, "key")
    assert said in str(refused.value), str(refused.value)[:300]


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InvalidStudy, match=r"^key: 'pipe.txt' is no file"):
        read_texts("pipe.txt", tmp_path, "key")
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InvalidStudy, match=r"^key: 'large.txt' is larger than 1024 MiB; name a sample"):
        read_texts("large.txt", tmp_path, "key")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"key: 'no\.jsonl' cannot be read \(No such file"):
        read_rows("no.jsonl", tmp_path, "key", None)
    with pytest.raises(InvalidStudy, match=r"cannot be read \(embedded null"):
        read_rows("a\0.jsonl", tmp_path, "key", None)
