"""Token strings and their ids as a model's folder stores them; no tokenizer library is loaded.

tokenizer.json is preferred; else vocab.json, vocab.txt, tokenizer.model or spiece.model. added_tokens.json and the
added_tokens_decoder of tokenizer_config.json add what the first file lacks.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from merging.errors import InvalidModel
from merging.vocabulary.sentencepiece import pieces

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
TOKENIZER, SETTINGS, ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
_AGAIN = "copy or download the folder again"


class Tokens(NamedTuple):
    """What a folder says of its tokens.

    Attributes:
        ids: the id of every token string, added ones included.
        added: the flags (`FLAGS`) of the added tokens: those matched in text before the model splits it.
    """

    ids: dict[str, int]
    added: dict[str, dict[str, bool]]


def has_tokens(folder: Path) -> bool:
    """Whether the folder holds a file that `read_tokens` takes a vocabulary from."""
    return any((folder / file).is_file() for file in _READERS)


def token_files(folder: Path) -> dict[str, bytes]:
    """The files that decide token ids, by name: equal files are equal vocabularies, whatever is in them."""
    names = (*_READERS, SETTINGS, ADDED)
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def read_tokens(folder: Path, key: str) -> Tokens:
    """The token strings of a model's folder.

    A string stored twice has the id of its last place, as in the libraries; its other row has no name.

    Raises:
        InvalidModel: no vocabulary that can be read, or a damaged one.
    """
    file = next((folder / name for name in _READERS if (folder / name).is_file()), None)
    if file is None:
        remedy = "save its tokenizer into the folder: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        raise InvalidModel(key, str(folder), "has no tokenizer.json nor another vocabulary", remedy)
    try:
        found = Tokens(_READERS[file.name](file), {})
        _add(found, _added(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModel(key, str(file), f"holds no vocabulary that can be read ({error})", _AGAIN) from error
    return found


def read_json(path: Path, key: str) -> dict[str, Any]:
    """A JSON object in a model's folder; empty where there is no such file.

    Raises:
        InvalidModel: not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        return _json(path)
    except (OSError, ValueError) as error:
        raise InvalidModel(key, str(path), f"cannot be read ({error})", _AGAIN) from error


def flags(entry: Mapping[str, Any]) -> dict[str, bool]:
    """The flags of an added token's entry."""
    return {flag: bool(entry.get(flag, False)) for flag in FLAGS}


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _added(folder: Path) -> Iterator[tuple[str, int, dict[str, bool]]]:
    """Every added token that some file names, the most trusted file first."""
    if (folder / TOKENIZER).is_file():
        for entry in _json(folder / TOKENIZER).get("added_tokens") or []:
            yield entry["content"], entry["id"], flags(entry)
    if (folder / SETTINGS).is_file():
        decoder = _json(folder / SETTINGS).get("added_tokens_decoder") or {}
        for number, entry in sorted(decoder.items(), key=lambda row: int(row[0])):
            yield entry["content"], int(number), flags(entry)
    if (folder / ADDED).is_file():
        for token, number in sorted(_json(folder / ADDED).items(), key=lambda row: int(row[1])):
            yield token, number, flags({})


def _add(found: Tokens, added: Iterator[tuple[str, int, dict[str, bool]]]) -> None:
    for token, number, how in added:
        found.ids.setdefault(token, _id(number))  # a string the model's own vocabulary has keeps that id
        found.added.setdefault(token, how)


def _id(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"token id {value!r}")
    return value


def _from_tokenizer(path: Path) -> dict[str, int]:
    """BPE, WordPiece and WordLevel map strings to ids; Unigram lists [piece, score]."""
    stored = _json(path)["model"]["vocab"]
    if isinstance(stored, list):
        return {str(piece): number for number, (piece, _) in enumerate(stored)}
    return _checked(stored)


def _from_map(path: Path) -> dict[str, int]:
    return _checked(_json(path))


def _checked(stored: Mapping[str, Any]) -> dict[str, int]:
    return {token: _id(number) for token, number in stored.items()}


def _from_lines(path: Path) -> dict[str, int]:
    """One token a line; only the line feed ends it, for a token may be any other kind of space."""
    lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    return {line.removesuffix("\r"): number for number, line in enumerate(lines)}


def _from_pieces(path: Path) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces(path.read_bytes()))}


_READERS: dict[str, Callable[[Path], dict[str, int]]] = {
    TOKENIZER: _from_tokenizer,
    "vocab.json": _from_map,
    "vocab.txt": _from_lines,
    "tokenizer.model": _from_pieces,
    "spiece.model": _from_pieces,
}
