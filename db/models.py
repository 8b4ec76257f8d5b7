"""The tables. The database is the truth: a study is a row, a trial is a row, an evaluation is a leased row.

A *trial* is one recipe tried by a search; an *evaluation* is one recipe scored on one rung of one part of the
documents: rung 0 has the fewest of them, the last one all.
Trials of equal recipes share one evaluation (a unique constraint says so): nothing is scored twice.
Table names keep clear of Optuna's (`studies`, `trials`), which lives in a file or schema of its own.
"""

from typing import Any

from sqlalchemy import JSON, Double, ForeignKey, Index, LargeBinary, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.leases import Leased

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
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, float: Double}  # noqa: RUF012 - SQLAlchemy's own form


class StudyRow(Base):
    """One search.

    Attributes:
        spec: the study file as it was validated, model folders absolute.
        frozen_digest: digest of the part of `spec` that may not change while the study lives.
        setup: what was derived from it once: fingerprints, layer count, suite digest, task metrics.
        state: `running`, `paused`, `cancelled`, `finished` or `failed`.
        phase: how far a running study is: `searching`, `rescoring`, `originals`, `explaining`, `holdout` or
            `judging`.
        verdict: the final report, once there is one.
        leader, lead_token, lead_expires_at: the controller that leads the study, its fencing token, and when its
            lead ends by the database's clock. What a controller writes counts only while its token stands here.
        created_at: seconds since 1970, as all times here.
        searched_seconds: for how long it was searched; time in which it was paused, or not led, does not count.
        ended: why the search is over (`search.stopping.ended`), while it is.
    """

    __tablename__ = "merge_study"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    spec: Mapped[dict[str, Any]]
    frozen_digest: Mapped[str] = mapped_column(String(32))
    setup: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    why: Mapped[str | None]
    phase: Mapped[str | None] = mapped_column(String(16))
    verdict: Mapped[dict[str, Any] | None]
    leader: Mapped[str | None] = mapped_column(String(200))
    lead_token: Mapped[str | None] = mapped_column(String(32))
    lead_expires_at: Mapped[float | None]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    searched_seconds: Mapped[float] = mapped_column(server_default="0", default=0.0)
    ended: Mapped[dict[str, Any] | None]


class DocumentSetRow(Base):
    """The documents of one task on one side of the split, as lm-eval's `doc_id`s in scoring order.

    Attributes:
        sizes: of each rung, the number of documents it takes from the beginning of `ids`; None: all, on one rung.
        digest: of all that decides a candidate's items besides its recipe; None: they count for this study alone.
    """

    __tablename__ = "document_set"

    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"), primary_key=True)
    task: Mapped[str] = mapped_column(String(200), primary_key=True)
    part: Mapped[str] = mapped_column(String(16), primary_key=True)
    ids: Mapped[list[Any]]
    sizes: Mapped[list[Any] | None]
    digest: Mapped[str | None] = mapped_column(String(64))


class EvaluationRow(Leased, Base):
    """One recipe to be scored on one rung of one part of the documents, once.

    Attributes:
        state: `queued`, `leased` or `done`.
        documents_done, documents_total, tokens_per_second: how far the present attempt is.
        artefacts_done, artefacts_total: before that, how far it is with measuring what its recipe looks at.
        outcome: `scored`, `infeasible` or `failed`, once done; `why` says the reason of the last two, or why the
            last attempt came to nothing.
        documents_reused: how many items were known from earlier evaluations.
    """

    __tablename__ = "evaluation"
    __table_args__ = (
        UniqueConstraint("study_id", "recipe_digest", "part", "rung"),
        Index("ix_evaluation_study_id_state", "study_id", "state"),
        Index("ix_evaluation_state_expires_at", "state", "expires_at"),
    )

    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"))
    recipe_digest: Mapped[str] = mapped_column(String(32), index=True)
    part: Mapped[str] = mapped_column(String(16))
    rung: Mapped[int] = mapped_column(server_default="0")
    recipe: Mapped[dict[str, Any]]
    documents_done: Mapped[int | None]
    documents_total: Mapped[int | None]
    tokens_per_second: Mapped[float | None]
    artefacts_done: Mapped[int | None]
    artefacts_total: Mapped[int | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    why: Mapped[str | None]
    documents_reused: Mapped[int | None]
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
        evaluation_id: the scoring of its recipe at its rung; None if its parameters make no recipe (`why` says why).
        state: `open`, then `complete`, `pruned`, `infeasible` or `failed` once told to the strategy; `cancelled` with
            its study. A pruned one may become complete when it is scored in full after all.
        told_order: 1, 2, 3 … in the order in which the strategy was told; a restart replays it.
        value: of a complete trial, the objective over all documents of the search; higher is better.
        rung, steps: how far it came, and on each rung that it left: the rung, its documents, the value there.
        estimate: of a trial that was pruned, what the strategy was told; it stays when the trial becomes complete.
        constraints, violation: how far it is beyond each of the study's constraints (none beyond 0 is met), and the
            sum of what is beyond.
    """

    __tablename__ = "merge_trial"
    __table_args__ = (
        UniqueConstraint("study_id", "number"),
        UniqueConstraint("study_id", "told_order", name="uq_merge_trial_told_order"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"))
    number: Mapped[int]
    origin: Mapped[str] = mapped_column(String(200))
    params: Mapped[dict[str, Any] | None]
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluation.id"))
    rung: Mapped[int] = mapped_column(server_default="0")
    steps: Mapped[list[Any] | None]
    state: Mapped[str] = mapped_column(String(16))
    value: Mapped[float | None]
    estimate: Mapped[float | None]
    constraints: Mapped[list[Any] | None]
    violation: Mapped[float] = mapped_column(server_default="0")
    why: Mapped[str | None]
    told_order: Mapped[int | None]
    created_at: Mapped[float]
    told_at: Mapped[float | None]


class EventRow(Base):
    """Something that happened in a study, for those who watch it.

    Attributes:
        seq: 1, 2, 3 … in each study without gaps, given under the study's row lock: whoever has read up to one
            has missed none before it.
    """

    __tablename__ = "study_event"

    study_id: Mapped[int] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[float]


class JobRow(Leased, Base):
    """A piece of desk work: checking a submission, judging a study, writing an export.

    Attributes:
        kind: `check`, `judge` or `export`.
        state: `queued`, `leased`, `done` or `failed`.
        content, result: what is asked and what came of it.
        problem: why it failed, as the API shows it.
    """

    __tablename__ = "job"
    __table_args__ = (Index("ix_job_kind_state", "kind", "state"),)

    kind: Mapped[str] = mapped_column(String(16))
    study_id: Mapped[int | None] = mapped_column(ForeignKey("merge_study.id", ondelete="CASCADE"))
    content: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None]
    problem: Mapped[dict[str, Any] | None]
    created_at: Mapped[float]
    finished_at: Mapped[float | None]


class IdempotencyRow(Base):
    """A request that must not be done twice: the same key from the same caller names the same job.

    Attributes:
        principal: who asked.
        digest: of the request's content; the same key with another content is a mistake.
    """

    __tablename__ = "idempotency_key"

    principal: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"))
    created_at: Mapped[float]


class KeyRow(Base):
    """An API key. The secret itself is not kept, only its SHA-256: it is random enough not to need a slow hash.

    Attributes:
        prefix: the part of the key that names it.
        scopes: of `read`, `run`, `admin`.
    """

    __tablename__ = "api_key"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[Any]]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class ProcessRow(Base):
    """A process of the service that says now and then that it is alive.

    Attributes:
        role: `worker`, `controller` or `clerk`.
        detail: what it says of itself (device, pools, memory …).
    """

    __tablename__ = "process"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    detail: Mapped[dict[str, Any]]


class CounterRow(Base):
    """A number that only grows, for the metrics: lease expiries, seconds spent asking, trials asked …"""

    __tablename__ = "counter"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[float]


class FingerprintRow(Base):
    """Content fingerprint of a model folder as its files were; spares reading it all again."""

    __tablename__ = "model_fingerprint"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
