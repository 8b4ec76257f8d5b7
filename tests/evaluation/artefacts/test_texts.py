"""Search documents as token ids: right answers, and what is left of those that are too long."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.artefacts.texts import Text, read_texts
from evaluation.calibration import calibration
from evaluation.lm.resident import ResidentLM
from evaluation.spec import TaskSpec
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from tests.evaluation.conftest import KEY, Tiny

FUNCTION = """\
documents = [{"text": str(i)} for i in range(20)]

def count(model, tokenizer, documents):
    return [1.0 for _ in documents]
"""


@pytest.fixture(scope="module")
def lm(live: tuple[Any, Any]) -> ResidentLM:
    return ResidentLM(*live, None)


def whole(suite: Suite, lm: ResidentLM, documents: int) -> list[Text]:
    """The texts as they are, however long."""
    found = [lm.pair(each.prompt, each.continuation) for each in calibration(suite, documents).examples]
    return [Text(list(context), list(answer)) for context, answer in found]


def test_contexts_are_the_prompts_and_answers_are_the_right_ones(suite: Suite, lm: ResidentLM) -> None:
    texts, examples = read_texts(suite, 5, lm.pair, 1000), calibration(suite, 5).examples
    assert len(texts) == len(examples) == 10
    for text, example in zip(texts, examples, strict=True):
        assert lm.tokenizer.decode(text.answer) == example.continuation.strip()
        prompt = lm.tokenizer.decode(text.context)
        assert prompt == (example.prompt or lm.tokenizer.decode([lm.prefix_token_id]))
        assert text.positions == len(text) - 1 == len(text.context) + len(text.answer) - 1
    assert texts[0].answer != texts[1].answer and len(texts[0].answer) == 2


@pytest.mark.parametrize("window", [2, 5, 7, 48])
def test_of_long_ones_the_end_of_the_context_and_the_beginning_of_the_answer_stay(
    suite: Suite, lm: ResidentLM, window: int
) -> None:
    texts, every = read_texts(suite, 5, lm.pair, window), whole(suite, lm, 5)
    assert any(len(text) > window for text in every)
    for text, full in zip(texts, every, strict=True):
        assert len(text) == min(window, len(full)) and text.context and text.answer
        assert text.context == full.context[len(full.context) - len(text.context) :]
        assert text.answer == full.answer[: len(text.answer)]
        assert text.answer == full.answer or len(text.context) == 1  # an answer is cut last


def test_documents_without_a_context_or_an_answer_are_left_out(suite: Suite) -> None:
    pairs = iter([([], [5]), ([4], []), ([4], [5]), *([([], [])] * 7)])
    assert read_texts(suite, 5, lambda context, continuation: next(pairs), 48) == [Text([4], [5])]


def test_a_suite_without_right_answers_is_refused(tiny: Tiny, tmp_path: Path, lm: ResidentLM) -> None:
    (tmp_path / "mine.py").write_text(FUNCTION)
    own = TaskSpec(name="own", kind="python", function="mine:count")
    spec = tiny.spec(own).model_copy(update={"include_path": "."})
    suite = Suite.load(spec, tmp_path, KEY)
    with pytest.raises(InvalidStudy) as refused:
        read_texts(suite, 5, lm.pair, 48)
    remedy = "use methods that look at no data, or add an lm_eval task"
    assert str(refused.value) == f"evaluation.tasks: have no documents to measure on; {remedy}"


def test_tasks_that_are_only_reported_are_not_learned_on(tiny: Tiny, lm: ResidentLM) -> None:
    def opened(weight: float) -> Suite:
        tasks = (TaskSpec(name="tiny_generate"), TaskSpec(name="tiny_text", weight=weight))
        return Suite.load(tiny.spec(*tasks, documents=12), tiny.root, KEY)

    both, one = opened(1.0), opened(0.0)
    assert len(read_texts(both, 4, lm.pair, 1000)) == 8
    assert read_texts(one, 4, lm.pair, 1000) == read_texts(both, 4, lm.pair, 1000)[:4]
    assert both.digest == one.digest and both.tuning_digest != one.tuning_digest
