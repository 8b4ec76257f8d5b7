"""What can be made of an expert that was trained from another start: averages, alignment, least squares, wider MLPs.

    python -m benchmarks.unlike [--preset tiny] [--zoo FOLDER] [--starts 3] [--skill srt] [--other add]
                                [--ways "aligned by weights,rotated"]

A stranger is the zoo's expert of a skill, trained once more from other random weights (`zoo.strangers`). It is merged,
half and half, with the zoo's own expert of that skill, and with one of another skill; the study's tasks are the skills
of the two. Shown are means over the strangers of several starts with 95 % intervals by Student's t: the score on the
holdout, and the mean loss of the right answers' tokens on the search documents, which are those that are measured on.
Strangers are written into the zoo's folder. Markdown.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.aligning import Way, align_model
from api.prepared import load_suite
from benchmarks.evaluation import show
from benchmarks.racing import spread
from benchmarks.racing_lab import mean_of
from evaluation.artefacts.texts import log_likelihoods, read_texts
from evaluation.artefacts.workshop import Workshop
from evaluation.calibration import calibration
from evaluation.live import live_tensors, load_live
from evaluation.lm.resident import ResidentLM
from evaluation.scorer import Scorer
from evaluation.suite import Suite
from merging.artefacts.place import VARIABLE
from merging.checkpoint import Checkpoint
from merging.models import ModelSet
from merging.permuting.wider import widen
from merging.recipe import SCHEMA, GroupMerge, Recipe
from merging.resident import ResidentModel
from search.study import parse_study
from zoo.make import Zoo, build
from zoo.strangers import train_stranger
from zoo.tasks import METRICS

RATIOS = (0.25, 0.5, 1.0)
MANY = {"documents": 1024}
AVERAGE, FITTED = "average", "`pleas_pp`"
BY_WEIGHTS, BY_TEXTS, ROTATED = "aligned by weights", "aligned by activations", "rotated"
WAYS = (BY_WEIGHTS, BY_TEXTS, ROTATED)


@dataclass(frozen=True, slots=True)
class Result:
    """One row with one stranger: the holdout's score, and nats a token of the search documents' answers."""

    score: float
    loss: float


class Bed:
    """Scores models of a zoo on the tasks of some skills."""

    def __init__(self, zoo: Zoo, skills: Sequence[str]) -> None:
        self.zoo, self.suite = zoo, _suite(zoo, skills)

    def folder(self, path: Path) -> Result:
        """A checkpoint, of whatever width."""
        live, tokenizer = load_live(path, "cpu")
        return self._score(live, tokenizer)

    def merge(self, first: Path, second: Path, method: str, **parameters: Any) -> Result:
        """Half of each, by a method that may look at search documents."""
        models = ModelSet.open(self.zoo.base, {"zoo": first, "stranger": second})
        live, tokenizer = load_live(self.zoo.base, "cpu")
        tensors = live_tensors(live, models.base.names)
        resident = ResidentModel(models, tensors)
        weights = dict.fromkeys(models.names, 0.5)
        group = GroupMerge(layers=(0, models.layout.layer_count), method=method, weights=weights, parameters=parameters)
        recipe = Recipe(
            schema_=SCHEMA,
            base=str(self.zoo.base),
            experts={name: str(each.path) for name, each in models.experts.items()},
            groups=(group,),
            suite="" if method == "linear" else self.suite.tuning_digest,
        )
        Workshop(models, resident, live, tokenizer, tensors).ensure(recipe, self.suite)
        resident.apply(recipe)
        return self._score(live, tokenizer)

    def wider(self, first: Path, second: Path, ratio: float) -> Result:
        """The average with a share of the hidden units apart."""
        with tempfile.TemporaryDirectory() as folder:
            widen([Checkpoint(first), Checkpoint(second)], Path(folder) / "wider", ratio=ratio)
            return self.folder(Path(folder) / "wider")

    def texts(self, to: Path) -> Path:
        """The search documents with their right answers, as `mergesearch align --texts` reads them."""
        whole = (f"{each.prompt}{each.continuation}" for each in calibration(self.suite).examples)
        to.write_text("".join(json.dumps({"text": text}) + "\n" for text in whole), encoding="utf-8")
        return to

    def _score(self, live: Any, tokenizer: Any) -> Result:
        import torch

        lm = ResidentLM(live, tokenizer, None)
        texts = read_texts(self.suite, 128, lm.pair, lm.max_length)
        with torch.no_grad():
            nats = [log_likelihoods(live, texts[first : first + 64]) for first in range(0, len(texts), 64)]
        loss = -sum(float(each) for batch in nats for each in batch) / sum(len(text.answer) for text in texts)
        scores, _ = Scorer(self.suite, live, tokenizer, "cpu", None).score(self.suite.wanted("holdout"))
        return Result(mean_of(scores), loss)


def _suite(zoo: Zoo, skills: Sequence[str]) -> Suite:
    """The suite of a study that optimises the tasks of these skills."""
    tasks = [{"name": f"zoo_{skill}", "metric": METRICS[f"zoo_{skill}"]} for skill in dict.fromkeys(skills)]
    content = {
        "schema": "mergesearch/study/v1",
        "name": "unlike",
        "models": {"base": str(zoo.base), "experts": [str(path) for path in zoo.experts.values()]},
        "evaluation": {"tasks": tasks, "include_path": str(zoo.tasks), "holdout": 0.3},
    }
    return load_suite(parse_study(content))


def rows(
    zoo: Zoo, skills: tuple[str, str], stranger: Path, folder: Path, ways: Sequence[str]
) -> Iterator[tuple[str, Result]]:
    """Every row with one stranger, in turn.

    Args:
        skills: the stranger's, and that of the zoo's expert it is merged with.
        folder: an empty one.
        ways: of `WAYS`.
    """
    skill, other = skills
    bed, expert = Bed(zoo, (other, skill)), zoo.experts[other]
    yield f"the zoo's `{other}`", bed.folder(expert)
    if other != skill:
        yield f"the zoo's `{skill}`", bed.folder(zoo.experts[skill])
        yield f"the zoo's two: {AVERAGE}", bed.merge(expert, zoo.experts[skill], "linear")
        yield f"the zoo's two: {FITTED}", bed.merge(expert, zoo.experts[skill], "pleas_pp")
    yield "the stranger", bed.folder(stranger)
    yield f"as they are: {AVERAGE}", bed.merge(expert, stranger, "linear")
    yield from _fitted("as they are", bed, expert, stranger)
    texts = bed.texts(folder / "texts.jsonl")
    known = {BY_WEIGHTS: Way(), BY_TEXTS: Way(texts=texts), ROTATED: Way(texts=texts, rotate=True)}
    for number, name in enumerate(ways):
        aligned = folder / f"aligned-{number}"
        align_model(stranger, expert, aligned, ("all",), known[name])
        yield f"{name}: {AVERAGE}", bed.merge(expert, aligned, "linear")
        for ratio in RATIOS:
            yield f"{name}: {AVERAGE}, {ratio:.0%} of the MLPs' units apart", bed.wider(expert, aligned, ratio)
        for method in ("regmean", "regmean_pp", "pleas"):
            yield f"{name}: `{method}`", bed.merge(expert, aligned, method)
        yield from _fitted(name, bed, expert, aligned)


def _fitted(name: str, bed: Bed, first: Path, second: Path) -> Iterator[tuple[str, Result]]:
    """The rows that count: each expert on its own texts, on more of them, and both on all."""
    yield f"{name}: {FITTED}", bed.merge(first, second, "pleas_pp")
    yield f"{name}: {FITTED}, all search documents", bed.merge(first, second, "pleas_pp", **MANY)
    yield f"{name}: {FITTED}, `texts: all`", bed.merge(first, second, "pleas_pp", texts="all")


def run(zoo: Zoo, skill: str, other: str, starts: int, ways: Sequence[str]) -> dict[str, list[Result]]:
    """Every row with the strangers of so many starts."""
    found: dict[str, list[Result]] = {}
    for start in range(1, starts + 1):
        stranger = train_stranger(zoo.folder, skill, start)
        with tempfile.TemporaryDirectory() as folder:
            os.environ[VARIABLE] = folder
            for name, result in rows(zoo, (skill, other), stranger, Path(folder), ways):
                found.setdefault(name, []).append(result)
                print(f"{other}, start {start}: {name} {result}", file=sys.stderr, flush=True)
    return found


def table(found: Mapping[str, Sequence[Result]]) -> list[list[str]]:
    """A line a row."""
    return [
        [name, spread([each.score for each in results]), spread([each.loss for each in results], "{:.2f}")]
        for name, results in found.items()
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Experts of another start, on the zoo.")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--skill", default="srt")
    parser.add_argument("--other", default="add")
    parser.add_argument("--ways", type=lambda text: tuple(text.split(",")), default=WAYS)
    settings = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        for other in (settings.skill, settings.other):
            found = run(zoo, settings.skill, other, settings.starts, settings.ways)
            title = f"`{other}` of the zoo and `{settings.skill}` of another start, {settings.starts} starts"
            show(title, ["merge", "holdout", "loss"], table(found))


if __name__ == "__main__":
    main()
