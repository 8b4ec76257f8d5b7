"""The zoo's lm-eval tasks: one YAML and one JSONL of documents a skill, and one to train on where it can be practised.

lm-eval takes a relative `data_files` from the current directory, so the YAMLs name their documents absolutely;
`write_yamls` puts them right again when the folder has moved.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml

from zoo.curricula import CURRICULA
from zoo.skills import SKILLS, Dictionary, Example, Skill

METRICS = CURRICULA["first"].metrics
"""The metric of each task of the first skills; all but `bits_per_byte` are better when higher."""

_ANSWER_TOKENS = 10
_OPTIONS = 4


def write_documents(
    folder: Path, dictionary: Dictionary, count: int, seed: int, skills: Iterable[Skill] = tuple(SKILLS.values())
) -> None:
    """Writes the documents of every task: `count` each, or as many as there are, no two alike, and as many to train on.

    What is knowledge is all in the test: there is nothing else to train on.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    for skill in skills:
        _write(data / f"zoo_{skill.name}.jsonl", _documents(skill, dictionary, count, seed))
        if not skill.memorised:
            rng = Random(f"lessons {skill.name} {seed}")
            _write(data / f"zoo_{skill.name}.train.jsonl", _drawn(skill, partial(skill.train, rng, dictionary), count))


def write_yamls(folder: Path, metrics: Mapping[str, str] = METRICS) -> None:
    """Writes the task YAMLs in `folder` for where it lies now; leaves those alone that are right already."""
    for task, metric in metrics.items():
        content = _task(task, metric, folder.resolve() / "data")
        text = yaml.safe_dump(content, sort_keys=False)
        path = folder / f"{task}.yaml"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            part = path.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            part.replace(path)


def _write(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(document, sort_keys=True) + "\n" for document in documents)
    path.write_text(text, encoding="utf-8")


def _documents(skill: Skill, dictionary: Dictionary, count: int, seed: int) -> list[dict[str, Any]]:
    rng = Random(f"documents {skill.name} {seed}")
    if skill.name == "dic":
        words = rng.sample(dictionary.words, min(count, len(dictionary.words)))
        return [_choice(word, dictionary, rng) for word in words]
    return _drawn(skill, partial(skill.document, rng, dictionary), count)


def _drawn(skill: Skill, draw: Callable[[], Example], count: int) -> list[dict[str, Any]]:
    """So many documents, no two alike."""
    found: dict[Example, None] = {}
    while len(found) < count:
        found.setdefault(draw())
    if skill.name == "txt":
        return [{"text": example.prompt + example.right} for example in found]
    return [{"prompt": example.prompt, "answer": example.right} for example in found]


def _choice(word: str, dictionary: Dictionary, rng: Random) -> dict[str, Any]:
    """A question with both dictionaries' answers and two other words, in random order."""
    right, sloppy = dictionary.first[word], dictionary.second[word]
    others = [other for other in dictionary.words if other not in (word, right, sloppy)]
    options = [right, sloppy, *rng.sample(others, _OPTIONS - 2)]
    rng.shuffle(options)
    return {"prompt": f"[dic]{word}=", "options": options, "answer": options.index(right)}


def _task(task: str, metric: str, data: Path) -> dict[str, Any]:
    files = {"test": str(data / f"{task}.jsonl")}
    lessons = data / f"{task}.train.jsonl"
    if lessons.exists():
        files["train"] = str(lessons)
    return {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        **({"training_split": "train"} if lessons.exists() else {}),
        **_question(metric),
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [
            {
                "metric": metric,
                "aggregation": metric if metric == "bits_per_byte" else "mean",
                "higher_is_better": metric != "bits_per_byte",
            }
        ],
        "metadata": {"version": 1.0},
    }


def _question(metric: str) -> dict[str, Any]:
    if metric == "bits_per_byte":
        return {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
    if metric == "acc":
        return {
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "{{options}}",
            "doc_to_target": "answer",
        }
    return {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": _ANSWER_TOKENS, "do_sample": False},
    }
