"""Opens a base and its experts one by one and lists everything that does not fit, not only the first.

`models.ModelSet` refuses at the first misfit, which is right for merging; who asks what is wrong wants to hear it all.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Literal

from merging.checkpoint import Checkpoint, tie_flag
from merging.errors import InvalidModel
from merging.expert import Expert
from merging.expertfolder import open_expert
from merging.layers import Layout, layout
from merging.vocabulary.opening import align

BASE = "the base"
"""What the base is called among the models; with a blank in it, it is no expert's name."""
Kind = Literal["unreadable", "missing", "extra", "shape", "vocabulary", "rows", "numbers"]
_VOCABULARIES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Misfit:
    """One way in which a model does not fit.

    Attributes:
        model: the expert's name, or `BASE`.
        problem: what is wrong; for "unreadable" and "vocabulary" the whole message, which holds its remedy.
        tensors: every tensor that it concerns.
    """

    model: str
    kind: Kind
    problem: str
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a model's folder says without reading numbers.

    Attributes:
        dtypes: number of parameters by the name of their dtype, the largest first.
        ties: `tie_word_embeddings`, None where the config does not say.
        tokens: digest of which token has which id; None without a tokenizer.
    """

    path: str
    parameters: int
    dtypes: Mapping[str, int]
    ties: bool | None
    tokens: str | None


@dataclass(frozen=True)
class Opened:
    """The models that could be read, and what does not fit.

    Attributes:
        base: None if it cannot be read.
        experts: those that can be read, by name, in the order given.
        facts: by name, the base under `BASE`.
    """

    base: Checkpoint | None
    experts: Mapping[str, Expert]
    facts: Mapping[str, Facts]
    misfits: tuple[Misfit, ...]

    @property
    def layout(self) -> Layout:
        """Where the base's tensors stand; one empty layer without a base."""
        return Layout(1, {}) if self.base is None else layout(self.base.names, self.base.config)

    def comparable(self, expert: str) -> frozenset[str]:
        """The base's tensors that the expert has in the same shape and that hold fractions in both."""
        if self.base is None:
            return frozenset()
        checkpoint, base = self.experts[expert], self.base
        return frozenset(
            name
            for name in set(checkpoint.names) & set(base.names)
            if checkpoint.entry(name).shape == base.entry(name).shape
            and checkpoint.entry(name).dtype.is_floating_point
            and base.entry(name).dtype.is_floating_point
        )


def open_all(base: Path, experts: Mapping[str, Path]) -> Opened:
    """Opens what can be opened and compares every expert with the base. Reads headers only. Never raises for a model.

    Args:
        experts: their folders by name; no expert is called `BASE`.
    """
    misfits: list[Misfit] = []

    def unreadable(name: str, error: InvalidModel) -> None:
        misfits.append(Misfit(name, "unreadable", f"{error.value!r} {error.problem}; {error.remedy}"))

    ancestor: Checkpoint | None = None
    try:
        ancestor = Checkpoint(base, BASE)
    except InvalidModel as error:
        unreadable(BASE, error)
    opened: dict[str, Expert] = {}
    for name, path in experts.items():
        try:
            opened[name] = Checkpoint(path, name) if ancestor is None else open_expert(path, name, ancestor)
        except InvalidModel as error:
            unreadable(name, error)
    facts = {BASE: _facts(ancestor)} if ancestor is not None else {}
    facts |= {name: _facts(expert) for name, expert in opened.items()}
    if ancestor is not None:
        places = layout(ancestor.names, ancestor.config)
        for name, checkpoint in opened.items():
            misfits += _compare(name, checkpoint, ancestor, places)
    return Opened(ancestor, opened, facts, tuple(misfits))


def _compare(name: str, expert: Expert, base: Checkpoint, places: Layout) -> list[Misfit]:
    mine, theirs = set(expert.names), set(base.names)
    lists: dict[Kind, list[str]] = {"missing": sorted(theirs - mine), "extra": sorted(mine - theirs)}
    lists |= {"rows": [], "shape": [], "numbers": []}
    for tensor in sorted(mine & theirs):
        here, there = expert.entry(tensor), base.entry(tensor)
        if here.shape != there.shape:
            outside = not isinstance(places.places[tensor].layer, int)
            same_width = len(here.shape) > 0 and here.shape[1:] == there.shape[1:]
            lists["rows" if outside and same_width else "shape"].append(tensor)
        elif here.dtype.is_floating_point != there.dtype.is_floating_point:
            lists["numbers"].append(tensor)
    apart = _unaligned(expert, base)
    rows = lists.pop("rows") if apart else []
    first = f"{_problem('rows', rows[0], expert, base)}, and " if rows else ""
    refused = [Misfit(name, "vocabulary", first + apart, tuple(rows))] if apart else []
    return refused + [
        Misfit(name, kind, _problem(kind, tensors[0], expert, base), tuple(tensors))
        for kind, tensors in lists.items()
        if tensors
    ]


def _unaligned(expert: Expert, base: Checkpoint) -> str:
    """Why the expert's vocabulary cannot be brought together with the base's; empty if it can, or is the same."""
    try:
        align(base, {expert.key: expert})
    except InvalidModel as error:
        whose = "" if error.key == expert.key else f"{error.key} "
        return f"{whose}{error.problem}; {error.remedy}"
    return ""


def _problem(kind: Kind, tensor: str, expert: Expert, base: Checkpoint) -> str:
    """What is wrong with the first tensor of that kind."""
    if kind in ("missing", "extra"):
        return f"lacks the base's {tensor}" if kind == "missing" else f"has {tensor}, which the base lacks"
    here, there = expert.entry(tensor), base.entry(tensor)
    if kind == "numbers":
        return f"stores {tensor} as {here.dtype} where the base has {there.dtype}"
    return f"has {tensor} of shape {list(here.shape)} where the base has {list(there.shape)}"


def _facts(checkpoint: Expert) -> Facts:
    entries = [checkpoint.entry(name) for name in checkpoint.names]
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[str(entry.dtype).removeprefix("torch.")] += prod(entry.shape)
    dtypes = dict(counts.most_common())
    tokens = token_digest(checkpoint.path)
    return Facts(str(checkpoint.path), sum(dtypes.values()), dtypes, tie_flag(checkpoint.config), tokens)


def token_digest(folder: Path) -> str | None:
    """Digest of which token has which id, 16 hex digits, whatever else the tokenizer's files say; None without one."""
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            content = json.loads(path.read_bytes())
            added = [(token["content"], token["id"]) for token in content.get("added_tokens") or ()]
            return _digest(json.dumps([(content.get("model") or {}).get("vocab"), added], sort_keys=True).encode())
        found = next((folder / name for name in _VOCABULARIES if (folder / name).exists()), None)
        return None if found is None else _digest(found.name.encode() + found.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # not for the weights' doctor to judge; a missing tokenizer never stops a merge


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()
