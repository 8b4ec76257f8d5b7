"""Stock answers, whatever the architecture: shared rows where they are right, plain ones where they are not."""

from typing import Any

import pytest
from lm_eval.models.huggingface import HFLM

from evaluation.lm.resident import ResidentLM
from tests.evaluation.lm.families import FAMILIES, PLAIN, WINDOW, choices, make, texts


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[str, Any, Any, list[tuple[float, bool]], list[float]]:
    """A live model, and what stock lm-eval answers with it."""
    model, tokenizer = make(request.param)
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, max_length=WINDOW)
    likely = stock.loglikelihood(choices(), disable_tqdm=True)
    return request.param, model, tokenizer, likely, stock.loglikelihood_rolling(texts(), disable_tqdm=True)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_answers_are_those_of_stock(family: tuple[Any, ...], batch_size: int | None) -> None:
    name, model, tokenizer, likely, rolling = family
    lm = ResidentLM(model, tokenizer, batch_size)
    assert lm.max_length == WINDOW
    answers = lm.loglikelihood(choices())
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in likely], abs=1e-4)
    assert [greedy for _, greedy in answers] == [greedy for _, greedy in likely]
    assert lm.loglikelihood_rolling(texts()) == pytest.approx(rolling, rel=1e-6, abs=1e-4)
    plan = next(iter(lm._plans._kept.values()))
    assert any(row.branched for row in plan.rows) == (name not in PLAIN)
    assert lm._sharing.deepest == {"mistral": 24, "gemma2": 24}.get(name, 0 if name in PLAIN else 1 << 30)


def test_answers_repeat_bit_for_bit(family: tuple[Any, ...]) -> None:
    _, model, tokenizer, *_ = family
    one, other = ResidentLM(model, tokenizer, None), ResidentLM(model, tokenizer, None)
    asked = choices()
    answers = one.loglikelihood(asked)
    assert one.loglikelihood(asked) == answers
    assert other.loglikelihood(choices()) == answers
    assert one.loglikelihood_rolling(texts()) == other.loglikelihood_rolling(texts())
