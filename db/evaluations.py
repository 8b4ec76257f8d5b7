"""Evaluations as leased work: claimed, renewed, finished and taken back by single conditional updates."""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Engine, case, func, literal, select, update
from sqlalchemy.orm import Session

from db.clock import epoch_now
from db.counters import count
from db.documents import read_wanted
from db.events import append_event, lock_studies
from db.leads import LED, LeadLost
from db.leases import EXPIRED, FREE, MAX_ATTEMPTS, claim, expired, seconds_to_next_expiry, with_token
from db.models import EvaluationRow, ScoreRow, StudyRow
from db.outcomes import as_part, columns, read_evaluation, read_seconds, score_row
from db.records import DEFAULT_POOL, Evaluation, Lease
from db.requeue import NO_PROGRESS, find, find_or_add, retry_failed
from db.session import reader
from db.wakeups import CONTROLLER, notify
from evaluation.result import Failed, Infeasible, Part, Scored
from evaluation.wanted import Wanted
from merging.recipe import Recipe, parse_recipe


class Evaluations:
    """The evaluations of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def want(self, study_id: int, recipe: Recipe, digest: str, part: Part, rung: int = 0) -> tuple[Evaluation, bool]:
        """The evaluation of that recipe on that rung of that part, and whether it was made just now.

        Raises:
            LeadLost: there is none, and the study is over.
        """
        if (there := self.find(study_id, digest, part, rung)) is not None:
            return there, False
        with Session(self._writer) as session, session.begin():
            lock_studies(session, [study_id])  # who wants the same at the same moment finds ours
            if session.get_one(StudyRow, study_id).state not in LED:
                raise LeadLost(f"study {study_id} is over: nothing more is scored")
            row, made = find_or_add(session, study_id, recipe, digest, part, rung)
            session.flush()
            return read_evaluation(session, row), made

    def find(self, study_id: int, digest: str, part: Part, rung: int = 0) -> Evaluation | None:
        """The evaluation of the recipe with that digest on that rung of that part; None: nobody wanted it."""
        with Session(self._reader) as session:
            row = find(session, study_id, digest, part, rung)
            return None if row is None else read_evaluation(session, row)

    def get(self, evaluation_id: int) -> Evaluation:
        """The evaluation with that id, with its outcome once it is done."""
        with Session(self._reader) as session:
            return read_evaluation(session, session.get_one(EvaluationRow, evaluation_id))

    def state(self, evaluation_id: int) -> str:
        """`queued`, `leased` or `done`."""
        with Session(self._reader) as session:
            return session.scalars(select(EvaluationRow.state).where(EvaluationRow.id == evaluation_id)).one()

    def study_of(self, evaluation_id: int) -> int | None:
        """The id of the evaluation's study; None if there is no such evaluation."""
        with Session(self._reader) as session:
            return session.scalar(select(EvaluationRow.study_id).where(EvaluationRow.id == evaluation_id))

    def recipe(self, evaluation_id: int) -> Recipe:
        """The recipe alone, without the outcome."""
        with Session(self._reader) as session:
            return parse_recipe(session.get_one(EvaluationRow, evaluation_id).recipe)

    def values(self, evaluation_ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """The value of every task of those evaluations that were scored, without anything per document."""
        query = (
            select(ScoreRow.evaluation_id, ScoreRow.task, ScoreRow.value)
            .where(ScoreRow.evaluation_id.in_(evaluation_ids))
            .order_by(ScoreRow.evaluation_id, ScoreRow.task)
        )
        found: dict[int, dict[str, float]] = {}
        with Session(self._reader) as session:
            for evaluation_id, task, value in session.execute(query):
                found.setdefault(evaluation_id, {})[task] = value
        return found

    def seconds(self, evaluation_id: int, rung: int) -> float | None:
        """Seconds in which that recipe was built, measured and scored up to that rung of the part, over all workers.

        None: nothing was computed for it there (it was not scored, or all of it was known).
        """
        with Session(self._reader) as session:
            return read_seconds(session, evaluation_id, rung)

    def knows(self, study_id: int, digest: str) -> bool:
        """Whether the study has an evaluation of the recipe with that digest, on whatever rung."""
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

    def running(self, study_id: int) -> tuple[Evaluation, ...]:
        """The study's evaluations that a worker holds now, with their progress."""
        query = (
            select(EvaluationRow)
            .where(EvaluationRow.study_id == study_id, EvaluationRow.state == "leased")
            .order_by(EvaluationRow.id)
        )
        with Session(self._reader) as session:
            return tuple(read_evaluation(session, row) for row in session.scalars(query))

    def queued(self) -> tuple[tuple[int, str], ...]:
        """(id, pool) of everything that waits for a worker in running studies, oldest first."""
        pool = func.coalesce(StudyRow.spec[("search", "pool")].as_string(), DEFAULT_POOL)
        query = (
            select(EvaluationRow.id, pool)
            .join(StudyRow, EvaluationRow.study_id == StudyRow.id)
            .where(EvaluationRow.state == "queued", StudyRow.state == "running")
            .order_by(EvaluationRow.id)
        )
        with Session(self._reader) as session:
            return tuple((id_, name) for id_, name in session.execute(query))

    def claim(self, evaluation_id: int, owner: str, seconds: float) -> Lease | None:
        """The lease, if the evaluation is free (queued, or its lease has expired) and its study runs; else None."""
        runs = EvaluationRow.study_id.in_(select(StudyRow.id).where(StudyRow.state == "running"))
        with Session(self._writer) as session, session.begin():
            row = claim(session, EvaluationRow, evaluation_id, owner, seconds, runs, **NO_PROGRESS)
            if row is None or row.token is None:
                return None
            recipe, part = parse_recipe(row.recipe), as_part(row.part)
            return Lease(row.id, row.study_id, row.token, recipe, part, row.attempts, row.rung)

    def wanted(self, lease: Lease, *, rehearsal: bool = False) -> Wanted:
        """What that evaluation must have, and what of it earlier evaluations have found already.

        An item is known if any evaluation, of any study, of the same recipe holds it for a task of the same digest.

        Args:
            rehearsal: whether a formula scores it: formulas know what they found in this study, models what models did.
        """
        with Session(self._reader) as session:
            return read_wanted(session, lease, rehearsal=rehearsal)

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Keep the lease; False if it is lost, and the work with it."""
        return self._with_token(lease, expires_at=epoch_now() + seconds)

    def progress(
        self,
        lease: Lease,
        done: int,
        total: int,
        tokens_per_second: float | None = None,
        measuring: tuple[int, int] | None = None,
    ) -> bool:
        """Say how far the work is; False if the lease is lost: the study was cancelled, or somebody else has it.

        Args:
            done, total: documents.
            measuring: artefacts done and their total, while they are measured.
        """
        measured, of = measuring or (None, None)
        said = {"documents_done": done, "documents_total": total, "tokens_per_second": tokens_per_second}
        return self._with_token(lease, **said, artefacts_done=measured, artefacts_total=of)

    def finish(self, lease: Lease, outcome: Scored | Infeasible | Failed) -> bool:
        """Write the outcome; False (and nothing written) if the lease is lost.

        A retryable failure puts the evaluation back in the queue until its attempts are used up.
        """
        again = isinstance(outcome, Failed) and outcome.retryable and lease.attempt < MAX_ATTEMPTS
        if again:
            values = {"state": "queued", "why": columns(outcome)["why"]}
        else:
            values = {"state": "done", "finished_at": time.time(), **columns(outcome)}
        with Session(self._writer) as session, session.begin():
            if again:
                lock_studies(session, [lease.study_id])  # before the evaluation, as everybody does
            if not with_token(session, EvaluationRow, lease.evaluation_id, lease.token, values | FREE | NO_PROGRESS):
                return False
            for score in outcome.scores if isinstance(outcome, Scored) else ():
                session.add(score_row(lease.evaluation_id, score))
            if again:
                _tell_retry(session, lease.study_id, lease.evaluation_id, lease.attempt, values["why"])
            notify(session, CONTROLLER)
        return True

    def lost_worker(self, owner: str, why: str) -> tuple[int, ...]:
        """Take back what a dead worker held: queued again, or failed once its attempts are used up.

        Returns:
            Ids of the evaluations taken back.
        """
        with Session(self._writer) as session, session.begin():
            held = (EvaluationRow.owner == owner) & (EvaluationRow.state == "leased")
            return _take_back(session, held, why)

    def sweep(self) -> tuple[int, ...]:
        """Take back everything whose lease has expired, as `lost_worker` does; the ids."""
        with Session(self._reader) as session:  # most sweeps find nothing, and then nobody is kept waiting
            if session.scalars(select(EvaluationRow.id).where(expired(EvaluationRow)).limit(1)).first() is None:
                return ()
        with Session(self._writer) as session, session.begin():
            ids = _take_back(session, expired(EvaluationRow), EXPIRED)
            count(session, "lease_expiries", len(ids))
            return ids

    def seconds_to_next_expiry(self) -> float | None:
        """How long until a lease may have to be taken back; None if nothing is leased."""
        with Session(self._reader) as session:
            return seconds_to_next_expiry(session, EvaluationRow)

    def hand_back(self, owner: str) -> tuple[int, ...]:
        """Queue again what a leaving worker holds; the attempt does not count. The ids."""
        return self._release(EvaluationRow.owner == owner)

    def release_all(self, study_id: int) -> None:
        """Free every lease of a study whose whole run is known to be dead; the recipes are not to blame."""
        self._release(EvaluationRow.study_id == study_id)

    def retry_failed(self, study_id: int, part: Part | None = None) -> None:
        """Queue again, with fresh attempts, what failed on that part, or on any: the user has asked once more.

        What a trial was told of stays as it was told.
        """
        with Session(self._writer) as session, session.begin():
            retry_failed(session, study_id, part)

    def _release(self, which: ColumnElement[bool]) -> tuple[int, ...]:
        held = which & (EvaluationRow.state == "leased")
        back = (
            update(EvaluationRow)
            .where(held)
            .values(state="queued", attempts=EvaluationRow.attempts - 1, **FREE, **NO_PROGRESS)
            .returning(EvaluationRow.id)
            .execution_options(synchronize_session=False)
        )
        with Session(self._writer) as session, session.begin():
            studies = _lock_studies_of(session, held)
            ids = tuple(sorted(session.scalars(back.where(EvaluationRow.study_id.in_(studies)))))
            if ids:
                notify(session, CONTROLLER)
            return ids

    def _with_token(self, lease: Lease, **values: object) -> bool:
        with Session(self._writer) as session, session.begin():
            return with_token(session, EvaluationRow, lease.evaluation_id, lease.token, values)


def _take_back(session: Session, which: ColumnElement[bool], why: str) -> tuple[int, ...]:
    """Queue leased evaluations again, or fail those whose attempts are used up, and tell who watches the studies."""
    studies = _lock_studies_of(session, which)
    spent = EvaluationRow.attempts >= MAX_ATTEMPTS
    back = (
        update(EvaluationRow)
        .where(which, EvaluationRow.study_id.in_(studies))
        .values(
            state=case((spent, "done"), else_="queued"),
            outcome=case((spent, "failed"), else_=None),
            why=case((spent, f"{why} (attempt {MAX_ATTEMPTS} of {MAX_ATTEMPTS})"), else_=literal(why)),
            finished_at=case((spent, epoch_now()), else_=None),
            **FREE,
            **NO_PROGRESS,
        )
        .returning(EvaluationRow.id, EvaluationRow.study_id, EvaluationRow.attempts)
        .execution_options(synchronize_session=False)
    )
    rows = sorted(tuple(row) for row in session.execute(back))
    for id_, study_id, attempts in rows:
        if attempts < MAX_ATTEMPTS:
            _tell_retry(session, study_id, id_, attempts, why)
    if rows:
        notify(session, CONTROLLER)
    return tuple(id_ for id_, _, _ in rows)


def _lock_studies_of(session: Session, which: ColumnElement[bool]) -> list[int]:
    """Hold the studies of these evaluations before the evaluations, as everybody does: nobody waits in a circle."""
    studies = sorted(set(session.scalars(select(EvaluationRow.study_id).where(which))))
    lock_studies(session, studies)
    return studies


def _tell_retry(session: Session, study_id: int, evaluation_id: int, attempt: int, why: str) -> None:
    """Say that an evaluation is queued again after that attempt."""
    append_event(session, study_id, "trial.retried", {"evaluation": evaluation_id, "attempt": attempt, "why": why})
