"""Makes a trial's numbers of its scores: the objective, the constraints, and who is best in the end.

Some objectives compare: with the base and the experts (`needs`, told by `refer`), or with the trials so far (told
by `learn`). Told the same in the same order, a judge says the same: a controller that starts again replays it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from db.records import Trial
from evaluation.constraints import BASE, excess
from evaluation.objective import RANKED, RELATIVE, Scale, anchored, objective, oriented, scales_between
from evaluation.ranking import KEMENY_MOST, Floats, borda, borda_documents, kemeny, knee_marks, pareto_layers
from evaluation.result import TaskScore
from evaluation.statistics import Aggregation, Measure, aggregations_of, document_values
from merging.errors import InvalidStudy
from search.starts.start import expert_origin
from search.study import StudySpec

Scores = Sequence[TaskScore]


class Judge:
    """The objective and the constraints of one study.

    Args:
        experts: their names.

    Attributes:
        needs: origins of the trials (`base`, `expert:NAME`) whose scores on all search documents must be told by
            `refer` before anything else is asked.
        relative: whether trials are compared with each other; then `learn` must be told of each complete trial, and
            `ranking` needs the scores.
    """

    def __init__(self, spec: StudySpec, experts: Sequence[str]) -> None:
        self._kind, self._constraints = spec.objective, spec.constraints
        self._weights = {t.name: t.weight for t in spec.evaluation.tasks}
        self._experts = tuple(expert_origin(name) for name in experts)
        self.needs = self._needed()
        self.relative = self._kind in RELATIVE
        self._references: dict[str, tuple[TaskScore, ...]] = {}
        self._population: list[_System] = []

    def _needed(self) -> tuple[str, ...]:
        normal = (BASE, *self._experts) if self._kind == "normalized_mean" else ()
        return tuple(dict.fromkeys([*normal, *(origin_of(c.reference) for c in self._constraints if c.reference)]))

    @property
    def ready(self) -> bool:
        """Whether everything needed was told."""
        return all(origin in self._references for origin in self.needs)

    def refer(self, origin: str, scores: Scores) -> None:
        """Tell what a reference has; others than those needed are ignored."""
        if origin in self.needs:
            self._references[origin] = tuple(scores)

    def learn(self, scores: Scores) -> None:
        """Tell of a trial that was told complete: those after it are compared with it."""
        if self._kind in RANKED:
            self._population.append(self._system(scores))

    def value(self, scores: Scores) -> float:
        """The number for strategies; higher is better.

        Of the kinds by rank, the share of the complete trials so far (and of itself, as a tie) that it beats, as in
        `ranking.borda`; of `pareto`, the weighted mean.

        Raises:
            InvalidStudy: `borda_documents`, and a task has no value of a single document.
        """
        if self._kind in RANKED:
            return float(self._shares([*self._population, self._system(scores)])[-1])
        return objective(self._kind, scores, self._weights, self._scales())

    def values(self, scores: Scores) -> tuple[float, ...]:
        """Of `pareto`, one number a task that counts, in the study's order, larger being better; else the value."""
        if self._kind != "pareto":
            return (self.value(scores),)
        found = {s.task: float(oriented(s.value, s)) for s in scores}
        return tuple(found[task] for task, weight in self._weights.items() if weight > 0)

    def constraints(self, scores: Scores) -> tuple[float, ...]:
        """By how much each constraint is broken; met where 0 or less.

        Raises:
            InvalidStudy: negative flips are asked of documents that are not right or wrong.
        """
        references = {origin.removeprefix(expert_origin("")): known for origin, known in self._references.items()}
        return tuple(
            excess(asked, f"constraints[{i}]", scores, references) for i, asked in enumerate(self._constraints)
        )

    def measure(self, aggregations: Mapping[str, Aggregation]) -> Measure:
        """The objective for intervals and tests; of the kinds that compare trials, the plain weighted mean.

        Args:
            aggregations: of the tasks; where no lm-eval is at hand, `aggregations_of` their scores.
        """
        kind = "mean" if self.relative else self._kind
        return Measure(kind, self._weights, aggregations, self._scales())

    def ranking(self, trials: Sequence[Trial], scores: Mapping[int, Scores]) -> list[Trial]:
        """The complete trials, best first: those that meet the constraints, then the rest by how little they do not.

        Of equals the earliest is first, so that a baseline precedes its copy. Where trials are compared with each
        other, a recipe that was tried again counts once: copies would weigh on everybody's rank.

        Args:
            scores: of the complete trials, by number; not looked at unless `relative`.
        """
        complete = sorted((t for t in trials if t.value is not None), key=lambda t: t.number)
        if not self.relative:
            return self._ordered(complete, scores)
        alike: dict[int | None, list[Trial]] = {}
        for trial in complete:
            alike.setdefault(trial.evaluation_id, []).append(trial)
        firsts = self._ordered([copies[0] for copies in alike.values()], scores)
        return [copy for trial in firsts for copy in alike[trial.evaluation_id]]

    def _ordered(self, complete: Sequence[Trial], scores: Mapping[int, Scores]) -> list[Trial]:
        marks = self._marks(complete, scores)
        ranked = sorted(complete, key=lambda t: (violation(t), -marks[t.number], t.number))
        if self._kind not in ("kemeny", "pareto"):
            return ranked
        meeting = [t for t in ranked if violation(t) == 0]
        best = self._kemeny(meeting, scores) if self._kind == "kemeny" else self._by_fronts(meeting, complete, scores)
        return [*best, *ranked[len(meeting) :]]

    def front(self, trials: Sequence[Trial], scores: Mapping[int, Scores]) -> list[Trial]:
        """Of `pareto`, the trials of the front, the knee first, of each recipe the earliest; else none.

        Arguments as of `ranking`.
        """
        if self._kind != "pareto":
            return []
        complete = sorted((t for t in trials if t.value is not None), key=lambda t: -t.number)
        meeting = list({t.evaluation_id: t for t in complete if violation(t) == 0}.values())
        if not meeting:
            return []
        layers = pareto_layers(_table([self._system(scores[t.number]) for t in meeting]))
        edge = [t for t, layer in zip(meeting, layers, strict=True) if layer == 0]
        return self._by_fronts(edge, complete, scores)

    def _scales(self) -> dict[str, Scale]:
        if self._kind != "normalized_mean":
            return {}
        assert self.ready, "a normalised mean needs the base and the experts"
        return scales_between(self._references[BASE], [self._references[name] for name in self._experts])

    def _marks(self, trials: Sequence[Trial], scores: Mapping[int, Scores]) -> dict[int, float]:
        if self._kind in RANKED and trials:
            shares = self._shares([self._system(scores[t.number]) for t in trials])
            return {t.number: float(share) for t, share in zip(trials, shares, strict=True)}
        return {t.number: t.value or 0.0 for t in trials}

    def _shares(self, systems: Sequence["_System"]) -> Floats:
        weights = [self._weights[task] for task in systems[0].values]
        if self._kind != "borda_documents":
            return borda(_table(systems), weights)
        tasks = [_common([system.documents[task] for system in systems]) for task in systems[0].values]
        return borda_documents(tasks, weights)

    def _system(self, scores: Scores) -> "_System":
        counting = self._counting(scores)
        values = {s.task: float(oriented(s.value, s)) for s in counting}
        alone = {s.task: _documents_of(s) for s in counting} if self._kind == "borda_documents" else {}
        return _System(values, alone)

    def _kemeny(self, ranked: Sequence[Trial], scores: Mapping[int, Scores]) -> list[Trial]:
        top = sorted(ranked[:KEMENY_MOST], key=lambda t: t.number)
        if not top:
            return []
        systems = [self._system(scores[t.number]) for t in top]
        order = kemeny(_table(systems), [self._weights[task] for task in systems[0].values])
        return [*(top[i] for i in order), *ranked[KEMENY_MOST:]]

    def _by_fronts(self, trials: Sequence[Trial], among: Sequence[Trial], scores: Mapping[int, Scores]) -> list[Trial]:
        """Front by front, each with its knee first.

        Args:
            among: all complete trials: the base and the experts, if they are there, say how far apart values are.
        """
        if not trials:
            return []
        systems = [self._system(scores[t.number]) for t in trials]
        table, weights = _table(systems), [self._weights[task] for task in systems[0].values]
        anchors = self._anchors(among, scores)
        scales = [anchors[task] for task in systems[0].values] if anchors else None
        layers = pareto_layers(table)
        marks = np.empty(len(trials))
        for layer in range(int(layers.max()) + 1):
            marks[layers == layer] = knee_marks(table[:, layers == layer], weights, scales)
        order = sorted(range(len(trials)), key=lambda i: (layers[i], -marks[i], trials[i].number))
        return [trials[i] for i in order]

    def _anchors(self, complete: Sequence[Trial], scores: Mapping[int, Scores]) -> dict[str, Scale]:
        """Scales by the base and the experts; none where one of them is not among the trials."""
        known = {t.origin: scores[t.number] for t in complete if t.origin in (BASE, *self._experts)}
        if BASE not in known or len(known) <= len(self._experts):
            return {}
        return anchored(known[BASE], [known[name] for name in self._experts])

    def _counting(self, scores: Scores) -> list[TaskScore]:
        return [s for s in scores if self._weights.get(s.task, 0.0) > 0]


def violation(trial: Trial) -> float:
    """By how much a trial breaks its constraints, added up; 0: it meets them all."""
    return sum(max(0.0, broken) for broken in trial.constraints or ())


def origin_of(reference: str) -> str:
    """The origin of the trial that a constraint compares with."""
    return BASE if reference == BASE else expert_origin(reference)


@dataclass(frozen=True)
class _System:
    """What comparing a trial needs of its scores, of the tasks that count.

    Attributes:
        values: larger being better.
        documents: of each task the `doc_id`s, and what each would score alone; empty unless documents are ranked.
    """

    values: dict[str, float]
    documents: dict[str, tuple[tuple[int, ...], Floats]]


def _table(systems: Sequence[_System]) -> Floats:
    """[tasks, systems]."""
    return np.array([[system.values[task] for system in systems] for task in systems[0].values])


def _documents_of(score: TaskScore) -> tuple[tuple[int, ...], Floats]:
    known = aggregations_of([score])
    values = document_values(Measure("mean", {score.task: 1.0}, known), score) if known else None
    if values is None:
        problem = f"ranks documents, and {score.task} ({score.metric}) has no value of a single one"
        raise InvalidStudy("objective", "borda_documents", problem, "use borda, or another metric")
    return score.documents, values


def _common(systems: Sequence[tuple[tuple[int, ...], Floats]]) -> Floats:
    """[documents that all have, systems]."""
    shared = sorted(set.intersection(*(set(documents) for documents in {ids for ids, _ in systems})))
    if all(len(ids) == len(shared) for ids, _ in systems):
        return np.stack([values for _, values in systems], axis=1)
    return np.stack([values[np.isin(ids, shared)] for ids, values in systems], axis=1)
