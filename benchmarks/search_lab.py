"""One study's candidates, scored for whoever searches, every document counted alike.

The rule: a document counts each time a candidate is scored on it, unless the search itself reuses what it scored before
(our controller does; a rival that scores a recipe anew pays anew). What a method measures before it can merge counts as
well: texts times passes, a pass with gradients three times, and what is measured of all models together once for each
model and once for the merge. What the disk remembers of earlier runs is counted as if it were computed now.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from api.prepared import Prepared
from benchmarks.search_items import ItemCache
from evaluation.artefacts.workshop import Workshop
from evaluation.errors import NonFiniteScore
from evaluation.live import live_tensors, load_live
from evaluation.result import Infeasible, Part, Scored, TaskScore
from evaluation.scorer import Scorer
from evaluation.wanted import Wanted
from merging.artefacts.place import VARIABLE
from merging.artefacts.request import JOINT, Request, requests
from merging.errors import InvalidRecipe, NonFiniteCandidate
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from workers.stacked import Stacked, is_restacked
from zoo.make import Zoo

MEMO_BYTES = 1 << 30
BACKWARD = 3  # what a pass with gradients costs, in passes without
LEARNED = frozenset({"fisher", "coefficients", "masks"})  # kinds of artefact that take gradients


class BudgetSpent(Exception):
    """The next evaluation would go beyond the budget."""


@dataclass(frozen=True)
class Full:
    """A candidate that was scored on all search documents, once so many were looked at."""

    documents: int
    recipe: Recipe
    scores: tuple[TaskScore, ...]


class SearchLab:
    """Builds and scores the candidates of one study.

    Args:
        cache: of the zoo.
        artefacts: a folder for what methods measure.
        budget: documents that may be looked at.

    Attributes:
        spent: documents looked at so far.
        measured: of those, by methods before they merge.
        full: the candidates that were scored on all search documents.
    """

    def __init__(self, zoo: Zoo, prepared: Prepared, cache: ItemCache, artefacts: Path, budget: float) -> None:
        os.environ[VARIABLE] = str(artefacts)
        self._suite, self._cache, self._budget = prepared.suite, cache, budget
        self._fingerprints = prepared.setup["fingerprints"]
        self._models = ModelSet.open(zoo.base, zoo.experts)
        live, tokenizer = load_live(zoo.base, "cpu")
        tensors = live_tensors(live, self._models.base.names)
        self._resident = ResidentModel(self._models, tensors, memo_bytes=MEMO_BYTES)
        self._workshop = Workshop(self._models, self._resident, live, tokenizer, tensors)
        self._stacked = Stacked(live)
        self._scorer = self._scorer_of(live, tokenizer)
        self._tokenizer = tokenizer
        self._paid: set[str] = set()
        self.spent, self.measured, self.evaluations = 0, 0, 0
        self.full: list[Full] = []
        self.documents = self._wanted_count(self._suite.wanted("search"))

    def evaluate(self, recipe: Recipe, wanted: Wanted) -> Scored | Infeasible:
        """What a worker does, within the budget. Holdout documents are free: they are looked at when all is over.

        Raises:
            BudgetSpent: nothing was scored.
        """
        searched = wanted.part == "search"
        cost = sum(map(len, wanted.missing.values())) if searched else 0
        self._measure(recipe)
        if searched and self.spent + cost > self._budget:
            raise BudgetSpent
        self.spent += cost
        self.evaluations += searched
        try:
            scored = self._scored(recipe, wanted)
        except (InvalidRecipe, NonFiniteCandidate, NonFiniteScore) as error:
            return Infeasible(why=str(error))
        if searched and self._wanted_count(wanted) == self.documents:
            self.full.append(Full(self.spent, recipe, scored.scores))
        return scored

    def score(self, recipe: Recipe, part: Part) -> float:
        """The mean of the tasks on all documents of a part, neither counted nor limited."""
        found = self._scored(recipe, self._suite.wanted(part))
        return mean_of(found.scores)

    def first(self, each: int | None) -> Wanted:
        """The first search documents of every task in scoring order; None: all."""
        tasks = {task.name: self._suite.order(task.name, "search")[:each] for task in self._suite.tasks}
        return Wanted("search", {task: tuple(sorted(documents)) for task, documents in tasks.items()}, {})

    def _scored(self, recipe: Recipe, wanted: Wanted) -> Scored:
        """Score what neither the search nor the disk knows."""
        digest, tasks = recipe.digest(self._fingerprints), dict(self._suite.task_digests)
        kept = self._cache.get(digest, {task: tasks[task] for task in wanted.documents})
        known = {task: {**kept.get(task, {}), **wanted.known.get(task, {})} for task in wanted.documents}
        complete = Wanted(wanted.part, wanted.documents, known)
        scorer = self._scorer
        if missing := complete.missing:
            scorer = self._built(recipe)
        scores, tokens = scorer.score(complete)
        if missing:
            found = {s.task: dict(zip(s.documents, s.items, strict=True)) for s in scores}
            self._cache.add(digest, tasks, found)
        reused = wanted.reused
        return Scored(scores=scores, tokens=tokens, build_seconds=0.0, score_seconds=0.0, device="cpu", reused=reused)

    def _built(self, recipe: Recipe) -> Scorer:
        """Whoever scores the candidate that was built."""
        if is_restacked(recipe, self._models):
            return self._scorer_of(self._stacked.write(recipe, self._resident).live, self._tokenizer)
        self._workshop.ensure(recipe, self._suite)
        self._resident.apply(recipe)
        return self._scorer

    def _scorer_of(self, live: Any, tokenizer: Any) -> Scorer:
        return Scorer(self._suite, live, tokenizer, "cpu", None)

    def _measure(self, recipe: Recipe) -> None:
        """Measure what the recipe reads, and count what this search has not paid for yet."""
        for request in requests(recipe, self._models):
            if request.digest not in self._paid:
                self._workshop.ensure(recipe, self._suite)
                self._paid.add(request.digest)
                cost = self._looked(request)
                self.spent += cost
                self.measured += cost

    def _looked(self, request: Request) -> int:
        """The documents that one measurement looks at."""
        names = [request.expert] if request.expert else list(self._models.names)
        texts = sum(len(self._workshop.texts(self._suite, request, name)) for name in names)
        rounds = int(self._workshop.shelf.require(request).figures.get("rounds", 1))
        if request.kind in LEARNED:
            return BACKWARD * rounds * texts // len(names)
        if request.kind in JOINT:
            return rounds * (texts + texts // len(names))
        return rounds * texts

    def _wanted_count(self, wanted: Wanted) -> int:
        return sum(map(len, wanted.documents.values()))


def mean_of(scores: tuple[TaskScore, ...]) -> float:
    """The objective: all tasks count alike, and of all more is better."""
    return fmean(s.value for s in scores)


def named(tasks: Mapping[str, str]) -> list[dict[str, str]]:
    """The tasks of a study that has all skills but the text, which is no skill."""
    return [{"name": task, "metric": metric} for task, metric in tasks.items() if metric != "bits_per_byte"]
