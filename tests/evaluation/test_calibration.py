"""The door to the documents' texts: search documents with their right answers, and no holdout, however asked for."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.calibration import Contaminated, calibration, examples, prompts, texts
from evaluation.split import Split
from evaluation.suite import Suite
from tests.evaluation.conftest import KEY, Tiny, harness
from tests.evaluation.tiny import FOLLOWS

TASKS = ("tiny_generate", "tiny_shots", "tiny_choice", "tiny_text", "tiny_likely")


@pytest.fixture(scope="module")
def suite(tiny: Tiny) -> Suite:
    return Suite.load(tiny.spec(*TASKS, documents=40), tiny.root, KEY)


def test_the_texts_are_the_prompts_with_their_right_answers(suite: Suite) -> None:
    found = calibration(suite, each=5)
    assert found.suite_digest == suite.digest
    assert [(e.task, e.doc_id) for e in found.examples] == [(t, i) for t in TASKS for i in suite.order(t, "search")[:5]]
    for example in found.examples:
        document = harness(suite, example.task).documents[example.doc_id]
        if example.task == "tiny_text":
            assert (example.prompt, example.continuation) == ("", document["text"])
            continue
        first, second = document["question"].split()[1:3]
        assert example.prompt.endswith(document["question"])
        assert example.continuation == f" {FOLLOWS[first]} {FOLLOWS[second]}"
        assert example.prompt.count("A") == (3 if example.task == "tiny_shots" else 1)


def test_all_search_documents_and_no_other_come_through(suite: Suite) -> None:
    found = {(e.task, e.doc_id) for e in examples(suite)}
    assert found == {(task, i) for task in TASKS for i in suite.documents(task, "search")}
    assert prompts(suite, each=5) == [e.prompt or e.continuation for e in examples(suite, each=5)]


def test_documents_held_out_or_not_taken_are_refused(suite: Suite) -> None:
    held = suite.documents("tiny_text", "holdout")[0]
    other = next(i for i in range(60) if i not in suite.splits["tiny_text"].order)
    for doc_id in (held, other):
        with pytest.raises(Contaminated, match=f"document {doc_id} of task tiny_text .* it is no search document"):
            texts(suite, "tiny_text", [suite.documents("tiny_text", "search")[0], doc_id])


def test_the_content_of_a_document_held_out_elsewhere_is_refused(suite: Suite) -> None:
    # both tasks have the same documents; a split that is not by content would let one through by the other's name
    one = suite.splits["tiny_shots"]
    wrong = replace(suite, splits={**suite.splits, "tiny_shots": Split(one.holdout, one.search, one.order)})
    with pytest.raises(Contaminated, match="its content is held out in a task of the study") as raised:
        prompts(wrong)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_right_answers_of_other_forms(tiny: Tiny, tmp_path: Path) -> None:
    # the target as text, several right ones, and choices that are prompts (a multiple-input task)
    rows = [{"q": f"{i} is", "choices": ["odd", "even"], "which": int(i % 2 == 0)} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\ntest_split: test\n"
    metric = "metric_list: [{metric: %s, aggregation: mean, higher_is_better: true}]\nmetadata: {version: 1.0}\n"
    choice = 'output_type: multiple_choice\ndoc_to_choice: "{{choices}}"\n' + metric % "acc"
    generate = 'output_type: generate_until\ndoc_to_text: "{{q}}"\n' + metric % "exact_match"
    tasks = {
        "by_text": choice + 'doc_to_text: "{{q}}"\ndoc_to_target: "{{choices[which]}}"\n',
        "by_input": choice.replace("choices}}", "[choices[0] ~ q, choices[1] ~ q]}}")
        + 'doc_to_text: "{{which}}"\ndoc_to_target: "so"\n',
        "by_list": generate + 'doc_to_target: "{{[choices[which], choices[0]]}}"\n',
    }
    for name, body in tasks.items():
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / f"{name}.yaml").write_text(f"task: {name}\n{head}{body}")
    suite = Suite.load(tiny.spec(*tasks), tmp_path, KEY)
    for example in examples(suite):
        right = "even" if example.doc_id % 2 == 0 else "odd"
        whole = f"{right}{example.doc_id} is so" if example.task == "by_input" else f"{example.doc_id} is {right}"
        assert example.prompt + example.continuation == whole
