"""The documents of a study's tasks, and what is known of a recipe's items on them from earlier evaluations."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from db import items
from db.models import DocumentSetRow, EvaluationRow, ScoreRow
from db.records import DocumentSet, Lease
from evaluation.result import Part
from evaluation.wanted import Wanted

_MOST = 20  # earlier scorings looked at, a task
REHEARSAL = "rehearsal"
"""The device of evaluations that a formula scored: what they found is nothing to a model, nor to another study."""


def document_rows(study_id: int, documents: Mapping[tuple[str, Part], DocumentSet]) -> list[DocumentSetRow]:
    """A new study's documents as rows."""
    return [
        DocumentSetRow(
            study_id=study_id, task=task, part=part, ids=list(given.ids), sizes=list(given.sizes), digest=given.digest
        )
        for (task, part), given in documents.items()
    ]


def document_set(row: DocumentSetRow) -> DocumentSet:
    """The row as a record; a study of an earlier version has one rung."""
    return DocumentSet(tuple(row.ids), tuple([len(row.ids)] if row.sizes is None else row.sizes), row.digest)


def documents_of(session: Session, study_id: int, part: Part) -> dict[str, DocumentSet]:
    """The documents of each task on one side of the split."""
    query = select(DocumentSetRow).where(DocumentSetRow.study_id == study_id, DocumentSetRow.part == part)
    return {row.task: document_set(row) for row in session.scalars(query)}


def read_wanted(session: Session, lease: Lease, *, rehearsal: bool) -> Wanted:
    """The documents of a leased evaluation's rung, and those of their items that are known.

    Args:
        rehearsal: whether a formula scores it.
    """
    sets = documents_of(session, lease.study_id, lease.part)
    documents = {task: ids for task in sorted(sets) if (ids := sets[task].at(lease.rung))}
    named = {digest: task for task in documents if (digest := sets[task].digest) is not None}
    known: dict[str, dict[int, Any]] = {}
    for given, rung, content in _scored_before(session, lease, list(named), rehearsal=rehearsal):
        task = named[given.digest or ""]
        of_task, asked = known.setdefault(task, {}), documents[task]
        if len(of_task) == len(asked):
            continue
        found = _items(document_set(given).at(rung), content)
        known[task] = {i: found[i] for i in asked if i in found} | of_task
    return Wanted(lease.part, documents, {task: found for task, found in known.items() if found})


def _scored_before(
    session: Session, lease: Lease, digests: list[str], *, rehearsal: bool
) -> Sequence[Row[DocumentSetRow, int, bytes]]:
    """Scorings of the same recipe on documents of those digests, with their rung and items.

    The study's own come first, then full ones, then the oldest; of a recipe scored over and over a few are enough.
    """
    mine = select(EvaluationRow.recipe_digest).where(EvaluationRow.id == lease.evaluation_id).scalar_subquery()
    own, formula = EvaluationRow.study_id == lease.study_id, EvaluationRow.device == REHEARSAL
    of_part = (DocumentSetRow.study_id == EvaluationRow.study_id) & (DocumentSetRow.part == EvaluationRow.part)
    of_task = (ScoreRow.evaluation_id == EvaluationRow.id) & (ScoreRow.task == DocumentSetRow.task)
    query = (
        select(DocumentSetRow, EvaluationRow.rung, ScoreRow.items)
        .select_from(EvaluationRow)
        .join(DocumentSetRow, of_part)
        .join(ScoreRow, of_task)
        .where(EvaluationRow.recipe_digest == mine, EvaluationRow.outcome == "scored")
        .where(formula & own if rehearsal else ~formula)
        .where(DocumentSetRow.digest.in_(digests))
        .order_by(EvaluationRow.study_id != lease.study_id, EvaluationRow.rung.desc(), EvaluationRow.id)
        .limit(_MOST * len(digests))
    )
    return session.execute(query).all() if digests else ()


def _items(doc_ids: tuple[int, ...], content: bytes) -> dict[int, Any]:
    """The items by document; none where they are not one each, for then nobody can say whose they are."""
    values = items.decode(content)
    return dict(zip(doc_ids, values, strict=True)) if len(values) == len(doc_ids) else {}
