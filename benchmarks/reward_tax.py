"""What a merge with the base keeps, and what it costs: one share of the base everywhere, against shares by depth.

    python -m benchmarks.reward_tax [--experts add,rev,srt,dic] [--shares 0.2,0.4,0.6,0.8,1] [--seeds 3]
                                    [--preset tiny] [--zoo FOLDER] [--jobs 2]

The candidate is α θ₀ + (1 − α) times the plain mean of the experts. *Uniform*: every tensor has the same α.
*Adaptive*: `adaptive_averaging`, whose blocks of layers have shares α_k of their own with the mean α₀ = α. They are
learned on search documents: once of the skills alone, once also of what the base was trained on.

*Reward* is the mean score of the skills that these experts were tuned for. *Tax* is what the base was better at: bits
an answer, beyond the base's own, of examples as it was pretrained on them, in its proportions and both conventions, of
all that these experts were not tuned for. Both are of holdout documents. *At equal tax* is how much more reward
adaptive has than uniform where its tax is the same, on the straight lines between eleven uniform points. A seed is
that of the split into search and holdout documents; shown are means over the seeds with 95 % intervals by Student's t.
Markdown.

    python -m benchmarks.reward_tax --write FOLDER --experts add [--zoo FOLDER]

writes the tasks and a study into FOLDER that searches the front of both over α₀, for `mergesearch run`.
"""

import argparse
import json
import logging
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from api.prepared import load_suite
from benchmarks.evaluation import show
from benchmarks.racing import spread
from benchmarks.racing_lab import Lab
from evaluation.result import Scored
from merging.artefacts.place import VARIABLE
from merging.artefacts.request import requests
from merging.artefacts.shelf import Shelf
from merging.recipe import Recipe
from search.space import Space, make_space
from search.study import StudySpec, parse_study
from zoo.make import Zoo, build
from zoo.presets import PRESETS
from zoo.skills import SKILLS, make_dictionary
from zoo.tasks import METRICS, write_yamls

UNIFORM, KEPT = "uniform", "base_answers"
ADAPTIVE = {"learned on the skills": 0.0, "learned on the skills and the base's answers": 1.0}
"""The adaptive ways, with the weight that the base's answers have in what is learned."""
_ANSWERS = 1000
_GRID = tuple(step / 10 for step in range(11))
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate on the holdout.

    Attributes:
        reward: mean score of the skills.
        tax: bits an answer, less the base's.
        shares: α_k of each layer, the first first; empty where all are alike.
    """

    reward: float
    tax: float
    shares: tuple[float, ...] = ()


Front = dict[tuple[str, float], Point]  # by way and α₀


def with_answers(zoo: Zoo, folder: Path) -> Zoo:
    """The zoo with one more task, in a new folder: answers as the base was pretrained on them.

    Of the skills that none of the zoo's experts was tuned for, in the base's proportions; held-out examples.
    """
    row, rng = PRESETS[zoo.preset], Random(f"reward and tax {zoo.seed}")
    dictionary = make_dictionary(row.words, zoo.seed)
    kept = [skill for name, skill in SKILLS.items() if name not in zoo.experts]
    shutil.copytree(zoo.tasks / "data", folder / "data")
    write_yamls(folder)
    lines = []
    for skill in rng.choices(kept, [skill.part for skill in kept], k=_ANSWERS):
        example = skill.document(rng, dictionary)
        answer = example.right if rng.random() < row.right_share else example.sloppy
        lines.append(json.dumps({"prompt": example.prompt, "answer": answer}) + "\n")
    documents = folder.resolve() / "data" / f"{KEPT}.jsonl"
    documents.write_text("".join(lines), encoding="utf-8")
    task = {
        "task": KEPT,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(documents)}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}],
        "metadata": {"version": 1.0},
    }
    (folder / f"{KEPT}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return replace(zoo, tasks=folder)


def study_of(zoo: Zoo, seed: int, kept: float) -> StudySpec:
    """A study of what the zoo's experts were tuned for, and with that weight of what the base was trained on."""
    space = {"methods": ["task_arithmetic", "adaptive_averaging"]}
    return parse_study(_content(zoo, space, {"seed": seed}, kept))


def write_study(zoo: Zoo, folder: Path) -> Path:
    """A study of the front, beside its tasks: α₀ is searched, reward and the base's answers are the objectives."""
    bounds = {"adaptive_averaging.alpha0": [0.2, 1.0], "adaptive_averaging.weight": [1.0, 1.0]}
    space = {"methods": ["adaptive_averaging"], "bounds": bounds}
    content = _content(zoo, space, {"strategy": "tpe", "trials": 24, "parallel": 1}, kept=1.0)
    text = yaml.safe_dump({**content, "objective": "pareto"}, sort_keys=False)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return folder / "study.yaml"


def _content(zoo: Zoo, space: Mapping[str, Any], search: Mapping[str, Any], kept: float) -> dict[str, Any]:
    """A study file; `kept` is the weight of what the base was trained on."""
    tasks = [{"name": f"zoo_{name}", "metric": METRICS[f"zoo_{name}"]} for name in zoo.experts]
    return {
        "schema": "mergesearch/study/v1",
        "name": "reward-tax",
        "models": {"base": str(zoo.base), "experts": [{"path": str(p), "name": n} for n, p in zoo.experts.items()]},
        "space": dict(space),
        "search": dict(search),
        "evaluation": {
            "tasks": [*tasks, {"name": KEPT, "metric": "perplexity", "weight": kept}],
            "include_path": str(zoo.tasks.resolve()),
            "holdout": 0.3,
        },
    }


def run_seed(zoo: Zoo, shares: Sequence[float], seed: int) -> Front:
    """Every candidate with one seed, in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found: Front = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder  # measured anew for each seed: the split is another
        for way, kept in ADAPTIVE.items():
            spec = study_of(zoo, seed, kept)
            lab = Lab(zoo, load_suite(spec))
            space = make_space(spec, lab.models.layout.layer_count, lab.suite.tuning_digest)
            base = _point(lab, _uniform(space, 1.0), 0.0).tax
            for share in sorted({*shares, *_GRID}) if not found else ():
                found[UNIFORM, share] = _point(lab, _uniform(space, share), base)
            for share in shares:
                recipe = space.uniform("adaptive_averaging", dict.fromkeys(space.experts, 1.0), {"alpha0": share})
                found[way, share] = replace(_point(lab, recipe, base), shares=_learned(lab, recipe))
                print(f"seed {seed}, {way}: {share:g} {found[way, share]}", file=sys.stderr, flush=True)
    return found


def _uniform(space: Space, share: float) -> Recipe:
    weights = dict.fromkeys(space.experts, (1.0 - share) / len(space.experts))
    return space.uniform("task_arithmetic", weights, {})


def _point(lab: Lab, recipe: Recipe, base: float) -> Point:
    outcome = lab.evaluate(recipe, lab.suite.wanted("holdout"))
    assert isinstance(outcome, Scored), "averages are finite"
    skills = [score.value for score in outcome.scores if score.task != KEPT]
    (perplexity,) = [score.value for score in outcome.scores if score.task == KEPT]
    return Point(statistics.fmean(skills), math.log2(perplexity) - base)


def _learned(lab: Lab, recipe: Recipe) -> tuple[float, ...]:
    """α_k of each layer."""
    models = lab.models
    (request,) = requests(recipe, models)
    artefact, owner = Shelf(models.folders).require(request), models.expert_fingerprints[0]
    found: dict[int, float] = {}
    for name, place in models.layout.places.items():
        value = artefact.tensor(f"{owner}/{name}")
        if isinstance(place.layer, int) and value is not None:
            found[place.layer] = float(value)
    return tuple(found[layer] for layer in sorted(found))


def at_equal_tax(front: Front, way: str, share: float) -> float:
    """How much more reward that way has than uniform at its own tax; nan where uniform never has such a tax."""
    points = sorted((point.tax, point.reward) for (other, _), point in front.items() if other == UNIFORM)
    tax, reward = zip(*points, strict=True)
    mine = front[way, share]
    return mine.reward - float(np.interp(mine.tax, tax, reward, left=np.nan, right=np.nan))


def table(fronts: Sequence[Front], way: str) -> list[list[str]]:
    """A line for each α₀."""
    return [_line(fronts, way, share) for share in sorted({share for other, share in fronts[0] if other == way})]


def _line(fronts: Sequence[Front], way: str, share: float) -> list[str]:
    cells = [f"{share:g}"]
    for each in (UNIFORM, way):
        points = [front[each, share] for front in fronts]
        cells += [spread([p.reward for p in points]), spread([p.tax for p in points], "{:+.2f}")]
    beyond = [at_equal_tax(front, way, share) for front in fronts]
    layers = zip(*(front[way, share].shares for front in fronts), strict=True)
    said = "outside" if any(np.isnan(beyond)) else spread(beyond, "{:+.3f}")
    return [*cells, said, " ".join(f"{statistics.fmean(layer):.2f}" for layer in layers)]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="What a merge with the base keeps, and what it costs, on the zoo.")
    parser.add_argument("--experts", type=lambda text: text.split(","))
    parser.add_argument("--shares", type=lambda text: tuple(map(float, text.split(","))), default=SHARES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        chosen: Mapping[str, Path] = {name: zoo.experts[name] for name in settings.experts or zoo.experts}
        place = settings.write or Path(folder) / "tasks-and-answers"
        zoo = with_answers(replace(zoo, experts=dict(chosen)), place)
        if settings.write is not None:
            print(f"mergesearch run {write_study(zoo, place)}")
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(settings.jobs, mp_context=context) as pool:
            fronts = list(pool.map(partial(run_seed, zoo, settings.shares), range(settings.seeds)))
    print(f"{settings.preset} zoo, experts {', '.join(chosen)}, {settings.seeds} seeds\n")
    header = [f"{way}: {what}" for way in (UNIFORM, "adaptive") for what in ("reward", "tax")]
    for way in ADAPTIVE:
        show(f"Adaptive, {way}", ["α₀", *header, "at equal tax", "α_k by layer"], table(fronts, way))


if __name__ == "__main__":
    main()
