"""Documents in the user's own files: texts, and rows of JSON."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.split import canonical
from merging.errors import InvalidStudy

LEAST_CHARACTERS = 200
"""A text file is cut at blank lines into documents that are at least so long: a line says little of a model."""
MOST_BYTES = 1 << 30
"""The largest file that is read: every process that scores holds all of it, several times over."""


def read_texts(path: str, root: Path, key: str) -> list[dict[str, Any]]:
    """The texts of a file: `.txt`, cut at blank lines, or `.jsonl`, whose rows have a `text`.

    Args:
        root: what the path is relative to.
        key: where the path stands in the study.

    Raises:
        InvalidStudy: the file cannot be read, or holds no texts.
    """
    if Path(path).suffix != ".txt":
        return read_rows(path, root, key, "text")
    texts = [{"text": text} for text in paragraphs(_content(path, root, key))]
    if not texts:
        raise InvalidStudy(key, path, "holds no text", "name a file with text in it")
    return texts


def read_rows(path: str, root: Path, key: str, field: str | None) -> list[dict[str, Any]]:
    """The rows of a `.jsonl` file, each a mapping; blank lines are passed over.

    Args:
        field: a key that must be there in each row, with text that is not blank.

    Raises:
        InvalidStudy: the file cannot be read, or a row is not such a row.
    """
    if Path(path).suffix != ".jsonl":
        raise InvalidStudy(
            key, path, "is of no known kind", "name a .jsonl file" + (" or .txt" if field == "text" else "")
        )
    rows = list(_rows(path, _content(path, root, key), key, field))
    if not rows:
        raise InvalidStudy(key, path, "holds no documents", "write one JSON object a line")
    return rows


def paragraphs(text: str) -> list[str]:
    """A text cut at blank lines, short paragraphs joined with the following until they are long enough together."""
    found: list[str] = []
    waiting: list[str] = []
    for part in re.split(r"\n\s*\n", text):
        if part.strip():
            waiting.append(part.strip("\n"))
        if sum(map(len, waiting)) >= LEAST_CHARACTERS:
            found.append("\n\n".join(waiting))
            waiting = []
    if waiting:  # what is left over at the end is too short to stand alone
        found[-1:] = ["\n\n".join([*found[-1:], *waiting])]
    return found


def _content(path: str, root: Path, key: str) -> str:
    try:
        place = root / Path(path).expanduser()
        if place.exists() and not place.is_file():  # a pipe would be waited for without end
            raise InvalidStudy(key, path, "is no file", "name a file of documents")
        if place.stat().st_size > MOST_BYTES:
            raise InvalidStudy(key, path, f"is larger than {MOST_BYTES >> 20} MiB", "name a sample of it")
        return place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidStudy(key, path, f"is not UTF-8 ({error})", "store it as UTF-8") from error
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InvalidStudy(key, path, problem, "name a file that is there") from error


def _rows(path: str, content: str, key: str, field: str | None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidStudy(key, path, f"is not JSON in line {number} ({error})", "mend that line") from error
        if not isinstance(row, dict):
            raise InvalidStudy(key, path, f"holds no object in line {number}", "write one JSON object a line")
        if field is not None and not (isinstance(row.get(field), str) and row[field].strip()):
            problem = f"has no text `{field}` in line {number}"
            raise InvalidStudy(key, path, problem, f"give each object a `{field}` that is not empty")
        try:
            canonical(row)
        except (UnicodeEncodeError, RecursionError) as error:  # half of a surrogate pair is legal JSON
            problem = f"holds text in line {number} that is no Unicode ({error})"
            raise InvalidStudy(key, path, problem, "mend that line") from error
        yield row
