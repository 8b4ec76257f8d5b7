"""Candidates as a search proposes them, with what each got on every search document: what few-document estimates are
measured on (`benchmarks/estimates.py`).

Each table is a real study of the zoo that scored everybody in full. Beside every task a twin of weight 0 asks for the
log-probability of the right answer, so that the trials have that, too; the search does not see it.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from api.prepared import Fingerprinted, prepare
from benchmarks.racing_lab import SKILLS, Lab, Plan, search, study_of
from db.records import Study, Trial
from db.store import Store, open_home
from evaluation.result import TaskScore
from search.estimates.contract import Floats, Target
from search.standings import Scores, scores_of, search_sets
from search.study import StudySpec, parse_study
from zoo.make import Zoo

TWIN = "log_"  # how the names of the tasks begin that give log-probabilities


@dataclass(frozen=True)
class Table:
    """One study's candidates in the order they were proposed.

    Attributes:
        items: right or wrong, [candidates, documents]; a task's documents lie together, in scoring order.
        logs: log-probability of the right answer, [candidates, documents].
        coefficients: [candidates, d]; NaN where a start lies outside the space.
        tasks: of each document, the number of its task.
    """

    name: str
    items: Floats
    logs: Floats
    coefficients: Floats
    tasks: np.ndarray

    @property
    def target(self) -> Target:
        """The mean of the tasks' means."""
        return Target.mean(self.tasks)

    @property
    def values(self) -> Floats:
        """The full score of each candidate."""
        return self.target.value(self.items)


def make_tables(zoo: Zoo, folder: Path, studies: Sequence[tuple[str, int]], plan: Plan) -> list[Table]:
    """A table for each strategy and seed: from the folder, or a study that is run now and kept there.

    Args:
        plan: trials and ranges of layers; the strategy is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for strategy, seed in studies:
        name = f"estimates-{zoo.preset}-{zoo.seed}-{strategy}-{plan.layers}-{plan.trials}-{seed}"
        file = folder / f"{name}.npz"
        if not file.exists():
            began = time.process_time()
            made = _run(zoo, name, seed, Plan(plan.trials, strategy, plan.layers))
            arrays = {"items": made.items, "logs": made.logs, "coefficients": made.coefficients, "tasks": made.tasks}
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            print(f"{name}: {time.process_time() - began:.0f} CPU seconds", file=sys.stderr, flush=True)
        kept = np.load(file)
        found.append(Table(name, kept["items"], kept["logs"], kept["coefficients"], kept["tasks"]))
    return found


def _run(zoo: Zoo, name: str, seed: int, plan: Plan) -> Table:
    """A study with the twins, to its end."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as home:
        tasks = Path(home) / "tasks"
        prepared = prepare(_with_twins(zoo, study_of(zoo, "off", seed, plan), tasks), Fingerprinted(None))
        with closing(open_home(Path(home))) as store:
            _, trials = search(prepared, Lab(zoo, prepared.suite), store)
            return _read(name, store, store.studies.get(prepared.spec.name), trials)


def _with_twins(zoo: Zoo, spec: StudySpec, folder: Path) -> StudySpec:
    """The study, asking for the log-probability of the right answers as well."""
    folder.mkdir()
    for file in sorted(zoo.tasks.glob("*.yaml")):
        content = yaml.safe_load(file.read_text())
        (folder / file.name).write_text(file.read_text())
        if content["task"] in SKILLS:
            (folder / f"{TWIN}{file.name}").write_text(yaml.safe_dump(_twin(content), sort_keys=False))
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    content["evaluation"]["include_path"] = str(folder)
    content["evaluation"]["tasks"] += [
        {"name": f"{TWIN}{task}", "metric": "perplexity", "weight": 0.0} for task in SKILLS
    ]
    return parse_study(content)


def _twin(content: dict[str, Any]) -> dict[str, Any]:
    kept = [
        "dataset_path",
        "dataset_kwargs",
        "test_split",
        "doc_to_text",
        "target_delimiter",
        "num_fewshot",
        "metadata",
    ]
    answer = "{{options[answer]}}" if content["output_type"] == "multiple_choice" else content["doc_to_target"]
    return {
        "task": TWIN + content["task"],
        **{key: content[key] for key in kept},
        "metadata": content["metadata"],
        "output_type": "loglikelihood",
        "doc_to_target": answer,
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
    }


def _read(name: str, store: Store, study: Study, trials: Sequence[Trial]) -> Table:
    sets = search_sets(store.studies.documents(study.id))
    scores = [scores_of(store, trial) for trial in trials]
    names = sorted({key for trial in trials for key in trial.params or {}})

    def items(prefix: str) -> Floats:
        return np.array(
            [[i for task in SKILLS for i in _items(each, prefix + task, sets[task].ids)] for each in scores]
        )

    return Table(
        name,
        items(""),
        items(TWIN),
        np.array([[float((trial.params or {}).get(key, np.nan)) for key in names] for trial in trials]),
        np.repeat(np.arange(len(SKILLS)), [len(sets[task].ids) for task in SKILLS]),
    )


def _items(scores: Scores, task: str, ids: Sequence[int]) -> list[float]:
    """What the task's documents gave, in that order."""
    score: TaskScore = next(s for s in scores if s.task == task)
    items = dict(zip(score.documents, score.items, strict=True))
    return [float(items[i]) for i in ids]
