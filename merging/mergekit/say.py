"""One parameter of mergekit as its YAML says it: a number, or filters. No torch here."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from merging.catalog import Scalar
from merging.mergekit.cover import cover, inside
from merging.mergekit.names import Knob


def setting(knob: Knob, values: Mapping[str, Scalar | None]) -> dict[str, Any]:
    """The parameter under its name; nothing where every tensor has its default.

    Args:
        values: its value for each tensor, by the name that filters look into.
    """
    counted = Counter(values.values())
    if not counted or set(counted) == {knob.default}:
        return {}
    common = counted.most_common(1)[0][0]
    if len(counted) == 1:
        return {knob.name: common}
    rules = cover(values, dict.fromkeys(values, common), [*_words(values), *inside(values)])
    return {knob.name: [*({"filter": text, "value": value} for text, value in rules), {"value": common}]}


def _words(names: Iterable[str]) -> list[str]:
    """The parts that names are made of, common ones first: `mlp`, `self_attn`, `q_proj` …"""
    counted = Counter(word for name in names for word in set(name.split(".")) if not word.isdigit())
    return sorted(counted, key=lambda word: (-counted[word], word))
