"""What the API shows, as pydantic models: they make the OpenAPI document and what clients are generated from."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, Strict

from api.forms import FORMS, FULL
from api.rest.problems import Problem
from search.stopping.ended import Ended

StudyState = Literal["running", "paused", "cancelled", "finished", "failed"]
TrialState = Literal["open", "complete", "pruned", "infeasible", "failed", "cancelled"]
JobState = Literal["queued", "leased", "done", "failed"]
Item = TypeVar("Item")
_FORM = "full: a checkpoint; lora: a LoRA of the base, for peft; else the codec of a compressed delta of the base"


class Page(BaseModel, Generic[Item]):
    """A part of a list. `next` is the cursor of the part that follows, if there is one."""

    items: list[Item]
    next: str | None


class TrialCounts(BaseModel):
    """Number of trials by state."""

    open: int = 0
    complete: int = 0
    pruned: int = 0
    infeasible: int = 0
    failed: int = 0
    cancelled: int = 0


class BestTrial(BaseModel):
    """The complete trial with the highest value on the search documents, of those that meet the constraints best."""

    number: int
    value: float
    origin: str


class StudySummary(BaseModel):
    """A study in short. `why` says why it failed or was cancelled."""

    name: str
    state: StudyState
    why: str | None
    phase: str | None = Field(
        description="of a running study: searching, rescoring, originals, explaining, holdout or judging"
    )
    trials: TrialCounts
    trials_asked: int | None = Field(description="null: as many as its budget allows")
    used_up: float = Field(description="how much of the nearest of its limits (trials, budget) is used up, at most 1")
    ended: Ended | None = Field(description="why its search is over; null: it goes on, or an earlier version ended it")
    best: BestTrial | None
    created_at: datetime
    finished_at: datetime | None


class Packing(BaseModel):
    """What packs a study's experts."""

    codec: str
    settings: dict[str, float]


class CompressedExperts(BaseModel):
    """How far a study's experts are compressed: bytes of base and experts, so and as they are."""

    by: Packing
    bits_per_parameter: float
    bytes: int
    whole_bytes: int


class PlanView(BaseModel):
    """What `auto` decided for a study: its methods, its ranges of layers, and why."""

    methods: list[str]
    layers: int
    why: list[str]


class EvaluationProgress(BaseModel):
    """How far a running evaluation is; the rate is null until it is known."""

    documents_done: int
    documents_total: int
    tokens_per_second: float | None
    artefacts_done: int | None = Field(description="while what its recipe looks at is measured; else null")
    artefacts_total: int | None = Field(description="how many were missing when its measuring began")


class RunningEvaluation(BaseModel):
    """A recipe that a worker is scoring now, for a trial or (part holdout) for the verdict."""

    evaluation: int
    trial: int | None
    part: Literal["search", "holdout"]
    rung: int = Field(description="which share of the documents, the smallest is 0")
    worker: str | None
    attempt: int
    progress: EvaluationProgress | None = Field(description="null until something is measured or scored")


class Worker(BaseModel):
    """A worker process that was heard of lately."""

    name: str
    host: str
    pid: int
    pools: list[str]
    device: str | None
    device_name: str | None
    evaluation: int | None = Field(description="what it is scoring")
    memory_used: int | None = Field(description="bytes of the device")
    memory_total: int | None = Field(description="bytes of the device")
    stopping: bool = Field(description="it finishes or hands back what it has and takes nothing more")
    started_at: datetime
    seen_at: datetime


class StudyDetail(StudySummary):
    """A study, with what is being done for it now."""

    spec: dict[str, Any] = Field(description="the study file as it was validated, folders absolute")
    workers: list[Worker] = Field(description="live workers that take work of this study's pool")
    running: list[RunningEvaluation]
    compressed: CompressedExperts | None = Field(description="how its experts are kept; null: as they are")
    plan: PlanView | None = Field(description="what `auto` searches; null: another strategy")


class TrialStep(BaseModel):
    """What a trial was worth on one rung, a share of the documents."""

    rung: int
    documents: int
    value: float


class TrialSummary(BaseModel):
    """A trial in short. `why` says why it has no value."""

    number: int
    origin: str = Field(description="expert:NAME, uniform_soup, default:METHOD, originals:TRIAL, or a strategy's name")
    state: TrialState
    value: float | None
    why: str | None
    rung: int = Field(description="how far it came: the last share of the documents on which it was scored")
    steps: list[TrialStep] = Field(description="its value on each rung that decided whether it goes on")
    estimate: float | None = Field(description="of a pruned trial: its value over all documents, as far as is known")
    constraints: list[float] | None = Field(description="how far beyond each of the study's constraints; 0 is met")
    params: dict[str, Any] | None = Field(description="its point in the search space")
    created_at: datetime
    told_at: datetime | None


class TaskResult(BaseModel):
    """One task's score on the search documents, as lm-eval computes it."""

    metric: str
    value: float
    stderr: float | None
    documents: int


class TrialDetail(TrialSummary):
    """A trial, with its recipe and what scoring it gave and took."""

    recipe: dict[str, Any] | None
    recipe_digest: str | None
    scores: dict[str, TaskResult] | None = Field(description="by task, once scored")
    documents_reused: int | None = Field(description="documents not scored, for their items were known already")
    tokens: int | None
    build_seconds: float | None
    score_seconds: float | None
    device: str | None
    attempts: int | None = Field(description="how often scoring was begun")
    worker: str | None = Field(description="who scores it now")
    progress: EvaluationProgress | None


class ExportedFile(BaseModel):
    """One file of an export. `url` is relative to the service."""

    name: str
    bytes: int
    sha256: str
    url: str


class Export(BaseModel):
    """The writing of a trial's merge in a form; its files once it is done, a problem if it failed."""

    id: int
    study: str
    trial: int
    form: str = Field(serialization_alias="as", description=_FORM)
    settings: dict[str, float] = Field(description="of the form, as they were asked for")
    state: JobState
    files: list[ExportedFile]
    problem: Problem | None
    created_at: datetime
    finished_at: datetime | None


class ExportRequest(BaseModel, extra="forbid"):
    """What to export: the trial of that number, or without one the verdict's winner; and in which form."""

    trial: int | None = Field(default=None, ge=0, le=2**31 - 1, strict=True)
    form: str = Field(default=FULL, alias="as", description=_FORM, json_schema_extra={"enum": list(FORMS)})
    settings: dict[str, Annotated[float, Strict()]] = Field(
        default_factory=dict, description="of the form, numbers by name; the others have their defaults"
    )


class Submission(BaseModel):
    """A submitted study while it is checked: then the name of the study, or the problem."""

    id: int
    state: JobState
    study: str | None
    problem: Problem | None
    created_at: datetime
    finished_at: datetime | None


class MethodParameter(BaseModel):
    """A hyper-parameter of a merge method. Null bounds mean that there is none."""

    name: str
    doc: str
    kind: Literal["float", "int", "bool", "choice"]
    default: float | bool | str
    neutral: float | bool | str
    low: float = Field(description="of the range that is searched by default")
    high: float
    minimum: float | None = Field(description="of the values that make sense at all")
    maximum: float | None
    log: bool
    choices: list[float | bool | str]
    scope: Literal["study", "group"]
    stage: Literal["measure", "prepare", "combine"] = Field(
        description="what a new value costs: passes over the search documents, new selections, or one pass"
    )
    searched: bool
    per_expert: bool = Field(description="a recipe may give it a value for each expert")


class MergeMethod(BaseModel):
    """A merge method, as the catalog declares it."""

    name: str
    aliases: list[str]
    summary: str
    formula: str
    reading: str = Field(description="which of the published readings it is; empty where they agree")
    paper: str
    cost: str
    needs: list[str]
    artefacts: list[str] = Field(description="what is measured of the experts on search documents, once a suite")
    fewest_experts: int
    most_experts: int
    needs_base: bool
    weighting: str
    recommended: bool = Field(description="searched when a study names no methods")
    weight: MethodParameter | None
    parameters: list[MethodParameter]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that the service needs."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Whether the service can work. Degraded: it can, though later than it should."""

    status: Literal["ready", "degraded", "unready"]
    checks: dict[str, Check]
