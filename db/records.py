"""What the store takes and hands out: frozen records, detached from any session."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.result import Failed, Infeasible, Part, Scored
from merging.recipe import Recipe

POOL = "[a-z0-9][a-z0-9_-]{0,49}"  # what a pool of workers may be called
DEFAULT_POOL = "default"
ORIGINALS = "originals:"  # how the origin of a trial begins that no search asked for


@dataclass(frozen=True)
class Study:
    """One search. See `db/models.py` for the fields."""

    id: int
    name: str
    spec: dict[str, Any]
    frozen_digest: str
    setup: dict[str, Any]
    state: str
    why: str | None
    phase: str | None
    verdict: dict[str, Any] | None
    created_at: float
    finished_at: float | None
    searched_seconds: float = 0.0
    ended: dict[str, Any] | None = None


@dataclass(frozen=True)
class Lead:
    """The right of one controller to write a study's trials and its end, until it expires or is taken away."""

    study_id: int
    token: str


@dataclass(frozen=True)
class DocumentSet:
    """The documents of one task on one side of the split, and how many of them each rung has.

    Attributes:
        ids: lm-eval's `doc_id`s in scoring order.
        sizes: of each rung, the number of documents it takes from the beginning of `ids`.
        digest: of everything besides the recipe that decides what a candidate gets on a document of this task; what
            was found under one digest counts wherever it is wanted again. None: nothing is said of it.
    """

    ids: tuple[int, ...]
    sizes: tuple[int, ...]
    digest: str | None = None

    @staticmethod
    def whole(ids: Sequence[int], digest: str | None = None) -> "DocumentSet":
        """All documents on one rung."""
        return DocumentSet(tuple(ids), (len(ids),), digest)

    def at(self, rung: int) -> tuple[int, ...]:
        """The documents of that rung, ascending.

        Raises:
            IndexError: there is no such rung.
        """
        return tuple(sorted(self.ids[: self.sizes[rung]]))


@dataclass(frozen=True)
class Step:
    """What a trial was worth on one rung: the objective over so many documents of all tasks together."""

    rung: int
    documents: int
    value: float


@dataclass(frozen=True)
class Trial:
    """One recipe tried. See `db/models.py` for the fields; only a complete trial has a `value`, higher is better."""

    number: int
    origin: str
    params: dict[str, Any] | None
    evaluation_id: int | None
    state: str
    value: float | None
    why: str | None
    told_order: int | None
    created_at: float
    told_at: float | None
    rung: int = 0
    steps: tuple[Step, ...] = ()
    estimate: float | None = None
    constraints: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Progress:
    """How far a running evaluation is; the rate is None until it is known.

    Attributes:
        artefacts_done, artefacts_total: while what its recipe looks at is measured; None otherwise.
    """

    documents_done: int
    documents_total: int
    tokens_per_second: float | None
    artefacts_done: int | None = None
    artefacts_total: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """One recipe to be scored on one rung of one part of the documents, and how far that is."""

    id: int
    study_id: int
    recipe: Recipe
    recipe_digest: str
    part: Part
    state: str
    attempts: int
    owner: str | None
    why: str | None
    progress: Progress | None
    outcome: Scored | Infeasible | Failed | None
    rung: int = 0


@dataclass(frozen=True)
class Lease:
    """The right to write one evaluation's outcome, until it expires or is taken away."""

    evaluation_id: int
    study_id: int
    token: str
    recipe: Recipe
    part: Part
    attempt: int
    rung: int = 0


@dataclass(frozen=True)
class Event:
    """Something that happened in a study; `seq` counts 1, 2, 3 … in each study."""

    seq: int
    kind: str
    data: dict[str, Any]
    created_at: float


@dataclass(frozen=True)
class Job:
    """A piece of desk work. See `db/models.py` for the fields."""

    id: int
    kind: str
    study_id: int | None
    state: str
    content: dict[str, Any]
    result: dict[str, Any] | None
    problem: dict[str, Any] | None
    attempts: int
    created_at: float
    finished_at: float | None


@dataclass(frozen=True)
class JobLease:
    """The right to end one job, until it expires or is taken away."""

    job: Job
    token: str


@dataclass(frozen=True)
class ApiKey:
    """An API key without its secret. See `db/models.py` for the fields."""

    id: int
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    revoked_at: float | None


@dataclass(frozen=True)
class Process:
    """A process of the service, as it last said of itself."""

    name: str
    role: str
    host: str
    pid: int
    started_at: float
    seen_at: float
    detail: dict[str, Any]
