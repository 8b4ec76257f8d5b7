"""Evaluations as leased work: claimed, renewed, finished and taken back by single conditional updates.

A lease carries a fencing token. Whoever lost it (slow, cut off, thought dead) may go on working, but nothing
it writes counts: the update finds no row with its token.
"""

import time
import uuid
from collections.abc import Mapping

from sqlalchemy import Engine, case, or_, select, update
from sqlalchemy.orm import Session

from db import items
from db.clock import epoch_now
from db.models import DocumentSetRow, EvaluationRow, ScoreRow
from db.records import Evaluation, Lease
from db.session import reader
from evaluation.result import Failed, Infeasible, Part, Scored, TaskScore
from merging.recipe import Recipe, parse_recipe

MAX_ATTEMPTS = 3


class Evaluations:
    """The evaluations of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def want(self, study_id: int, recipe: Recipe, digest: str, part: Part) -> tuple[Evaluation, bool]:
        """The evaluation of that recipe on that part, and whether it was made just now."""
        with Session(self._writer) as session, session.begin():
            row, made = find_or_add(session, study_id, recipe, digest, part)
            session.flush()
            return _evaluation(session, row), made

    def get(self, evaluation_id: int) -> Evaluation:
        """The evaluation with that id, with its outcome once it is done."""
        with Session(self._reader) as session:
            return _evaluation(session, session.get_one(EvaluationRow, evaluation_id))

    def recipe(self, evaluation_id: int) -> Recipe:
        """The recipe alone, without the outcome."""
        with Session(self._reader) as session:
            return parse_recipe(session.get_one(EvaluationRow, evaluation_id).recipe)

    def knows(self, study_id: int, digest: str) -> bool:
        """Whether the study has an evaluation of the recipe with that digest."""
        query = select(EvaluationRow.id).where(
            EvaluationRow.study_id == study_id, EvaluationRow.recipe_digest == digest
        )
        with Session(self._reader) as session:
            return session.scalars(query).first() is not None

    def unfinished(self, study_id: int) -> tuple[int, ...]:
        """Ids of the study's evaluations that are not done, oldest first."""
        query = (
            select(EvaluationRow.id)
            .where(EvaluationRow.study_id == study_id, EvaluationRow.state != "done")
            .order_by(EvaluationRow.id)
        )
        with Session(self._reader) as session:
            return tuple(session.scalars(query))

    def claim(self, evaluation_id: int, owner: str, seconds: float) -> Lease | None:
        """The lease, if the evaluation is free (queued, or its lease has expired); else None."""
        token = uuid.uuid4().hex
        free = or_(
            EvaluationRow.state == "queued",
            (EvaluationRow.state == "leased") & (EvaluationRow.expires_at < epoch_now()),
        )
        claim = (
            update(EvaluationRow)
            .where(EvaluationRow.id == evaluation_id, free)
            .values(
                state="leased",
                owner=owner,
                token=token,
                expires_at=epoch_now() + seconds,
                attempts=EvaluationRow.attempts + 1,
            )
        )
        with Session(self._writer) as session, session.begin():
            if session.execute(claim).rowcount != 1:  # type: ignore[attr-defined]
                return None
            row = session.get_one(EvaluationRow, evaluation_id)
            return Lease(row.id, token, parse_recipe(row.recipe), _part(row.part), row.attempts)

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Keep the lease; False if it is lost, and the work with it."""
        return self._with_token(lease, expires_at=epoch_now() + seconds)

    def finish(self, lease: Lease, outcome: Scored | Infeasible | Failed) -> bool:
        """Write the outcome; False (and nothing written) if the lease is lost.

        A retryable failure puts the evaluation back in the queue until its attempts are used up.
        """
        if isinstance(outcome, Failed) and outcome.retryable and lease.attempt < MAX_ATTEMPTS:
            return self._with_token(lease, state="queued", owner=None, token=None, expires_at=None, why=outcome.why)
        values = {"state": "done", "owner": None, "token": None, "expires_at": None, "finished_at": time.time()}
        if isinstance(outcome, Scored):
            values |= {
                "outcome": outcome.kind,
                "why": None,
                "tokens": outcome.tokens,
                "build_seconds": outcome.build_seconds,
                "score_seconds": outcome.score_seconds,
                "device": outcome.device,
            }
        else:
            values |= {"outcome": outcome.kind, "why": outcome.why}
        with Session(self._writer) as session, session.begin():
            if not _update_with_token(session, lease, values):
                return False
            for score in outcome.scores if isinstance(outcome, Scored) else ():
                session.add(_score_row(lease.evaluation_id, score))
        return True

    def lost_worker(self, owner: str, why: str) -> tuple[int, ...]:
        """Take back what a dead worker held: queued again, or failed once its attempts are used up.

        Returns:
            Ids of the evaluations taken back.
        """
        held = (EvaluationRow.owner == owner) & (EvaluationRow.state == "leased")
        spent = EvaluationRow.attempts >= MAX_ATTEMPTS
        back = (
            update(EvaluationRow)
            .where(held)
            .values(
                state=case((spent, "done"), else_="queued"),
                outcome=case((spent, "failed"), else_=None),
                why=case((spent, f"{why} (attempt {MAX_ATTEMPTS} of {MAX_ATTEMPTS})"), else_=why),
                finished_at=case((spent, epoch_now()), else_=None),
                owner=None,
                token=None,
                expires_at=None,
            )
        )
        with Session(self._writer) as session, session.begin():
            ids = tuple(session.scalars(select(EvaluationRow.id).where(held)))
            session.execute(back)
            return ids

    def retry_failed(self, evaluation_id: int) -> None:
        """Queue an evaluation again if it failed, with fresh attempts: the user has asked once more."""
        again = (
            update(EvaluationRow)
            .where(EvaluationRow.id == evaluation_id, EvaluationRow.outcome == "failed")
            .values(state="queued", outcome=None, attempts=0, finished_at=None)
        )
        with Session(self._writer) as session, session.begin():
            session.execute(again)

    def release_all(self, study_id: int) -> None:
        """Free every lease of a study whose whole run is known to be dead; the recipes are not to blame."""
        back = (
            update(EvaluationRow)
            .where(EvaluationRow.study_id == study_id, EvaluationRow.state == "leased")
            .values(state="queued", owner=None, token=None, expires_at=None, attempts=EvaluationRow.attempts - 1)
        )
        with Session(self._writer) as session, session.begin():
            session.execute(back)

    def _with_token(self, lease: Lease, **values: object) -> bool:
        with Session(self._writer) as session, session.begin():
            return _update_with_token(session, lease, values)


def find_or_add(session: Session, study_id: int, recipe: Recipe, digest: str, part: Part) -> tuple[EvaluationRow, bool]:
    """The row for that recipe and part, added if there is none; for use inside a caller's transaction."""
    query = select(EvaluationRow).where(
        EvaluationRow.study_id == study_id, EvaluationRow.recipe_digest == digest, EvaluationRow.part == part
    )
    row = session.scalar(query)
    if row is not None:
        return row, False
    row = EvaluationRow(
        study_id=study_id,
        recipe_digest=digest,
        part=part,
        recipe=recipe.model_dump(mode="json", by_alias=True),
        state="queued",
        attempts=0,
        created_at=time.time(),
    )
    session.add(row)
    return row, True


def _update_with_token(session: Session, lease: Lease, values: Mapping[str, object]) -> bool:
    current = (
        EvaluationRow.id == lease.evaluation_id,
        EvaluationRow.token == lease.token,
        EvaluationRow.state == "leased",
    )
    done = session.execute(update(EvaluationRow).where(*current).values(**values))
    return bool(done.rowcount == 1)  # type: ignore[attr-defined]


def _score_row(evaluation_id: int, score: TaskScore) -> ScoreRow:
    return ScoreRow(
        evaluation_id=evaluation_id,
        task=score.task,
        metric=score.metric,
        value=score.value,
        stderr=score.stderr,
        higher_is_better=score.higher_is_better,
        items=items.encode(score.items),
    )


def _part(part: str) -> Part:
    return "holdout" if part == "holdout" else "search"


def _evaluation(session: Session, row: EvaluationRow) -> Evaluation:
    return Evaluation(
        id=row.id,
        study_id=row.study_id,
        recipe=parse_recipe(row.recipe),
        recipe_digest=row.recipe_digest,
        part=_part(row.part),
        state=row.state,
        attempts=row.attempts,
        outcome=_outcome(session, row) if row.state == "done" else None,
    )


def _outcome(session: Session, row: EvaluationRow) -> Scored | Infeasible | Failed:
    if row.outcome == "infeasible":
        return Infeasible(why=row.why or "")
    if row.outcome == "failed":
        return Failed(why=row.why or "")
    of_study = select(DocumentSetRow).where(DocumentSetRow.study_id == row.study_id, DocumentSetRow.part == row.part)
    documents = {d.task: tuple(d.ids) for d in session.scalars(of_study)}
    rows = session.scalars(select(ScoreRow).where(ScoreRow.evaluation_id == row.id).order_by(ScoreRow.task))
    scores = tuple(
        TaskScore(
            task=score.task,
            metric=score.metric,
            value=score.value,
            stderr=score.stderr,
            higher_is_better=score.higher_is_better,
            documents=documents[score.task],
            items=items.decode(score.items),
        )
        for score in rows
    )
    return Scored(
        scores=scores,
        tokens=row.tokens or 0,
        build_seconds=row.build_seconds or 0.0,
        score_seconds=row.score_seconds or 0.0,
        device=row.device or "",
    )
