"""Studies: created once, complete or not at all; found by name."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.models import DocumentSetRow, FingerprintRow, StudyRow, TrialRow
from db.records import Study
from db.session import reader
from evaluation.result import Part
from merging.errors import Conflict, NotFound

Documents = Mapping[tuple[str, Part], Sequence[int]]


class Studies:
    """The studies of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def create(
        self, name: str, spec: dict[str, Any], frozen_digest: str, setup: dict[str, Any], documents: Documents
    ) -> Study:
        """A new running study with its document split.

        Raises:
            Conflict: the name is taken.
        """
        row = StudyRow(
            name=name, spec=spec, frozen_digest=frozen_digest, setup=setup, state="running", created_at=time.time()
        )
        try:
            with Session(self._writer, expire_on_commit=False) as session, session.begin():
                session.add(row)
                session.flush()
                session.add_all(
                    DocumentSetRow(study_id=row.id, task=task, part=part, ids=list(ids))
                    for (task, part), ids in documents.items()
                )
        except IntegrityError as error:
            raise Conflict(f"a study named {name!r} exists already; choose another name") from error
        return _study(row)

    def get(self, name: str) -> Study:
        """The study of that name.

        Raises:
            NotFound: there is none; the message lists those there are.
        """
        found = self.find(name)
        if found is None:
            names = ", ".join(study.name for study in self.all()) or "none"
            raise NotFound(f"no study is named {name!r}; the studies here: {names}")
        return found

    def find(self, name: str) -> Study | None:
        """The study of that name, or None."""
        with Session(self._reader) as session:
            row = session.scalar(select(StudyRow).where(StudyRow.name == name))
            return _study(row) if row else None

    def by_id(self, study_id: int) -> Study:
        """The study with that id."""
        with Session(self._reader) as session:
            return _study(session.get_one(StudyRow, study_id))

    def all(self) -> tuple[Study, ...]:
        """Every study, oldest first."""
        with Session(self._reader) as session:
            return tuple(_study(row) for row in session.scalars(select(StudyRow).order_by(StudyRow.id)))

    def counts(self, study_id: int) -> dict[str, int]:
        """Number of trials by state."""
        query = select(TrialRow.state, func.count()).where(TrialRow.study_id == study_id).group_by(TrialRow.state)
        with Session(self._reader) as session:
            return {state: count for state, count in session.execute(query)}

    def documents(self, study_id: int) -> dict[tuple[str, str], tuple[int, ...]]:
        """The document split: (task, part) -> lm-eval's doc_ids."""
        query = select(DocumentSetRow).where(DocumentSetRow.study_id == study_id)
        with Session(self._reader) as session:
            return {(row.task, row.part): tuple(row.ids) for row in session.scalars(query)}

    def reopen(self, study_id: int, spec: dict[str, Any]) -> None:
        """Let a study go on, with a specification that differs only in what may change."""
        changes = {"state": "running", "why": None, "verdict": None, "finished_at": None, "spec": spec}
        self._update(study_id, **changes)

    def finish(self, study_id: int, verdict: dict[str, Any]) -> None:
        """Close the study with its final report."""
        self._update(study_id, state="finished", verdict=verdict, finished_at=time.time())

    def fail(self, study_id: int, why: str) -> None:
        """Close the study without a report."""
        self._update(study_id, state="failed", why=why, finished_at=time.time())

    def _update(self, study_id: int, **values: Any) -> None:
        with Session(self._writer) as session, session.begin():
            session.execute(update(StudyRow).where(StudyRow.id == study_id).values(**values))


class Fingerprints:
    """Remembered content fingerprints of model folders, keyed by what their files looked like."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def get(self, key: str) -> str | None:
        """The remembered fingerprint, or None."""
        with Session(self._reader) as session:
            row = session.get(FingerprintRow, key)
            return row.fingerprint if row else None

    def put(self, key: str, fingerprint: str) -> None:
        """Remember a fingerprint."""
        with Session(self._writer) as session, session.begin():
            session.merge(FingerprintRow(key=key, fingerprint=fingerprint))


def _study(row: StudyRow) -> Study:
    return Study(
        id=row.id,
        name=row.name,
        spec=row.spec,
        frozen_digest=row.frozen_digest,
        setup=row.setup,
        state=row.state,
        why=row.why,
        verdict=row.verdict,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
