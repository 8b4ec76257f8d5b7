"""What methods learn on: a task's training split where it has one, of which nothing is scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.calibration import calibration, examples
from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.split import canonical
from evaluation.suite import Suite
from evaluation.training import LEAST
from merging.errors import InvalidStudy
from tests.evaluation.conftest import KEY, Tiny, harness
from tests.evaluation.tiny import write_chat
from zoo.make import Zoo

HEAD = """\
task: practised
dataset_path: json
dataset_kwargs: {{data_files: {{test: {0}/test.jsonl, train: {0}/train.jsonl}}}}
test_split: test
training_split: train
output_type: generate_until
doc_to_text: "Q{{{{n}}}}"
doc_to_target: "A{{{{n}}}}"
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""
Practised = Callable[..., Suite]


@pytest.fixture
def practised(tiny: Tiny, tmp_path: Path) -> Practised:
    """A suite of one task with documents 0 to 39, and a training split of the numbers given."""

    def load(numbers: range, more: str = "", **settings: Any) -> Suite:
        for name, found in (("test", range(40)), ("train", numbers)):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in found))
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / "practised.yaml").write_text(HEAD.format(tmp_path) + more)
        return Suite.load(tiny.spec("practised", **settings), tmp_path, KEY)

    return load


def _numbers(suite: Suite) -> list[int]:
    return [int(each.prompt.rpartition("Q")[2]) for each in calibration(suite).examples]


def test_methods_learn_on_training_documents_and_on_none_that_is_scored(practised: Practised) -> None:
    suite = practised(range(20, 120))  # half of the test is in the training split too
    assert sorted(_numbers(suite)) == list(range(40, 120)) and _numbers(suite) != list(range(40, 120))
    few = calibration(suite, 5).examples
    assert [each.prompt for each in few] == [f"Q{n}" for n in _numbers(suite)[:5]]
    assert all(each.continuation.strip() == each.prompt.replace("Q", "A") for each in few)
    assert {each.doc_id for each in examples(suite)} == set(suite.documents("practised", "search")), "these are scored"


def test_what_is_scored_in_a_task_that_is_only_reported_is_not_learned_either(
    practised: Practised, tiny: Tiny, tmp_path: Path
) -> None:
    practised(range(40, 120))
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(60, 90)))
    told = HEAD.format(tmp_path).replace("practised", "watched").replace("test.jsonl", "other.jsonl")
    (tmp_path / "tasks" / "watched.yaml").write_text(told)
    tasks = (TaskSpec(name="practised"), TaskSpec(name="watched", weight=0.0))
    suite = Suite.load(tiny.spec(*tasks), tmp_path, KEY)
    learned = [each for each in calibration(suite).examples if each.task == "practised"]
    assert sorted(int(each.prompt[1:]) for each in learned) == [*range(40, 60), *range(90, 120)]


def test_another_study_learns_on_others_in_another_order(practised: Practised, tmp_path: Path, tiny: Tiny) -> None:
    suite = practised(range(40, 120))
    other = Suite.load(tiny.spec("practised"), tmp_path, "another key")
    assert _numbers(suite) == _numbers(practised(range(40, 120))) != _numbers(other)
    assert suite.tuning_digest == practised(range(40, 120)).tuning_digest
    assert suite.tuning_digest != practised(range(40, 121)).tuning_digest
    assert suite.digest == practised(range(40, 121)).digest, "nobody is scored on it"


@pytest.mark.parametrize("numbers", [range(40, 40 + LEAST - 1), range(40 + LEAST - 1)])
def test_a_split_too_small_or_of_scored_documents_is_not_learned_on(practised: Practised, numbers: range) -> None:
    suite = practised(numbers)
    assert suite.training == {} and _numbers(suite) == list(suite.order("practised", "search"))


def test_a_study_may_learn_on_search_documents_and_so_does_a_recipe_of_before(practised: Practised) -> None:
    trained, searched = practised(range(40, 120)), practised(range(40, 120), learn_on="search")
    assert searched.training == {} and trained.tuning_digest != searched.tuning_digest
    assert _numbers(searched) == list(searched.order("practised", "search"))
    assert trained.learned_on(trained.tuning_digest) is trained
    before = trained.learned_on(searched.tuning_digest)
    assert before is not None and _numbers(before) == _numbers(searched)
    assert trained.learned_on("6" * 32) is None and searched.learned_on(trained.tuning_digest) is None


def test_nothing_is_learned_from_a_prompt_that_gives_the_answer_away(practised: Practised) -> None:
    suite = practised(range(40, 120), "num_fewshot: 3\nfewshot_split: train\n")
    found = calibration(suite).examples
    assert len(found) == 77, "all but the three that every prompt begins with"
    for each in found:
        *shown, asked = each.prompt.split("\n\n")
        assert len(shown) == 3 and all(asked.strip() != example.split()[0] for example in shown)
    assert len({tuple(each.prompt.split("\n\n")[:3]) for each in found}) == 1


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
@pytest.mark.parametrize("name", ["tiny_generate", "tiny_choice", "tiny_text", "tiny_likely"])
def test_training_documents_are_asked_as_those_that_are_scored(
    tiny: Tiny, live: tuple[Any, Any], tmp_path: Path, name: str, chat: bool
) -> None:
    if chat:
        write_chat(live[1], tmp_path)
    suite = Suite.load(tiny.spec(name, documents=12, chat_template=chat), tiny.root, KEY, tmp_path)
    task = harness(suite, name)
    for doc_id in suite.order(name, "search")[:3]:
        assert task.taught(task.documents[doc_id]) == task.example(doc_id)


def test_a_training_split_that_cannot_be_read_is_refused(practised: Practised, tmp_path: Path) -> None:
    known = (
        r"evaluation.tasks\[0\].name: 'practised' has a training split whose documents cannot be read \(.*\); "
        r"mend it, or set evaluation.learn_on: search"
    )
    (tmp_path / "tasks").mkdir()
    code = "def all_at_once(documents):\n    assert len(documents) in (40, 1100)\n    return documents\n"
    (tmp_path / "tasks" / "mine.py").write_text(code)
    whole = "process_docs: !function mine.all_at_once\n"
    with pytest.raises(InvalidStudy, match=known):
        practised(range(40, 1140), whole)
    assert practised(range(40, 1140), whole, learn_on="search").training == {}
    unsaid = practised(range(40, 120)).training["practised"]
    del unsaid.documents[0]["n"]
    with pytest.raises(InvalidStudy, match=known):
        unsaid.texts(1)


def test_the_zoo_is_practised_on_other_documents(nano: Zoo) -> None:
    tasks = tuple(TaskSpec(name=name, weight=float(name != "zoo_txt")) for name in nano.metrics)
    suite = Suite.load(EvaluationSpec(tasks=tasks, include_path=str(nano.tasks)), Path(), KEY)
    assert set(suite.training) == {"zoo_add", "zoo_rev", "zoo_srt"}, "dic is knowledge, and txt is only reported"
    scored = {canonical(document) for task in suite.tasks for document in task.documents}
    assert all(canonical(d) not in scored for lessons in suite.training.values() for d in lessons.documents)
    found = calibration(suite, 4).examples
    assert [each.task for each in found] == [task for task in nano.metrics for _ in range(4)]
