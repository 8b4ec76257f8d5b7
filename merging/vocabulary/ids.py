"""Token ids in config.json and generation_config.json, moved to the output's vocabulary by token string."""

from collections.abc import Mapping
from typing import Any

from merging.vocabulary.alignment import Alignment

_ENDINGS = ("_token_id", "_token_ids", "_token_index")
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "forced_decoder_ids", "force_words_ids")
_PAIRS = "forced_decoder_ids"  # [position, id]


def translated(config: Mapping[str, Any], alignment: Alignment | None, own: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of the base, for the output: its vocab_size and the ids of its special tokens.

    Args:
        config: the base's config.json or generation_config.json.
        alignment: None: nothing has moved.
        own: the same file of the expert whose vocabulary is kept (empty for `base` and `union`): it stands in
            where the output lacks the base's token.

    Returns:
        A new configuration. An id whose token is gone everywhere is None, and left out of a list.
    """
    if alignment is None:
        return dict(config)
    return {key: _value(key, value, alignment, own) for key, value in config.items()}


def _value(key: str, value: Any, alignment: Alignment, own: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        nested = own.get(key)
        return translated(value, alignment, nested if isinstance(nested, Mapping) else {})
    if key == "vocab_size" and value == alignment.ancestor.rows:
        return alignment.rows
    if key in _LISTS or key.endswith(_ENDINGS):
        moved = _moved(value, alignment, pair=key == _PAIRS)
        return own.get(key) if moved in (None, []) and value not in (None, []) else moved
    return value


def _moved(value: Any, alignment: Alignment, pair: bool) -> Any:
    """An id, or a list of ids at any depth; in a list, what is gone is left out, with a sequence it breaks."""
    if isinstance(value, list):
        if pair and len(value) == 2 and not isinstance(value[0], list):
            number = _moved(value[1], alignment, pair=False)
            return None if number is None and value[1] is not None else [value[0], number]
        moved = [_moved(each, alignment, pair) for each in value]
        sequence = not pair and bool(value) and isinstance(value[0], list)
        complete = [new for new, old in zip(moved, value, strict=True) if not sequence or len(new) == len(old)]
        return [each for each in complete if each is not None]
    return alignment.moved(value) if type(value) is int else value
