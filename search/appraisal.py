"""Reaches the verdict on a study: every finalist once on the holdout, and what the search made of its own score.

Each finalist has a stratified bootstrap interval, the winner is compared with each baseline by paired tests on the
same documents, and what picking the best of many was worth is estimated beside what it turned out to be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db.records import DocumentSet, Study, Trial
from db.store import Store
from evaluation.constraints import ConstraintSpec, excess
from evaluation.objective import objective
from evaluation.ranking import spearman
from evaluation.result import Part, Scored, TaskScore
from evaluation.selection import Selection, selection
from evaluation.spec import PROXY
from evaluation.statistics import Aggregation, Measure, bootstrap, compare
from search.explain.reading import explanation_of
from search.finalists import Finalists, holdout_evaluation
from search.fronts import front_point
from search.judge import Judge, origin_of, violation
from search.seeds import derive
from search.standings import all_scores, scores_of
from search.starts.report import starts_of
from search.starts.start import expert_origin
from search.stopping.ended import Ended
from search.study import StudySpec
from search.twins import searched
from search.verdict import Against, Compressed, Finalist, Kept, ProxyTrust, TaskPair, Verdict

_MOST_ITEMS = 4_000_000  # items of all candidates that are held at once to ask how far the best was flattered
_AT_ONCE = 10_000  # rows asked for in one query
Scores = tuple[TaskScore, ...]


@dataclass(frozen=True)
class _Found:
    """What a finalist has on both parts."""

    searched: Scores
    held: Scores
    digest: str


# long because it fills one record
def reach_verdict(
    store: Store,
    study: Study,
    finalists: Finalists,
    aggregations: Mapping[str, Aggregation],
    trials: Sequence[Trial],
) -> Verdict:
    """Compare the finalists.

    Args:
        aggregations: of each task; `Suite.aggregations()` has them.
        trials: all trials of the study, every one told.
    """
    spec = StudySpec.model_validate(study.spec)
    judge = _informed(store, spec, trials)
    measure, winner = judge.measure(aggregations), finalists.winner
    found = {t.number: _found(store, study, t) for t in finalists.compared}
    best = found[winner.number]
    complete = _complete_scores(store, trials) if judge.relative else {}
    alone = {t.number for t in finalists.compared if t.origin.startswith(expert_origin(""))}
    best_won = not judge.relative and finalists.passed_over is None
    picked = _selection(store, measure, trials, winner, spec.search.seed) if best_won else None
    spent = documents_spent(trials, store.studies.documents(study.id))
    end = store.studies.by_id(study.id).ended  # the caller's may be of before the search
    ended = None if end is None else Ended.model_validate(end)
    compared = tuple(_finalist(measure, t, found[t.number], winner, best.held, spec) for t in finalists.compared)
    ranking = judge.ranking(trials, complete)

    def worth(trial: Trial) -> float:
        return _search_value(measure, complete[trial.number]) if judge.relative else trial.value or 0.0

    begun = starts_of(trials, ranking, spec.search.strategy, _count(best.searched), worth)
    return Verdict(
        objective=spec.objective,
        finalists=compared,
        winner=winner.number,
        best_expert=next((t.number for t in ranking if t.number in alone), None),
        documents={"search": _count(best.searched), "holdout": _count(best.held)},
        trials=len(searched(trials)),
        exhausted=ended is not None and ended.reason == "exhausted",
        ended=ended,
        missing=finalists.missing,
        measured_as="the weighted mean of the tasks" if judge.relative else None,
        candidates=len(_rivals(trials, winner)),
        optimism=None if picked is None else picked.optimism,
        corrected=None if picked is None else _search_value(measure, best.searched) - picked.optimism,
        holdout_reads=max(1, store.studies.holdout_readings(study.id)),
        pruned=sum(t.state == "pruned" for t in trials),
        documents_scored=spent[0],
        documents_full=spent[1],
        constraints=_kept(spec, judge, finalists, found),
        proxy=_proxy(store, spec, trials, {n: _search_value(measure, its) for n, its in complete.items()}),
        front=tuple(front_point(t, complete[t.number]) for t in judge.front(trials, complete)),
        compressed=_compressed(measure, study, finalists, found),
        passed_over=finalists.passed_over,
        best_start=next((start for start in begun[:1] if start.full), None),
        starts=begun,
        explanation=explanation_of(store, study, winner, trials, measure, aggregations, worth),
    )


def documents_spent(trials: Sequence[Trial], documents: Mapping[tuple[str, Part], DocumentSet]) -> tuple[int, int]:
    """The search documents that were scored for these trials, and what scoring each in full would have come to.

    A recipe that two trials tried was scored once. What a proxy looks at is not counted.

    Args:
        documents: of each task and part, as the store has them.
    """
    sets = [found for (task, part), found in documents.items() if part == "search" and task != PROXY]
    rungs = {t.evaluation_id: t.rung for t in trials if t.state in ("complete", "pruned") and t.evaluation_id}
    scored = sum(found.sizes[min(rung, len(found.sizes) - 1)] for rung in rungs.values() for found in sets)
    return scored, len(rungs) * sum(found.sizes[-1] for found in sets)


def _informed(store: Store, spec: StudySpec, trials: Sequence[Trial]) -> Judge:
    """A judge that knows its references."""
    judge = Judge(spec, [e.name for e in spec.models.experts])
    for trial in trials:
        if trial.origin in judge.needs and trial.value is not None:
            judge.refer(trial.origin, scores_of(store, trial))
    return judge


def _complete_scores(store: Store, trials: Sequence[Trial]) -> dict[int, Scores]:
    return {t.number: scores_of(store, t) for t in trials if t.value is not None}


def _found(store: Store, study: Study, trial: Trial) -> _Found:
    held = holdout_evaluation(store, study, trial)
    assert isinstance(held.outcome, Scored)
    return _Found(scores_of(store, trial), held.outcome.scores, held.recipe_digest)


def _count(scores: Scores) -> int:
    return sum(len(s.documents) for s in scores if s.task != PROXY)


def _rivals(trials: Sequence[Trial], winner: Trial) -> list[Trial]:
    """Whom the winner was picked of: a trial for each recipe that keeps the constraints as well as it, best first."""
    complete = sorted((t for t in trials if t.value is not None), key=lambda t: (-(t.value or 0.0), t.number))
    unique: dict[int | None, Trial] = {}
    for trial in complete:
        if violation(trial) <= violation(winner):
            unique.setdefault(trial.evaluation_id, trial)
    return list(unique.values())


def _selection(store: Store, measure: Measure, trials: Sequence[Trial], winner: Trial, seed: int) -> Selection:
    """How far the best was flattered; of more candidates than fit, the best."""
    documents = _count(scores_of(store, winner))
    rivals = _rivals(trials, winner)[: max(2, _MOST_ITEMS // documents)]
    return selection(measure, [scores_of(store, t) for t in rivals], seed=derive(seed, "selection"))


def _search_value(measure: Measure, scores: Scores) -> float:
    return objective(measure.kind, scores, measure.weights, measure.scales)


def _finalist(measure: Measure, trial: Trial, found: _Found, winner: Trial, best: Scores, spec: StudySpec) -> Finalist:
    seed = spec.search.seed
    interval = bootstrap(measure, found.held, seed=derive(seed, "bootstrap"))
    against = None
    if trial.number != winner.number:
        against = _against(measure, best, found.held, derive(seed, "compare", trial.number))
    searched, held = ({s.task: s for s in scores} for scores in (found.searched, found.held))
    value = _search_value(measure, found.searched)
    return Finalist(
        label=trial.origin,
        trial=trial.number,
        recipe_digest=found.digest,
        search=value,
        holdout=interval.value,
        low=interval.low,
        high=interval.high,
        tasks={t.name: _pair(searched[t.name], held[t.name]) for t in spec.evaluation.tasks},
        winner_minus_this=against,
        shrinkage=value - interval.value,
    )


def _against(measure: Measure, best: Scores, held: Scores, seed: int) -> Against:
    found = compare(measure, best, held, seed=seed)
    return Against(
        difference=found.interval.value,
        low=found.interval.low,
        high=found.interval.high,
        p_value=found.p,
        mcnemar=found.mcnemar,
        wilcoxon=found.wilcoxon,
    )


def _pair(searched: TaskScore, held: TaskScore) -> TaskPair:
    return TaskPair(
        metric=searched.metric,
        search=searched.value,
        search_stderr=searched.stderr,
        holdout=held.value,
        holdout_stderr=held.stderr,
    )


def _compressed(measure: Measure, study: Study, finalists: Finalists, found: Mapping[int, _Found]) -> Compressed | None:
    """What compressing the experts cost, where that was done: the same recipe without it, on the same documents."""
    packed = study.setup.get("compressed")
    if packed is None:
        return None
    sizes = {key: packed[key] for key in ("bytes", "whole_bytes", "bits_per_parameter")}
    told = Compressed.model_validate(packed["by"] | sizes)
    if not finalists.pair:
        return told
    numbers = tuple(t.number for t in finalists.pair)
    small, whole = (found[number] for number in numbers)
    seed = derive(study.spec["search"]["seed"], "compressed", *numbers)
    return told.model_copy(
        update={
            "pair": numbers,
            "search_cost": _search_value(measure, whole.searched) - _search_value(measure, small.searched),
            "holdout_cost": _against(measure, whole.held, small.held, seed),
        }
    )


def _kept(spec: StudySpec, judge: Judge, finalists: Finalists, found: Mapping[int, _Found]) -> tuple[Kept, ...]:
    """How the winner keeps the constraints, on the search documents and on the holdout."""
    winner = found[finalists.winner.number]
    # by origin: an expert may be called as a strategy is
    held = {t.origin: found[t.number].held for t in finalists.compared}

    def there(index: int, asked: ConstraintSpec) -> float | None:
        if asked.reference is None:
            return excess(asked, f"constraints[{index}]", winner.held, {})
        reference = held.get(origin_of(asked.reference))
        if reference is None:
            return None
        return excess(asked, f"constraints[{index}]", winner.held, {asked.reference: reference})

    broken = judge.constraints(winner.searched)
    return tuple(
        Kept(constraint=asked.label, search=broken[i], holdout=there(i, asked))
        for i, asked in enumerate(spec.constraints)
    )


def _proxy(store: Store, spec: StudySpec, trials: Sequence[Trial], means: Mapping[int, float]) -> ProxyTrust | None:
    """How the proxy's order agrees with the objective's, over the trials that have both.

    Args:
        means: by number, what stands for the values of an objective that compares trials, since those were found at
            different times among different ones; empty: the values do.
    """
    if spec.evaluation.proxy is None:
        return None
    complete = [t for t in trials if t.value is not None and t.evaluation_id is not None]
    values, proxies, scored = [], [], None
    for start in range(0, len(complete), _AT_ONCE):
        some = complete[start : start + _AT_ONCE]
        known = store.evaluations.values([t.evaluation_id for t in some if t.evaluation_id])
        for trial in some:
            if (proxy := known.get(trial.evaluation_id or 0, {}).get(PROXY)) is not None:
                values.append(means.get(trial.number, trial.value or 0.0))
                proxies.append(proxy)
                scored = trial
    correlation = spearman(proxies, values)
    if correlation is not None and scored is not None and not _better_high(store, scored):
        correlation = -correlation
    return ProxyTrust(kind=spec.evaluation.proxy.kind, correlation=correlation, trials=len(values))


def _better_high(store: Store, trial: Trial) -> bool:
    """Whether a higher value of the proxy is the better one."""
    return all(s.higher_is_better for s in all_scores(store, trial) if s.task == PROXY)
