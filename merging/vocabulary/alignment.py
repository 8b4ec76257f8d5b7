"""Which row of every model becomes which row of the merge, decided by token strings. Reads no tensor.

The output has the tokens of the base, of one expert, or of all models (`union`: the base's tokens at their ids,
then the experts' own, expert by expert in the order of their names and ids).

Rows of the output:
    base, or an expert: as that model has them, padding included.
    union: the base's count if it suffices (new tokens take its padding); else, if the base is padded, the next
        multiple of the largest power of two, at most 128, that divides the base's count; else exactly the tokens.

Unnamed rows (padding, gaps) are the base's unnamed row of the same place, else its last unnamed row, else that of
the expert whose vocabulary is kept, else zero. A model with the base's very vocabulary follows the base everywhere.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from merging.errors import InvalidModel
from merging.vocabulary.choice import BASE, UNION, check_choice
from merging.vocabulary.tokens import Vocabulary

_MOST_ORDINARY = 0.03  # of the base's tokens: as added tokens they lose their merges, which a few may
_LEAST_SHARED = 0.5  # of the smaller of two vocabularies: below, equal strings are mere coincidence
_WIDEST_PADDING = 128
_ORDINARY = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


@dataclass(frozen=True)
class Addition:
    """A token that the base's tokenizer must be given.

    Attributes:
        token, id: the string and its row in the output.
        flags: `reading.FLAGS`, as the owner has them; an ordinary token of the owner matches whole words only.
        owner: the first expert that has it.
    """

    token: str
    id: int
    flags: Mapping[str, bool]
    owner: str


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the rows of differing vocabularies come together.

    Attributes:
        tokenizer: `base`, `union`, or the expert whose vocabulary is kept.
        tokens: row of every token string of the output.
        rows: rows of the output, padding included.
        base: int64 [rows], the base's row for each output row, -1 where it has none.
        experts: the same for each expert, by name.
        ancestor: the base's vocabulary.
        added: the tokens of a union that the base lacks, by id.
    """

    tokenizer: str
    tokens: Mapping[str, int]
    rows: int
    base: Tensor
    experts: Mapping[str, Tensor]
    ancestor: Vocabulary
    added: tuple[Addition, ...] = ()

    def moved(self, number: int) -> int | None:
        """The output's id of the base's token `number`: unchanged if the base has no such token, None if it is gone."""
        token = self.ancestor.names.get(number)
        return number if token is None else self.tokens.get(token)

    def fingerprints(self) -> dict[str, str]:
        """32 hex digits for what the alignment makes of each model, under "base" and "expert:<name>".

        Together with the content fingerprints of the weights they say which rows are merged; no name is in them.
        """
        words = "\0".join(f"{token}\0{number}" for token, number in sorted(self.tokens.items()))
        found = {"base": _digest(self.base, words.encode())}
        return found | {f"expert:{name}": _digest(index, b"") for name, index in sorted(self.experts.items())}


def make_alignment(
    tokenizer: str, base: Vocabulary, experts: Mapping[str, Vocabulary], key: str = "tokenizer"
) -> Alignment | None:
    """The alignment of these vocabularies; None if every row already means the same in all of them.

    Args:
        tokenizer: whose vocabulary the output has: `base`, `union`, or an expert's name.
        key: where that choice is named, for messages.

    Raises:
        InvalidRecipe: there is no such expert.
        InvalidModel: a vocabulary has too little in common with the base's, or a union too many new ordinary tokens.
    """
    check_choice(tokenizer, tuple(experts), key)
    if all(each.same(base) for each in experts.values()):
        return None
    for each in experts.values():
        _check_related(each, base)
    added = _additions(base, experts) if tokenizer == UNION else ()
    kept = experts[tokenizer] if tokenizer not in (BASE, UNION) else base
    tokens = {**kept.ids, **{each.token: each.id for each in added}}
    rows = _rows(base, base.size + len(added)) if tokenizer == UNION else kept.rows
    names = {**kept.names, **{each.id: each.token for each in added}}
    mine = _base_index(base, names, rows)
    index = torch.tensor(mine, dtype=torch.int64)
    others = {
        name: index if each.same(base) else _index(each, names, rows, mine if each is kept else None)
        for name, each in experts.items()
    }
    return Alignment(tokenizer, tokens, rows, index, others, base, added)


def _base_index(base: Vocabulary, names: Mapping[int, str], rows: int) -> list[int]:
    """The base's row for every row of the output, which are named by `names`; -1 where the base has none."""
    unnamed = [row for row in range(base.rows) if row not in base.names]
    same, last = set(unnamed), unnamed[-1] if unnamed else -1
    padding = [row if row in same else last for row in range(rows)]
    return [base.ids.get(names[row], -1) if row in names else padding[row] for row in range(rows)]


def _index(each: Vocabulary, names: Mapping[int, str], rows: int, base: list[int] | None) -> Tensor:
    """An expert's rows; its unnamed ones count only where its layout is kept and the base, if given, has none."""
    found = [each.ids.get(names[row], -1) if row in names else -1 for row in range(rows)]
    if base is not None:
        found = [row if row not in names and base[row] < 0 else there for row, there in enumerate(found)]
    return torch.tensor(found, dtype=torch.int64)


def _rows(base: Vocabulary, needed: int) -> int:
    if needed <= base.rows:
        return base.rows
    if base.rows == base.size:
        return needed
    step = min(base.rows & -base.rows, _WIDEST_PADDING)
    return -(-needed // step) * step


def _additions(base: Vocabulary, experts: Mapping[str, Vocabulary]) -> tuple[Addition, ...]:
    found: dict[str, Addition] = {}
    for name, each in sorted(experts.items()):
        missing = [token for _, token in sorted(each.names.items()) if token not in base.ids]
        ordinary = sum(token not in each.added for token in missing)
        if ordinary > _MOST_ORDINARY * len(base.ids):
            problem = f"has {ordinary} ordinary tokens that the base lacks, too many to add to its tokenizer"
            remedy = f"keep one tokenizer instead: tokenizer: {name}, or tokenizer: base"
            raise InvalidModel(each.key, str(each.path), problem, remedy)
        for token in missing:
            if token not in found:
                found[token] = Addition(token, base.size + len(found), each.added.get(token, _ORDINARY), name)
    return tuple(found.values())


def _check_related(each: Vocabulary, base: Vocabulary) -> None:
    shared, smaller = len(each.ids.keys() & base.ids.keys()), min(len(each.ids), len(base.ids))
    if shared < _LEAST_SHARED * smaller:
        problem = f"shares only {shared} of {smaller} tokens with the base: its tokenizer is of another kind"
        raise InvalidModel(each.key, str(each.path), problem, "use fine-tunes of this base")


def _digest(index: Tensor, more: bytes) -> str:
    return blake2b(array("q", index.tolist()).tobytes() + more, digest_size=16).hexdigest()
