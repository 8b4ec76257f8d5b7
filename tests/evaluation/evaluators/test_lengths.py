"""Lengths of answers are those of the texts that a task is scored on, and cost no second generation."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from evaluation.result import TaskScore
from evaluation.scorer import Scorer
from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite
from evaluation.wanted import Wanted
from merging.errors import InvalidStudy
from tests.evaluation.conftest import BATCH, KEY, Tiny, harness

LENGTH = TaskSpec(name="length", kind="answer_tokens", of="tiny_generate")


class Noting:
    """The scorer's model, which notes what it generates."""

    def __init__(self, lm: Any) -> None:
        self._lm, self.asked = lm, list[tuple[int, str]]()
        self.said: Callable[[int], str] | None = None  # what it answers instead

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        texts: list[str] = self._lm.generate_until(requests, disable_tqdm=disable_tqdm)
        if self.said is not None:
            texts = [self.said(request.doc_id) for request in requests]
        self.asked += [(request.doc_id, text) for request, text in zip(requests, texts, strict=True)]
        return texts


@pytest.fixture
def suite(tiny: Tiny) -> Suite:
    return Suite.load(tiny.spec(LENGTH, "tiny_generate"), tiny.root, KEY)


def noting(suite: Suite, live: tuple[Any, Any]) -> tuple[Scorer, Noting]:
    scorer = Scorer(suite, *live, "cpu", BATCH)
    lm = Noting(scorer._lm)
    return Scorer(suite, *live, "cpu", BATCH, lm=lm), lm


def by_task(scores: Sequence[TaskScore]) -> dict[str, TaskScore]:
    return {score.task: score for score in scores}


def test_answers_are_generated_once_and_counted(tiny: Tiny, suite: Suite, live: tuple[Any, Any]) -> None:
    scorer, lm = noting(suite, live)
    wanted = suite.wanted("search")
    assert wanted.documents["length"] == wanted.documents["tiny_generate"], "both have one split"
    scores, _ = scorer.score(wanted)
    found = by_task(scores)["length"]
    texts = dict(lm.asked)
    assert sorted(i for i, _ in lm.asked) == sorted(wanted.documents["tiny_generate"]), "each document once"
    tokens = [len(live[1](texts[i], add_special_tokens=False).input_ids) for i in found.documents]
    assert list(found.items) == tokens and max(tokens) > 0
    assert found.value == pytest.approx(sum(tokens) / len(tokens)) and found.stderr is not None
    assert (found.metric, found.higher_is_better) == ("tokens", False)
    alone = Suite.load(tiny.spec("tiny_generate"), tiny.root, KEY)
    same, _ = Scorer(alone, *live, "cpu", BATCH).score(alone.wanted("search"))
    assert by_task(scores)["tiny_generate"] == same[0], "the other task is scored as without"
    assert alone.task_digests["tiny_generate"] == suite.task_digests["tiny_generate"]


def test_longer_answers_have_more_tokens_and_none_has_none(suite: Suite, live: tuple[Any, Any]) -> None:
    scorer, lm = noting(suite, live)
    lm.said = lambda doc_id: "ba be " * (doc_id % 4)
    found = by_task(scorer.score(suite.wanted("search"))[0])["length"]
    one = len(live[1]("ba be ", add_special_tokens=False).input_ids)
    assert one > 0 and {i % 4 for i in found.documents} == {0, 1, 2, 3}
    assert list(found.items) == [one * (i % 4) for i in found.documents]


def test_what_is_known_is_not_generated_again(suite: Suite, live: tuple[Any, Any]) -> None:
    scorer, lm = noting(suite, live)
    wanted = suite.wanted("search")
    whole, _ = scorer.score(wanted)
    items = {s.task: dict(zip(s.documents, json.loads(json.dumps(s.items)), strict=True)) for s in whole}
    lm.asked.clear()
    assert scorer.score(Wanted("search", wanted.documents, items))[0] == whole and lm.asked == []
    first, second, third, *_ = wanted.documents["length"]
    known = {task: dict(found) for task, found in items.items()}
    del known["length"][first], known["length"][second], known["tiny_generate"][second], known["tiny_generate"][third]
    again, _ = scorer.score(Wanted("search", wanted.documents, known))
    assert again == whole and sorted(i for i, _ in lm.asked) == [first, second, third]


def test_the_other_task_need_not_be_wanted(suite: Suite, live: tuple[Any, Any]) -> None:
    scorer, lm = noting(suite, live)
    documents = suite.wanted("search").documents["length"][:3]
    (score,), _ = scorer.score(Wanted("search", {"length": documents}, {}))
    assert score.task == "length" and len(lm.asked) == 3
    requests = [r for i in documents for r in harness(suite, "tiny_generate").instances[i]]
    assert not any(request.resps for request in requests), "nothing is left for the next candidate"


def test_several_answers_to_a_document_count_in_the_mean(suite: Suite, live: tuple[Any, Any]) -> None:
    from evaluation.evaluators.contract import Subject

    task = next(task for task in suite.tasks if task.name == "length")
    subject = Subject(None, live[0], live[1], "cpu", lambda done: None)  # type: ignore[arg-type]
    (request,) = harness(suite, "tiny_generate").instances[0]
    text = "ba be bi"
    request.resps = [text, ""]
    try:
        (item,) = task.answer([0], subject)  # type: ignore[union-attr]
    finally:
        request.resps = []
    assert item == len(live[1](text, add_special_tokens=False).input_ids) / 2 > 0


def test_its_digest_follows_the_prompts_and_not_the_metric(tiny: Tiny) -> None:
    def digest(*tasks: TaskSpec) -> str:
        return Suite.load(tiny.spec(*tasks), tiny.root, KEY).task_digests["length"]

    shots = LENGTH.model_copy(update={"of": "tiny_shots"})
    first = digest(LENGTH, TaskSpec(name="tiny_generate"))
    assert first == digest(TaskSpec(name="tiny_generate", weight=0), LENGTH)
    one, two = (digest(shots, TaskSpec(name="tiny_shots", num_fewshot=n)) for n in (1, 2))
    assert len({first, one, two}) == 3


def test_a_task_that_has_no_answers_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidStudy, match=r"evaluation.tasks\[0\].of: 'tiny_choice' does not let the model generate"):
        Suite.load(tiny.spec(LENGTH.model_copy(update={"of": "tiny_choice"}), "tiny_choice"), tiny.root, KEY)


@pytest.mark.parametrize("of", ["nobody", "length", "words"])
def test_a_task_that_is_not_there_or_no_lm_eval_task_is_refused(of: str) -> None:
    words = {"name": "words", "kind": "text", "path": "a.txt"}
    tasks = ["a", words, {"name": "length", "kind": "answer_tokens", "of": of}]
    with pytest.raises(InvalidStudy, match=rf"evaluation.tasks\[2\].of: '{of}' is no task of kind lm_eval"):
        EvaluationSpec.model_validate({"tasks": tasks})
