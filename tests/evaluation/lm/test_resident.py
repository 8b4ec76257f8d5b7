"""What the resident model does while it answers: counting, keeping plans, and surviving a shortage of memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM

from evaluation.errors import TaskBroken
from evaluation.lm.reader import Reader
from evaluation.lm.resident import ResidentLM
from evaluation.lm.sharing import MOST_FAILURES
from tests.evaluation.lm.families import choices, make, request, texts


@pytest.fixture(scope="module")
def llama() -> tuple[Any, Any]:
    return make("llama")


@pytest.fixture(autouse=True)
def no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory runs out for show here: to collect garbage would cost more than all else."""
    monkeypatch.setattr("evaluation.lm.budget._free", lambda device: None)


@contextmanager
def at_most(model: Any, positions: int) -> Iterator[list[int]]:
    """A model that runs out of memory above so many positions; what it computed."""
    computed: list[int] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].numel() > positions:
            raise torch.OutOfMemoryError("CUDA out of memory")
        computed.append(kwargs["input_ids"].numel())

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield computed
    finally:
        handle.remove()


def fives(total: int, width: int, device: Any) -> Iterator[slice]:
    """Small chunks of logits."""
    yield from (slice(i, min(i + 5, total)) for i in range(0, total, 5))


def test_answers_and_positions_are_counted(llama: tuple[Any, Any]) -> None:
    lm = ResidentLM(*llama, 2)
    seen: list[int] = []
    asked = choices()
    with at_most(llama[0], 10**6) as computed, lm.watched(lambda: seen.append(lm.answered)):
        lm.loglikelihood(asked)
        assert lm.answered == len(asked)
        lm.loglikelihood_rolling(texts())
        assert lm.answered == len(asked) + len(texts())
    assert seen == sorted(seen) and len(set(seen)) > 5
    assert len(seen) == len(computed) and lm.tokens == sum(computed)


@pytest.mark.parametrize("args", [("w1 w2", ""), ("", ""), ("w1", " w2" * 60), ("", "<s>")])
def test_a_request_that_cannot_be_scored_names_its_task(llama: tuple[Any, Any], args: tuple[str, str]) -> None:
    with pytest.raises(TaskBroken, match=r"task own broke .* cannot be scored with 48 positions"):
        ResidentLM(*llama, None).loglikelihood([*choices()[:3], request(*args)])


def test_what_a_heartbeat_raises_ends_the_call(llama: tuple[Any, Any]) -> None:
    def stop() -> None:
        raise InterruptedError("stopped")

    lm = ResidentLM(*llama, 2)
    expected = lm.loglikelihood(choices())
    with pytest.raises(InterruptedError), lm.watched(stop):
        lm.loglikelihood(choices())
    assert lm.loglikelihood(choices()) == expected


def test_requests_are_tokenised_once(llama: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lm = ResidentLM(*llama, None)
    answers = lm.loglikelihood(choices()), lm.loglikelihood_rolling(texts())
    monkeypatch.setattr(lm, "tok_encode", None)
    assert (lm.loglikelihood(choices()), lm.loglikelihood_rolling(texts())) == answers


def test_other_weights_give_other_answers(llama: tuple[Any, Any]) -> None:
    lm = ResidentLM(*llama, None)
    head, before = llama[0].lm_head.weight, lm.loglikelihood(choices())
    kept = head.detach().clone()
    with torch.no_grad():
        head.copy_(kept.flip(0))
    other = lm.loglikelihood(choices())
    with torch.no_grad():
        head.copy_(kept)
    assert max(abs(a - b) for (a, _), (b, _) in zip(before, other, strict=True)) > 0.1
    assert lm.loglikelihood(choices()) == before


@pytest.mark.parametrize("positions", [50, 200])
def test_a_shortage_of_memory_changes_no_score(llama: tuple[Any, Any], positions: int) -> None:
    # 50: rows with branches do not fit either, and are taken apart
    expected = ResidentLM(*llama, None).loglikelihood(choices())
    lm = ResidentLM(*llama, None)
    lm._sharing._checked = 1 << 30  # checked when there was memory
    with at_most(llama[0], positions) as computed, lm.watched(lambda: None):
        answers = lm.loglikelihood(choices())
        assert lm.answered == len(expected)
        assert lm.loglikelihood(choices()) == answers
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert max(computed) <= positions
    assert lm.budget.tokens <= 2 * positions


def test_a_sequence_that_does_not_fit_is_a_memory_error(llama: tuple[Any, Any]) -> None:
    lm = ResidentLM(*llama, None)
    with at_most(llama[0], 10), pytest.raises(MemoryError, match="does not fit"):
        lm.loglikelihood(choices())


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_logits_come_in_chunks_where_nothing_follows_the_output_layer(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = make(family)
    whole = ResidentLM(model, tokenizer, 8).loglikelihood(choices())
    monkeypatch.setattr("evaluation.lm.reader.chunks", fives)
    lm = ResidentLM(model, tokenizer, 8)
    widths: set[int] = set()
    handle = model.lm_head.register_forward_hook(lambda module, args, out: widths.add(out.shape[1]))
    answers = lm.loglikelihood(choices())
    handle.remove()
    assert lm._reader._bare is (family == "llama")  # Gemma 2 caps its logits
    assert (max(widths) <= 5) is (family == "llama")
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in whole], abs=1e-5)


@pytest.mark.parametrize("factor", [0.0, math.nan, 1e5])
def test_a_candidate_whose_weights_tell_nothing_decides_nothing(
    llama: tuple[Any, Any], factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.lm.reader.chunks", fives)
    lm, asked = ResidentLM(*llama, None), choices()[:20]
    head = llama[0].lm_head.weight
    kept = head.detach().clone()
    with torch.no_grad():
        head.mul_(factor)
    values = [value for value, _ in lm.loglikelihood(asked)]
    stock = HFLM(pretrained=llama[0], tokenizer=llama[1], batch_size=8).loglikelihood(asked, disable_tqdm=True)
    with torch.no_grad():
        head.copy_(kept)
    assert values == pytest.approx([value for value, _ in stock], rel=1e-5, nan_ok=True)
    assert lm._sharing.deepest > 0
    lm.loglikelihood(asked)
    assert lm._sharing._checked > 0 and lm._reader._bare is True


def test_a_model_that_ignores_the_mask_gets_plain_rows(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = make("llama")
    expected = ResidentLM(model, tokenizer, None).loglikelihood(choices())

    def forget(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {key: value for key, value in kwargs.items() if key not in ("attention_mask", "position_ids")}

    model.register_forward_pre_hook(forget, with_kwargs=True)
    lm = ResidentLM(model, tokenizer, None)
    with caplog.at_level("INFO", "evaluation.lm.sharing"):
        for _ in range(MOST_FAILURES + 1):
            answers = lm.loglikelihood(choices())
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in expected], abs=1e-5)
    assert [r.__dict__["action"] for r in caplog.records if r.name == "evaluation.lm.sharing"] == ["lm.rows_plain"]
    assert lm._sharing.deepest == 0


def test_a_model_that_fails_on_a_mask_gets_plain_rows() -> None:
    model, tokenizer = make("llama")
    expected = ResidentLM(model, tokenizer, None).loglikelihood(choices())

    def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if "attention_mask" in kwargs:
            raise ValueError("no masks of four dimensions")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    answers = ResidentLM(model, tokenizer, None).loglikelihood(choices())
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_a_model_without_an_output_layer_of_its_own_is_read_too(llama: tuple[Any, Any]) -> None:
    rows = _rows(llama)
    whole = Reader(llama[0]).read(rows)
    reader = Reader(llama[0])
    reader._head = None
    assert torch.allclose(reader.read(rows).logprobs, whole.logprobs, atol=1e-5)


def _rows(llama: tuple[Any, Any]) -> list[Any]:
    lm = ResidentLM(*llama, None)
    lm.loglikelihood(choices())
    (plan,) = lm._plans._kept.values()
    return [row for row in plan.rows if row.branched][:2]
