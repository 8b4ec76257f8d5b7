"""The verdict: the winner and the baselines on documents that no search decision has read.

The winner was picked as the best of many on the search documents, so its score there flatters it. On the
holdout every finalist is scored once, with a stratified bootstrap interval, and the winner is compared with
each baseline by a paired permutation test on the same documents.
"""

from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from db.records import Study, Trial
from db.store import Store
from evaluation.objective import Kind
from evaluation.result import Scored, TaskScore
from evaluation.statistics import Aggregation, Measure, bootstrap, compare
from merging.errors import MergesearchError
from search.dispatch import Dispatcher
from search.seeds import derive
from search.starts import UNIFORM, expert_origin

SCHEMA = "mergesearch/verdict/v1"


class HoldoutFailed(MergesearchError):
    """A finalist could not be scored on the holdout."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class TaskPair(_Frozen):
    """One task's value on the search documents and on the holdout, with lm-eval's standard errors."""

    metric: str
    search: float
    search_stderr: float | None
    holdout: float
    holdout_stderr: float | None


class Against(_Frozen):
    """The winner minus this candidate on the holdout: 95 % interval, two-sided p of the paired test."""

    difference: float
    low: float
    high: float
    p_value: float


class Finalist(_Frozen):
    """One candidate in the report.

    Attributes:
        low, high: 95 % interval of `holdout`.
        winner_minus_this: None for the winner itself.
    """

    label: str
    trial: int
    recipe_digest: str
    search: float
    holdout: float
    low: float
    high: float
    tasks: dict[str, TaskPair]
    winner_minus_this: Against | None


class Verdict(_Frozen):
    """The final report of a study.

    Attributes:
        finalists: the experts, the uniform soup, then the winner.
        winner: its trial number; it may be a baseline.
        best_expert: trial number of the expert with the best score on the search documents.
        documents: number of documents by part.
        exhausted: the strategy had nothing left to propose, so that fewer trials were run than asked for.
    """

    schema_: str = Field(alias="schema", default=SCHEMA)
    objective: str
    finalists: tuple[Finalist, ...]
    winner: int
    best_expert: int | None
    documents: dict[str, int]
    trials: int
    exhausted: bool = False

    def of(self, trial: int) -> Finalist:
        """The finalist with that trial number."""
        return next(f for f in self.finalists if f.trial == trial)


def winner_of(trials: Sequence[Trial]) -> Trial:
    """The best complete trial; of equals the earliest, so that a baseline is preferred to its copy."""
    complete = [t for t in trials if t.value is not None]
    return max(complete, key=lambda t: (t.value or 0.0, -t.number))


def finalists_of(trials: Sequence[Trial], experts: Sequence[str]) -> tuple[Trial, ...]:
    """The trials the report compares: complete baselines in order, then the winner if it is none of them."""
    origins = [*(expert_origin(name) for name in experts), UNIFORM]
    baselines = [t for origin in origins for t in trials if t.origin == origin and t.value is not None]
    winner = winner_of(trials)
    return (*baselines, *([] if winner in baselines else [winner]))


def measure_holdout(store: Store, study: Study, finalists: Sequence[Trial], dispatcher: Dispatcher) -> None:
    """Have every finalist scored on the holdout, and wait for it. What failed in an earlier run is tried again.

    Raises:
        HoldoutFailed: one of them could not be.
    """
    store.evaluations.retry_failed(study.id, "holdout")
    wanted: list[int] = []
    for trial in finalists:
        assert trial.evaluation_id is not None, "a complete trial was evaluated"
        searched = store.evaluations.get(trial.evaluation_id)
        held, _ = store.evaluations.want(study.id, searched.recipe, searched.recipe_digest, "holdout")
        wanted.append(held.id)
    dispatcher.announce(wanted)
    while store.evaluations.unfinished(study.id):
        dispatcher.wait(1.0)
    for evaluation_id, trial in zip(wanted, finalists, strict=True):
        outcome = store.evaluations.get(evaluation_id).outcome
        if not isinstance(outcome, Scored):
            raise HoldoutFailed(f"trial {trial.number} ({trial.origin}) could not be scored on the holdout: {outcome}")


def reach_verdict(
    store: Store,
    study: Study,
    trials: Sequence[Trial],
    finalists: Sequence[Trial],
    measure: tuple[Kind, Mapping[str, float], Mapping[str, Aggregation]],
) -> Verdict:
    """Compare the finalists, all of which have been scored on the holdout.

    Args:
        measure: objective, weight of each task, aggregation of each task.
    """
    kind, weights, aggregations = measure
    yardstick = Measure(kind, weights, aggregations)
    winner = winner_of(trials)
    scores = {t.number: _scores(store, study, t) for t in finalists}
    rows = tuple(
        _finalist(yardstick, t, scores[t.number], winner, scores[winner.number][1], study.spec["search"]["seed"])
        for t in finalists
    )
    alone = [t for t in finalists if t.origin.startswith(expert_origin(""))]
    some = scores[winner.number]
    return Verdict(
        objective=kind,
        finalists=rows,
        winner=winner.number,
        best_expert=winner_of(alone).number if alone else None,
        documents={
            part: sum(len(s.documents) for s in task_scores)
            for part, task_scores in zip(("search", "holdout"), some[:2], strict=True)
        },
        trials=len(trials),
    )


_Scores = tuple[tuple[TaskScore, ...], tuple[TaskScore, ...], str]


def _scores(store: Store, study: Study, trial: Trial) -> _Scores:
    """(scores on the search documents, on the holdout, recipe digest)."""
    assert trial.evaluation_id is not None
    searched = store.evaluations.get(trial.evaluation_id)
    held, _ = store.evaluations.want(study.id, searched.recipe, searched.recipe_digest, "holdout")
    assert isinstance(searched.outcome, Scored) and isinstance(held.outcome, Scored)
    return searched.outcome.scores, held.outcome.scores, searched.recipe_digest


def _finalist(
    yardstick: Measure, trial: Trial, scores: _Scores, winner: Trial, best: tuple[TaskScore, ...], seed: int
) -> Finalist:
    searched, held, digest = scores
    interval = bootstrap(yardstick, held, seed=derive(seed, "bootstrap"))
    against = None
    if trial.number != winner.number:
        found = compare(yardstick, best, held, seed=derive(seed, "compare", trial.number))
        against = Against(
            difference=found.interval.value, low=found.interval.low, high=found.interval.high, p_value=found.p
        )
    held_by_task = {s.task: s for s in held}
    return Finalist(
        label=trial.origin,
        trial=trial.number,
        recipe_digest=digest,
        search=trial.value or 0.0,
        holdout=interval.value,
        low=interval.low,
        high=interval.high,
        tasks={s.task: _pair(s, held_by_task[s.task]) for s in sorted(searched, key=_place(yardstick))},
        winner_minus_this=against,
    )


def _place(yardstick: Measure) -> Callable[[TaskScore], int]:
    """Sorts tasks as the study lists them."""
    order = list(yardstick.weights)
    return lambda score: order.index(score.task)


def _pair(searched: TaskScore, held: TaskScore) -> TaskPair:
    return TaskPair(
        metric=searched.metric,
        search=searched.value,
        search_stderr=searched.stderr,
        holdout=held.value,
        holdout_stderr=held.stderr,
    )
