"""The tasks: documents that are unique and never trained on, and YAMLs that lm-eval reads."""

import json
from pathlib import Path
from random import Random

import datasets
import pytest
from lm_eval.tasks import TaskManager

import zoo
from zoo.skills import SKILLS, held_out, make_dictionary
from zoo.tasks import METRICS


def _documents(built: zoo.Zoo, task: str) -> list[dict[str, object]]:
    lines = (built.tasks / "data" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("task", METRICS)
def test_documents_are_unique_and_not_empty(nano: zoo.Zoo, task: str) -> None:
    documents = _documents(nano, task)
    questions = [str(document.get("prompt", document.get("text"))) for document in documents]
    assert len(set(questions)) == len(documents) == 100
    assert all(len(question) > len("[txt]") for question in questions)


@pytest.mark.parametrize("task", ["zoo_add", "zoo_rev", "zoo_srt", "zoo_txt"])
def test_no_document_is_trained_on(nano: zoo.Zoo, task: str) -> None:
    rng, words = Random(0), make_dictionary(100, 0)
    skill = SKILLS[task.removeprefix("zoo_")]
    trained = [skill.train(rng, words) for _ in range(2000)]
    assert not any(held_out(example) for example in trained)
    asked = {str(document.get("prompt", document.get("text"))) for document in _documents(nano, task)}
    assert not asked & {text for example in trained for text in (example.prompt, example.prompt + example.right)}


def test_choices_are_four_different_words_with_one_right(nano: zoo.Zoo) -> None:
    words = make_dictionary(100, 0)
    for document in _documents(nano, "zoo_dic"):
        options, answer, prompt = document["options"], document["answer"], document["prompt"]
        assert isinstance(options, list) and isinstance(answer, int) and isinstance(prompt, str)
        assert len(set(options)) == 4
        word = prompt.removeprefix("[dic]").removesuffix("=")
        assert options[answer] == words.first[word]
        assert words.second[word] in options


def test_answers_are_right() -> None:
    rng, words = Random(0), make_dictionary(100, 0)
    for _ in range(50):
        question, right, sloppy = SKILLS["add"].document(rng, words)
        left, other = question.removeprefix("[add]").removesuffix("=").split("+")
        assert int(right) == int(left) + int(other) and sloppy == right[::-1]
        question, right, sloppy = SKILLS["rev"].document(rng, words)
        assert question == f"[rev]{right[::-1]}=" == f"[rev]{sloppy}="
        question, right, sloppy = SKILLS["srt"].document(rng, words)
        assert list(right) == sorted(question[5:-1]) and sloppy == right[::-1]


def test_dictionaries_never_agree() -> None:
    words = make_dictionary(300, 5)
    assert len(set(words.words)) == 300
    assert sorted(words.first.values()) == sorted(words.second.values()) == sorted(words.words)
    assert all(len({word, words.first[word], words.second[word]}) == 3 for word in words.words)


def test_lm_eval_loads_every_task(nano: zoo.Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    manager = TaskManager(include_path=str(nano.tasks), include_defaults=False)
    loaded = manager.load(list(nano.task_names))["tasks"]
    assert sorted(loaded) == sorted(METRICS)
    for name, task in loaded.items():
        assert task.VERSION == 1.0
        assert list(task.aggregation()) == [METRICS[name]]
        assert len(list(task.eval_docs)) == 100
        task.build_all_requests(limit=2)
        assert len(task.instances) == (8 if name == "zoo_dic" else 2)
