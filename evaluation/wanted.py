"""What one evaluation must have, and what of it is known already. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evaluation.result import Part


@dataclass(frozen=True)
class Wanted:
    """What one evaluation must have: documents of each task, and the items that are known already.

    Attributes:
        part: whose documents they are.
        documents: the `doc_id`s of each task, ascending; a task without any is left out.
        known: items found by earlier evaluations of the same recipe, as JSON has them, by task and `doc_id`; those
            of documents that are not wanted change nothing.
    """

    part: Part
    documents: Mapping[str, tuple[int, ...]]
    known: Mapping[str, Mapping[int, Any]]

    @cached_property
    def missing(self) -> dict[str, tuple[int, ...]]:
        """What must really be scored: the wanted documents whose item is not known; tasks without any are left out."""
        left = {
            task: tuple(i for i in doc_ids if i not in self.known.get(task, {}))
            for task, doc_ids in self.documents.items()
        }
        return {task: doc_ids for task, doc_ids in left.items() if doc_ids}

    @property
    def reused(self) -> int:
        """How many of the wanted documents are known."""
        return sum(map(len, self.documents.values())) - sum(map(len, self.missing.values()))
