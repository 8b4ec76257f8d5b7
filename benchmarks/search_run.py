"""Runs one search on one zoo with one seed, and scores what it recommends along the way on the holdout."""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from api.prepared import Fingerprinted, Prepared, load_suite, prepare
from benchmarks.racing_lab import search
from benchmarks.rivals.contract import Setting
from benchmarks.search_entrants import METHODS, RIVALS, Entrant, entrant, layered, study_of
from benchmarks.search_items import ItemCache
from benchmarks.search_lab import BudgetSpent, Full, SearchLab, mean_of
from db.store import Store, open_home
from evaluation.result import Scored
from merging.checkpoint import Checkpoint
from merging.recipe import Recipe
from search.judge import Judge
from search.luck import gain_of
from search.starts.start import is_start
from zoo.make import Zoo

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""Of the budget, at which what is recommended is scored on the holdout."""
MOST_ASKED = 50  # questions for each full evaluation of the budget, after which a rival is going round in circles


@dataclass(frozen=True)
class Terms:
    """What all searches of a comparison have alike.

    Attributes:
        evaluations: the budget, in full evaluations on all search documents.
        holdout: share of the documents that no search looks at.
    """

    evaluations: int
    holdout: float


@dataclass(frozen=True)
class Seen:
    """What is recommended once so many documents were looked at."""

    documents: int
    recipe: Recipe


@dataclass(frozen=True)
class Point:
    """What was recommended when a share of the budget was spent; no scores where nothing was yet."""

    share: float
    search: float | None
    holdout: float | None


@dataclass(frozen=True)
class Line:
    """One search on one zoo with one seed.

    Attributes:
        models: fingerprint of the zoo's base: the same zoo trained on other hardware is not quite the same.
        documents: search documents of one full evaluation.
        held: holdout documents.
        spent: documents looked at; `measured` of them by methods before they merge.
        evaluations: how often candidates were scored, on however many documents.
        seconds: CPU, what the disk remembers not counted; `scoring_seconds` of them by the holdout at the end.
        ended: whether the search ended by itself within the budget.
        curve: at each of `SHARES`.
    """

    zoo: str
    search: str
    rival: bool
    seed: int
    terms: Terms
    models: str
    documents: int
    held: int
    spent: int
    measured: int
    evaluations: int
    seconds: float
    scoring_seconds: float
    ended: bool
    curve: tuple[Point, ...]

    @property
    def key(self) -> tuple[str, str, str, int, Terms]:
        """What tells it from all other lines."""
        return self.zoo, self.models, self.search, self.seed, self.terms

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def of_json(text: str) -> "Line":
        """What `to_json` wrote."""
        content = json.loads(text)
        terms, curve = Terms(**content.pop("terms")), tuple(Point(**each) for each in content.pop("curve"))
        return Line(terms=terms, curve=curve, **content)


def run_search(label: str, zoo: Zoo, name: str, seed: int, terms: Terms, folder: Path) -> Line:
    """One search from its beginning until its budget is spent or it has ended.

    Args:
        label: the zoo's, in the results.
        name: of one of ours, or of a rival.
        folder: holds the cache of items.
    """
    began = time.process_time()
    rival = name in RIVALS
    asked = Entrant(layered(METHODS), {"strategy": "random"}, 1) if rival else entrant(name)
    prepared, budget = _prepared(zoo, asked, seed, terms)
    with closing(ItemCache(folder / f"{label}.items")) as cache, tempfile.TemporaryDirectory() as home:
        lab = SearchLab(zoo, prepared, cache, Path(home) / "artefacts", budget)
        seen, ended = _rival(name, prepared, lab, terms) if rival else _ours(prepared, lab, Path(home))
        searched = time.process_time()
        curve = tuple(_point(share, budget, seen, lab) for share in SHARES)
    return Line(
        zoo=label,
        search=name,
        rival=rival,
        seed=seed,
        terms=terms,
        models=models_of(zoo),
        documents=lab.documents,
        held=sum(len(prepared.suite.documents(task.name, "holdout")) for task in prepared.suite.tasks),
        spent=lab.spent,
        measured=lab.measured,
        evaluations=lab.evaluations,
        seconds=round(time.process_time() - began, 2),
        scoring_seconds=round(time.process_time() - searched, 2),
        ended=ended,
        curve=curve,
    )


def models_of(zoo: Zoo) -> str:
    """The fingerprint that `Line.models` holds."""
    return Checkpoint(zoo.base).fingerprint()


def _prepared(zoo: Zoo, asked: Entrant, seed: int, terms: Terms) -> tuple[Prepared, int]:
    """The study, and its budget in documents, which only the split tells."""
    whole = study_of(
        zoo, Entrant(layered(METHODS), {"strategy": "random"}), seed, terms.evaluations, None, terms.holdout
    )
    suite = load_suite(whole)
    documents = terms.evaluations * sum(len(suite.documents(task.name, "search")) for task in suite.tasks)
    spec = study_of(zoo, asked, seed, terms.evaluations, documents, terms.holdout)
    return prepare(spec, Fingerprinted(None)), documents


def _ours(prepared: Prepared, lab: SearchLab, home: Path) -> tuple[Sequence[Seen], bool]:
    """Through the real controller."""
    with closing(open_home(home)) as store:
        try:
            search(prepared, lab, store)
            ended = True
        except BudgetSpent:
            ended = False
        return _recommendations(prepared, lab, store), ended


def _recommendations(prepared: Prepared, lab: SearchLab, store: Store) -> list[Seen]:
    """What the study would have recommended after each candidate that was scored in full (`search.recommended`)."""
    spec, study = prepared.spec, store.studies.get(prepared.spec.name)
    begun = [t for t in store.trials.all(study.id) if is_start(t.origin, spec.search.strategy) and t.evaluation_id]
    starts = {store.evaluations.get(trial.evaluation_id or 0).recipe_digest for trial in begun}
    measure = Judge(spec, tuple(e.name for e in spec.models.experts)).measure(prepared.suite.aggregations())
    best: Full | None = None
    start: Full | None = None
    seen: list[Seen] = []
    for each in lab.full:
        if best is None or mean_of(each.scores) > mean_of(best.scores):
            best = each
        is_one = each.recipe.digest(prepared.setup["fingerprints"]) in starts
        if is_one and (start is None or mean_of(each.scores) > mean_of(start.scores)):
            start = each
        gain = None if start is None else gain_of(measure, best.scores, start.scores, spec.search.seed)
        lucky = gain is not None and gain.is_luck(spec.search.margin)
        taken = start if start is not None and lucky else best
        seen.append(Seen(each.documents, taken.recipe))
    return seen


def _rival(name: str, prepared: Prepared, lab: SearchLab, terms: Terms) -> tuple[Sequence[Seen], bool]:
    """By asking and telling."""
    spec, suite = prepared.spec, prepared.suite
    order = {task.name: suite.order(task.name, "search") for task in suite.tasks}
    experts = {each.name: each.path for each in spec.models.experts}
    layers = prepared.space.layer_count
    rival = RIVALS[name](Setting(spec.models.base, experts, layers, spec.search.seed, terms.evaluations, order))
    seen: list[Seen] = []
    for _ in range(MOST_ASKED * terms.evaluations):
        question = rival.ask()
        if question is None:
            return seen, True
        value = None
        if question.recipe is not None:
            try:
                outcome = lab.evaluate(question.recipe, lab.first(question.documents))
            except BudgetSpent:
                return seen, False
            value = mean_of(outcome.scores) if isinstance(outcome, Scored) else None
        rival.tell(value)
        found = rival.recommended()
        if found is not None and (not seen or found != seen[-1].recipe):
            seen.append(Seen(lab.spent, found))
    return seen, True


def _point(share: float, budget: int, seen: Sequence[Seen], lab: SearchLab) -> Point:
    recipe: Recipe | None = None
    for each in seen:
        if each.documents <= share * budget:
            recipe = each.recipe
    if recipe is None:
        return Point(share, None, None)
    return Point(share, lab.score(recipe, "search"), lab.score(recipe, "holdout"))


def append(path: Path, line: Line) -> None:
    """Add a line to the results, whole, whoever else adds to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (line.to_json() + "\n").encode())
    finally:
        os.close(file)


def read_lines(path: Path) -> list[Line]:
    """All results of a file; of a search that was run twice, the last."""
    if not path.exists():
        return []
    lines = [Line.of_json(text) for text in path.read_text(encoding="utf-8").splitlines() if text]
    return list({line.key: line for line in lines}.values())
