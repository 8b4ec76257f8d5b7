"""The verdict: the winner and the baselines on documents that no search decision has read.

The winner was picked as the best of many on the search documents, so its score there flatters it. On the
holdout every finalist is scored once, with a stratified bootstrap interval, and the winner is compared with
each baseline by a paired permutation test on the same documents.
"""

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from db.records import Study, Trial
from db.store import Store
from evaluation.objective import Kind
from evaluation.result import Scored, TaskScore
from evaluation.statistics import Aggregation, Measure, bootstrap, compare
from search.finalists import Finalists, holdout_evaluation, ranking
from search.seeds import derive
from search.starts import expert_origin

SCHEMA = "mergesearch/verdict/v1"


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
        missing: who should stand among the finalists and could not be scored, with the reason.
    """

    schema_: str = Field(alias="schema", default=SCHEMA)
    objective: str
    finalists: tuple[Finalist, ...]
    winner: int
    best_expert: int | None
    documents: dict[str, int]
    trials: int
    exhausted: bool = False
    missing: dict[str, str] = {}

    def of(self, trial: int) -> Finalist:
        """The finalist with that trial number."""
        return next(f for f in self.finalists if f.trial == trial)


def reach_verdict(
    store: Store,
    study: Study,
    finalists: Finalists,
    measure: tuple[Kind, Mapping[str, float], Mapping[str, Aggregation]],
    trials: int,
) -> Verdict:
    """Compare the finalists.

    Args:
        measure: objective, weight of each task, aggregation of each task.
        trials: how many the study had.
    """
    yardstick = Measure(*measure)
    seed, winner = study.spec["search"]["seed"], finalists.winner
    scores = {t.number: _scores(store, study, t) for t in finalists.compared}
    searched, held, _ = scores[winner.number]
    alone = [t for t in finalists.compared if t.origin.startswith(expert_origin(""))]
    return Verdict(
        objective=yardstick.kind,
        finalists=tuple(_finalist(yardstick, t, scores[t.number], winner, held, seed) for t in finalists.compared),
        winner=winner.number,
        best_expert=ranking(alone)[0].number if alone else None,
        documents={
            "search": sum(len(s.documents) for s in searched),
            "holdout": sum(len(s.documents) for s in held),
        },
        trials=trials,
        exhausted=trials < study.spec["search"]["trials"],
        missing=finalists.missing,
    )


_Scores = tuple[tuple[TaskScore, ...], tuple[TaskScore, ...], str]


def _scores(store: Store, study: Study, trial: Trial) -> _Scores:
    """(scores on the search documents, on the holdout, recipe digest)."""
    assert trial.evaluation_id is not None
    searched = store.evaluations.get(trial.evaluation_id)
    held = holdout_evaluation(store, study, trial)
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
