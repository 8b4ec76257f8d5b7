"""The tables. The database is the truth: a study is a row, a trial is a row, an evaluation is a leased row.

A *trial* is one recipe tried by a search; an *evaluation* is one recipe scored on one part of the documents.
Trials of equal recipes share one evaluation (a unique constraint says so): nothing is scored twice.
Table names keep clear of Optuna's (`studies`, `trials`), which lives in a file or schema of its own.
"""

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Root of the tables; the naming convention keeps migrations portable."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy's own form


class StudyRow(Base):
    """One search.

    Attributes:
        spec: the study file as it was validated, model folders absolute.
        frozen_digest: digest of the part of `spec` that may not change while the study lives.
        setup: what was derived from it once: fingerprints, layer count, suite digest, task metrics.
        state: `running`, `finished` or `failed`.
        verdict: the final report, once there is one.
        created_at: seconds since 1970, as all times here.
    """

    __tablename__ = "merge_study"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    spec: Mapped[dict[str, Any]]
    frozen_digest: Mapped[str] = mapped_column(String(32))
    setup: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    why: Mapped[str | None]
    verdict: Mapped[dict[str, Any] | None]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class DocumentSetRow(Base):
    """The documents of one task on one side of the split, as lm-eval's `doc_id`s in scoring order."""

    __tablename__ = "document_set"

    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"), primary_key=True)
    task: Mapped[str] = mapped_column(String(200), primary_key=True)
    part: Mapped[str] = mapped_column(String(16), primary_key=True)
    ids: Mapped[list[Any]]


class EvaluationRow(Base):
    """One recipe to be scored on one part of the documents, once.

    Attributes:
        state: `queued`, `leased` or `done`.
        owner, token, expires_at: who holds the lease, the fencing token of this lease, and when it ends by
            the database's clock. A write whose token is no longer current changes nothing.
        attempts: how often it was begun.
        outcome: `scored`, `infeasible` or `failed`, once done; `why` says the reason of the last two.
    """

    __tablename__ = "evaluation"
    __table_args__ = (
        UniqueConstraint("study_id", "recipe_digest", "part"),
        Index("ix_evaluation_study_id_state", "study_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"))
    recipe_digest: Mapped[str] = mapped_column(String(32))
    part: Mapped[str] = mapped_column(String(16))
    recipe: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str | None] = mapped_column(String(200))
    token: Mapped[str | None] = mapped_column(String(32))
    expires_at: Mapped[float | None]
    attempts: Mapped[int]
    outcome: Mapped[str | None] = mapped_column(String(16))
    why: Mapped[str | None]
    tokens: Mapped[int | None]
    build_seconds: Mapped[float | None]
    score_seconds: Mapped[float | None]
    device: Mapped[str | None] = mapped_column(String(100))
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class ScoreRow(Base):
    """One task's score in one evaluation; `items` holds the per-document results (`db/items.py`)."""

    __tablename__ = "score"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluation.id", ondelete="CASCADE"), primary_key=True)
    task: Mapped[str] = mapped_column(String(200), primary_key=True)
    metric: Mapped[str] = mapped_column(String(200))
    value: Mapped[float]
    stderr: Mapped[float | None]
    higher_is_better: Mapped[bool]
    items: Mapped[bytes] = mapped_column(LargeBinary)


class TrialRow(Base):
    """One recipe tried by the search.

    Attributes:
        origin: where it came from: `expert:NAME`, `uniform_soup`, `default:METHOD`, or the strategy's name.
        params: its point in the search space; None for a recipe outside it.
        evaluation_id: the scoring of its recipe; None if its parameters make no recipe (`why` says why).
        state: `open`, then `complete`, `infeasible` or `failed` once told to the strategy.
        told_order: 1, 2, 3 … in the order in which the strategy was told; a restart replays it.
        value: the objective, higher is better.
    """

    __tablename__ = "merge_trial"
    __table_args__ = (UniqueConstraint("study_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"))
    number: Mapped[int]
    origin: Mapped[str] = mapped_column(String(200))
    params: Mapped[dict[str, Any] | None]
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluation.id"))
    state: Mapped[str] = mapped_column(String(16))
    value: Mapped[float | None]
    why: Mapped[str | None]
    told_order: Mapped[int | None]
    created_at: Mapped[float]
    told_at: Mapped[float | None]


class FingerprintRow(Base):
    """Content fingerprint of a model folder as its files were; spares reading it all again."""

    __tablename__ = "model_fingerprint"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
