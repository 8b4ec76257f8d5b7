"""Studies on the zoo in one process: the real controller and store, a live model, and no workers to wait for."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import stats

from api.creating import create_or_resume
from api.embedded import judge
from api.prepared import Fingerprinted, Prepared, prepare
from db.records import Trial
from db.store import Store, open_home
from evaluation.errors import NonFiniteScore
from evaluation.live import live_tensors, load_live
from evaluation.result import Infeasible, Scored, TaskScore
from evaluation.scorer import Scorer
from evaluation.suite import Suite
from evaluation.wanted import Wanted
from merging.compression import Compression
from merging.errors import NonFiniteCandidate
from merging.models import ModelSet
from merging.recipe import Recipe
from search.appraisal import documents_spent
from search.controller import Search
from search.course import Course
from search.dispatch import InlineDispatcher
from search.opening import open_search
from search.searchspec import Prune
from search.standings import scores_of
from search.study import StudySpec, parse_study
from search.verdict import Verdict
from workers.builder import Builder
from zoo.make import Zoo
from zoo.tasks import METRICS

Scores = tuple[TaskScore, ...]
SKILLS = tuple(task for task, metric in METRICS.items() if metric != "bits_per_byte")


@dataclass(frozen=True, slots=True)
class Plan:
    """How the studies search: with a weight an expert for each of so many ranges of layers."""

    trials: int
    strategy: str = "tpe"
    layers: int = 1
    methods: tuple[str, ...] = ("task_arithmetic",)
    compress: Compression | None = None


def study_of(zoo: Zoo, policy: Prune, seed: int, plan: Plan) -> StudySpec:
    """A study of the zoo's skills; its seed is that of the split and of the sampler."""
    compress = {"compress": plan.compress.model_dump()} if plan.compress else {}
    experts = [{"path": str(p), "name": n} for n, p in zoo.experts.items()]
    content: dict[str, Any] = {
        "schema": "mergesearch/study/v1",
        "name": f"{policy}-{seed}",
        "models": {"base": str(zoo.base), "experts": experts, **compress},
        "space": {"methods": list(plan.methods), "layers": plan.layers},
        "search": {
            "strategy": plan.strategy,
            "seed": seed,
            "trials": plan.trials,
            "parallel": 1,
            "prune": policy,
            "explain": False,
        },
        "evaluation": {
            "tasks": [{"name": task, "metric": METRICS[task]} for task in SKILLS],
            "include_path": str(zoo.tasks),
            "holdout": 0.3,
        },
    }
    return parse_study(content)


class Lab:
    """Builds and scores candidates of the zoo."""

    def __init__(self, zoo: Zoo, suite: Suite, packed: Compression | None = None) -> None:
        self.models = ModelSet.open(zoo.base, zoo.experts)
        live, tokenizer = load_live(zoo.base, "cpu")
        tensors = live_tensors(live, self.models.base.names)
        self._builder = Builder(self.models, live, tokenizer, tensors, packed, None)
        self._scorer = Scorer(suite, live, tokenizer, "cpu", None)
        self.suite = suite

    def measure(self, recipe: Recipe) -> None:
        """Measures what the recipe reads of data, where it was not measured before."""
        self._builder.measure(recipe, self.suite, lambda done, total: None)

    def evaluate(self, recipe: Recipe, wanted: Wanted) -> Scored | Infeasible:
        """What a worker does."""
        began = time.perf_counter()
        try:
            self._builder.build(recipe, self.suite, lambda done, total: None)
            built = time.perf_counter()
            scores, tokens = self._scorer.score(wanted)
        except (NonFiniteCandidate, NonFiniteScore) as error:
            return Infeasible(why=str(error))
        spent = {"build_seconds": built - began, "score_seconds": time.perf_counter() - built}
        return Scored(scores=scores, tokens=tokens, device="cpu", reused=wanted.reused, **spent)

    def complete(self, recipe: Recipe, known: Scores) -> Scores:
        """A candidate's scores on all search documents, given those on some."""
        items = {s.task: dict(zip(s.documents, s.items, strict=True)) for s in known}
        outcome = self.evaluate(recipe, Wanted("search", self.suite.wanted("search").documents, items))
        assert isinstance(outcome, Scored), "it could be scored on some documents"
        return outcome.scores


@dataclass(frozen=True, slots=True)
class Stops:
    """What stopping trials did to one study; better means strictly, on all search documents.

    Attributes:
        stopped: trials stopped early that were not scored in full in the end.
        audited: those of them that were scored in full afterwards, for this count alone.
        beat_incumbent: of those, how many are better than the best complete trial at the time.
        beat_winner: of those, how many are better than the study's winner.
        best_lost: by how much the best of them is.
    """

    stopped: int
    audited: int
    beat_incumbent: int
    beat_winner: int
    best_lost: float


@dataclass(frozen=True, slots=True)
class Run:
    """One study.

    Attributes:
        documents: search documents scored for its trials.
        holdout: the winner's score there.
        seconds: from the first trial to the verdict.
    """

    policy: Prune
    seed: int
    documents: int
    search: float
    holdout: float
    seconds: float
    stops: Stops


def run_study(zoo: Zoo, policy: Prune, seed: int, plan: Plan, audit: int) -> Run:
    """A whole study in a store of its own, from its first trial to the verdict, then the audit of its stops.

    Args:
        audit: at most so many stopped trials are scored in full afterwards, drawn at random.
    """
    prepared = prepare(study_of(zoo, policy, seed, plan), Fingerprinted(None))
    lab = Lab(zoo, prepared.suite, prepared.space.compress)
    with tempfile.TemporaryDirectory() as home, closing(open_home(Path(home))) as store:
        began = time.perf_counter()
        verdict, found = search(prepared, lab, store)
        seconds = time.perf_counter() - began
        study = store.studies.get(prepared.spec.name)
        winner = verdict.of(verdict.winner)
        documents, _ = documents_spent(found, store.studies.documents(study.id))
        stops = _audit(lab, store, found, winner.search, audit, seed)
    return Run(policy, seed, documents, winner.search, winner.holdout, seconds, stops)


class Evaluates(Protocol):
    """Whoever builds and scores candidates."""

    def evaluate(self, recipe: Recipe, wanted: Wanted) -> Scored | Infeasible:
        """As `Lab.evaluate`."""
        ...


def search(prepared: Prepared, lab: Evaluates, store: Store) -> tuple[Verdict, tuple[Trial, ...]]:
    """A study from its first trial to the verdict; its trials."""
    study = create_or_resume(prepared, store)
    lead = store.leads.seize(study.id, "benchmark")
    dispatcher = InlineDispatcher(store, lab.evaluate)
    spec = prepared.spec
    space = prepared.space
    found = Search(study, spec, 1, space, *open_search(spec, space, study.setup), lambda told: None)
    finished = Course(found, lead, store, dispatcher.announce).run(dispatcher)
    return judge(prepared.suite, store, study, finished), store.trials.all(study.id)


def _audit(lab: Lab, store: Store, trials: Sequence[Trial], winner: float, most: int, seed: int) -> Stops:
    """Score what was stopped in full, and count what should not have been."""
    stopped = [t for t in trials if t.state == "pruned"]
    order = np.random.default_rng(seed).permutation(len(stopped))
    asked = [stopped[i] for i in sorted(order[:most])]
    beat_incumbent = beat_winner = 0
    lost = 0.0
    for trial in asked:
        assert trial.evaluation_id is not None
        recipe = store.evaluations.recipe(trial.evaluation_id)
        value = mean_of(lab.complete(recipe, scores_of(store, trial)))
        best = incumbent_of(trial, trials)
        beat_incumbent += best is not None and value > best
        beat_winner += value > winner
        lost = max(lost, value - winner)
    return Stops(len(stopped), len(asked), beat_incumbent, beat_winner, lost)


def incumbent_of(trial: Trial, trials: Sequence[Trial]) -> float | None:
    """The best complete trial's value when this one was told; those rescored at the end were not complete then."""
    before = [t.value for t in trials if t.value is not None and t.estimate is None and _order(t) < _order(trial)]
    return max(before, default=None)


def _order(trial: Trial) -> int:
    assert trial.told_order is not None
    return trial.told_order


def mean_of(scores: Sequence[TaskScore]) -> float:
    """The objective of these studies: all skills count alike, and of all more is better."""
    return statistics.fmean(s.value for s in scores)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t over so many seeds."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half
