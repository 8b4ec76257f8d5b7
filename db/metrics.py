"""Counts over the whole database, for the metrics."""

from dataclasses import dataclass

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from db.counters import count
from db.models import CounterRow, EvaluationRow, JobRow, StudyRow, TrialRow
from db.session import reader


@dataclass(frozen=True)
class Counts:
    """How much of everything there is.

    Attributes:
        studies, trials, evaluations: by state.
        jobs: by (kind, state).
        scored: number of scored evaluations, and the sums over them of the next four.
        reused: documents whose items were known from earlier evaluations.
        tokens_per_second: of all running evaluations together.
        counters: what only grows (`db/migrations` seeds the names).
    """

    studies: dict[str, int]
    trials: dict[str, int]
    evaluations: dict[str, int]
    jobs: dict[tuple[str, str], int]
    scored: int
    build_seconds: float
    score_seconds: float
    tokens: int
    reused: int
    tokens_per_second: float
    counters: dict[str, float]


class Metrics:
    """The counts of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def read(self) -> Counts:
        """The counts now."""
        row = EvaluationRow
        seconds = (func.sum(row.build_seconds), func.sum(row.score_seconds))
        sums = select(func.count(), *seconds, func.sum(row.tokens), func.sum(row.documents_reused))
        with Session(self._reader) as session:
            scored, build, score, tokens, reused = session.execute(sums.where(row.outcome == "scored")).one()
            rate = session.scalar(select(func.sum(row.tokens_per_second)).where(row.state == "leased"))
            by_kind = select(JobRow.kind, JobRow.state, func.count()).group_by(JobRow.kind, JobRow.state)
            return Counts(
                studies=_by_state(session, StudyRow),
                trials=_by_state(session, TrialRow),
                evaluations=_by_state(session, EvaluationRow),
                jobs={(kind, state): n for kind, state, n in session.execute(by_kind)},
                scored=scored,
                build_seconds=build or 0.0,
                score_seconds=score or 0.0,
                tokens=int(tokens or 0),
                reused=int(reused or 0),
                tokens_per_second=rate or 0.0,
                counters={c.name: c.value for c in session.scalars(select(CounterRow))},
            )

    def add(self, **amounts: float) -> None:
        """Add to counters: `asks`, `ask_seconds`."""
        with Session(self._writer) as session, session.begin():
            for name in sorted(amounts):  # everybody in one order: nobody waits in a circle
                count(session, name, amounts[name])


def _by_state(session: Session, row: type[StudyRow] | type[TrialRow] | type[EvaluationRow]) -> dict[str, int]:
    return {state: n for state, n in session.execute(select(row.state, func.count()).group_by(row.state))}
