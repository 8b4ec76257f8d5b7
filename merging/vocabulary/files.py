"""The files that stand beside the merged weights when vocabularies were chosen or joined.

`base` and an expert keep that model's tokenizer files untouched. A union is the base's tokenizer with the experts'
tokens appended as added tokens, since two lists of BPE merges cannot be joined without changing how text is split.
What is no tokenizer (generation_config.json, preprocessors, the licence) is always the base's. config.json is the
caller's to write (`ids.translated`).
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from merging.companions import companions
from merging.errors import InvalidModel
from merging.vocabulary.alignment import Addition, Alignment
from merging.vocabulary.chat import FIELD, lent, templates
from merging.vocabulary.choice import BASE, UNION
from merging.vocabulary.ids import translated
from merging.vocabulary.reading import ADDED, FLAGS, SETTINGS, TOKENIZER, has_tokens, read_json

_GENERATION = "generation_config.json"
_OTHERS = (_GENERATION, "preprocessor_config.json", "processor_config.json", "LICENSE*")
_SPECIALS = ("additional_special_tokens", "extra_special_tokens")  # transformers 4 and 5
_MAP = "special_tokens_map.json"


def output_files(
    tokenizer: str, base: Path, experts: Mapping[str, Path], alignment: Alignment | None, key: str = "tokenizer"
) -> dict[str, bytes]:
    """Content of every companion file of the output, by its place in the folder (posix). config.json is not there.

    Args:
        tokenizer: `base`, `union`, or an expert's name.
        base, experts: the models' folders.
        alignment: what `opening.align` gave for that choice.
        key: where the choice is named, for messages.

    Raises:
        InvalidRecipe: a union leaves the chat template open.
        InvalidModel: the tokenizer named has no files, or the base's cannot take more tokens.
    """
    kept = base if tokenizer in (BASE, UNION) else experts[tokenizer]
    if tokenizer not in (BASE, UNION) and not has_tokens(kept):
        raise InvalidModel(key, tokenizer, "has no tokenizer files", "save its tokenizer into its folder")
    files = {name: content for name, content in _contents(base).items() if not _is_tokenizer(name)}
    files |= {name: content for name, content in _contents(kept).items() if _is_tokenizer(name)}
    if tokenizer == UNION:
        files |= _union(base, experts, alignment, key)
    if _GENERATION in files and alignment is not None:
        own = read_json(kept / _GENERATION, key) if kept != base else {}
        files[_GENERATION] = _json(translated(read_json(base / _GENERATION, key), alignment, own))
    return files


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in companions(folder)}


def _is_tokenizer(name: str) -> bool:
    return not any(fnmatch(name, pattern) for pattern in _OTHERS)


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _union(base: Path, experts: Mapping[str, Path], alignment: Alignment | None, key: str) -> dict[str, bytes]:
    """The files that a union changes or adds."""
    files: dict[str, bytes] = {}
    settings, changed = read_json(base / SETTINGS, key), False
    if alignment is not None and alignment.added:
        files[TOKENIZER] = _json(_extended(base, alignment))
        owners = {name: read_json(experts[name] / SETTINGS, key) for name in {each.owner for each in alignment.added}}
        marked = [each for each in alignment.added if each.token in _listed(owners[each.owner])]
        changed = _enter(settings, alignment.added) | _mark(settings, owners, marked)
        if (base / ADDED).is_file():
            files[ADDED] = _json(read_json(base / ADDED, key) | {each.token: each.id for each in alignment.added})
        specials = read_json(base / _MAP, key)
        if any(isinstance(specials.get(field), list) for field in _SPECIALS) and _mark(specials, {}, marked):
            files[_MAP] = _json(specials)
    borrowed = lent(templates(base, key), {name: templates(path, key) for name, path in experts.items()}, key)
    if borrowed is not None:
        files |= borrowed.files
        if borrowed.field is not None:
            settings[FIELD], changed = borrowed.field, True
    return files | ({SETTINGS: _json(settings)} if changed else {})


def _extended(base: Path, alignment: Alignment) -> dict[str, Any]:
    """The base's tokenizer.json with every added token of the output.

    Raises:
        InvalidModel: there is none, or the tokenizers library would load a token under another id.
    """
    ancestor = alignment.ancestor
    content = read_json(base / TOKENIZER, ancestor.key)
    if not content:
        remedy = "load it with AutoTokenizer and save_pretrained() it, or keep one tokenizer: tokenizer: base"
        raise InvalidModel(ancestor.key, str(base), "has no tokenizer.json, which a union adds tokens to", remedy)
    stored = [*(content.get("added_tokens") or [])]
    known = {entry["content"] for entry in stored}
    late = [_entry(token, ancestor.ids[token], how) for token, how in ancestor.added.items() if token not in known]
    stored += late + [_entry(each.token, each.id, each.flags) for each in alignment.added]
    stored.sort(key=lambda entry: int(entry["id"]))
    _check_ids(content["model"]["vocab"], stored, ancestor.key, base)
    return content | {"added_tokens": stored}


def _entry(token: str, number: int, how: Mapping[str, bool]) -> dict[str, Any]:
    return {"id": number, "content": token, **{flag: how[flag] for flag in FLAGS}}


def _check_ids(vocabulary: Any, added: list[dict[str, Any]], key: str, base: Path) -> None:
    """Raises InvalidModel where the library, which numbers added tokens itself and without gaps, would disagree."""
    ordinary = vocabulary if isinstance(vocabulary, dict) else {piece: at for at, (piece, _) in enumerate(vocabulary)}
    following = len(vocabulary)
    for entry in added:
        token, number = entry["content"], entry["id"]
        if number != ordinary.get(token, following):
            problem = f"has gaps in its token ids, so that {token!r} would not be loaded as {number}"
            raise InvalidModel(key, str(base), problem, "keep one tokenizer instead of a union: tokenizer: base")
        following = max(following, number + 1)


def _enter(settings: dict[str, Any], added: tuple[Addition, ...]) -> bool:
    """Enters the tokens in an added_tokens_decoder, where transformers 4 wrote one; whether it did."""
    if not isinstance(settings.get("added_tokens_decoder"), dict):
        return False
    rows = {str(each.id): {"content": each.token, **{flag: each.flags[flag] for flag in FLAGS}} for each in added}
    settings["added_tokens_decoder"] = settings["added_tokens_decoder"] | rows
    return True


def _listed(settings: Mapping[str, Any]) -> set[str]:
    """The tokens that a tokenizer_config.json lists as special without a role."""
    rows = [row for field in _SPECIALS if isinstance(settings.get(field), list) for row in settings[field]]
    return {row["content"] if isinstance(row, dict) else str(row) for row in rows}


def _mark(settings: dict[str, Any], owners: Mapping[str, Any], marked: list[Addition]) -> bool:
    """Lists tokens as their owners do: in the base's list, else in one as the owner's is called; whether any is."""
    for each in marked:
        sources = (settings, owners.get(each.owner, {}))
        field = next(f for source in sources for f in _SPECIALS if isinstance(source.get(f), list))
        if not isinstance(settings.get(field, []), list):
            continue  # a mapping of roles: the token is special by its flag alone
        settings[field] = [*settings.get(field, []), each.token]
    return bool(marked)
