"""Which documents a study may look at: a keyed split by content into search and holdout.

Membership depends on a document's content and the study's key alone. So the same content is on the same side in
every task, exact duplicates never straddle, and neither the order of the documents nor their number changes a side.
Content is all of a document's fields: two that differ only in an id are different documents, drawn by themselves.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from evaluation.result import Part
from merging.errors import InvalidStudy


@dataclass(frozen=True)
class Split:
    """The two parts of one task's documents, as positions (lm-eval's `doc_id`s).

    Attributes:
        search, holdout: ascending.
        order: the documents of both parts in the order in which a study scores them: by a keyed rank, so that any
            prefix is a random sample, and the same one whatever the cap.
    """

    search: tuple[int, ...]
    holdout: tuple[int, ...]
    order: tuple[int, ...]

    def ordered(self, part: Part) -> tuple[int, ...]:
        """The documents of one part, in scoring order."""
        own = set(self.search if part == "search" else self.holdout)
        return tuple(i for i in self.order if i in own)


def canonical(document: Any) -> bytes:
    """A document as canonical JSON; what JSON does not know (dates) as its text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode()


def split(documents: Sequence[Any], key: str, holdout: float, cap: int | None = None) -> Split:
    """Split one task's documents.

    Args:
        key: the study's split key; another key gives another split.
        holdout: share of the documents that no search decision reads; each content is drawn by itself, so a small
            task's share varies around it.
        cap: most documents taken; those of the lowest rank under the key.
    """
    contents = [canonical(document) for document in documents]
    ranks = [_hash(content, key, b"rank") for content in contents]
    order = sorted(range(len(documents)), key=lambda i: (ranks[i], i))[:cap]
    taken = sorted(order)
    held = {i for i in taken if _uniform(contents[i], key) < holdout}
    return Split(tuple(i for i in taken if i not in held), tuple(i for i in taken if i in held), tuple(order))


def require_both_parts(parts: Split, key: str, task: str, documents: int) -> None:
    """Refuse a split with an empty part.

    Args:
        key: the study's key path of the task (`evaluation.tasks[0]`).
        documents: how many documents the task has.

    Raises:
        InvalidStudy: there is no document to search on, or none held out.
    """
    taken = len(parts.search) + len(parts.holdout)
    for name, part, remedy in (("search", parts.search, "smaller"), ("holdout", parts.holdout, "larger")):
        if not part:
            more = "raise evaluation.documents" if taken < documents else "choose a task with more documents"
            raise InvalidStudy(
                f"{key}.name",
                task,
                f"has no {name} document left ({taken} of {documents} documents taken)",
                f"{more}, or a {remedy} evaluation.holdout",
            )


def _hash(content: bytes, key: str, purpose: bytes) -> bytes:
    # the key goes through a hash of its own because blake2b takes at most 64 bytes of key
    return blake2b(content, digest_size=16, key=blake2b(key.encode()).digest(), person=purpose).digest()


def _uniform(content: bytes, key: str) -> float:
    """A number in [0, 1) drawn for this content; independent of its rank."""
    return int.from_bytes(_hash(content, key, b"holdout")[:6], "big") / 2**48
