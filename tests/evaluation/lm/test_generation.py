"""Generated texts are stock's, whatever the batch and whatever was guessed, and what was guessed right is cheap."""

import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evaluation.errors import NonFiniteScore
from evaluation.lm.resident import ResidentLM
from tests.evaluation.tiny import WORDS

UNTIL = [[" ."], [], ["A", " . Q"], ["gi lo", "gi"], ["</s>"], [""], ["\n"], "Q"]
Ask = tuple[str, dict[str, Any]]


def requests(asked: list[Ask]) -> list[Instance]:
    return [Instance("generate_until", {}, (context, dict(k)), i) for i, (context, k) in enumerate(asked)]


def questions(count: int, longest: int = 60) -> list[Ask]:
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices([*WORDS, "Q", "A", "."], k=rng.randint(1, longest)))

    return [(text(), {"until": UNTIL[i % len(UNTIL)], "max_gen_toks": rng.choice([1, 4, 20])}) for i in range(count)]


def stock(model: Any, tokenizer: Any, asked: list[Ask], batch: int = 1) -> list[str]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
    return lm.generate_until(requests(asked), disable_tqdm=True)


@contextmanager
def passes(model: Any) -> Iterator[list[int]]:
    """The positions of every forward pass."""
    seen: list[int] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].numel())

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def warmed(live: tuple[Any, Any], batch: int | None) -> ResidentLM:
    """A model that has convinced itself that its cache works."""
    lm = ResidentLM(*live, batch)
    lm.generate_until(requests([("Q", {"until": [""], "max_gen_toks": 1})]))
    return lm


@pytest.fixture(scope="module")
def expected(live: tuple[Any, Any]) -> list[str]:
    texts = stock(*live, questions(40))
    assert len(set(texts)) > 15
    return texts


@pytest.mark.parametrize("batch", [1, 3, None])
def test_texts_are_stock_and_right_guesses_take_one_pass(
    live: tuple[Any, Any], expected: list[str], batch: int | None
) -> None:
    lm = warmed(live, batch)
    with passes(live[0]) as first:
        assert lm.generate_until(requests(questions(40))) == expected
    with passes(live[0]) as again:
        assert lm.generate_until(requests(questions(40))) == expected
    assert len(again) == math.ceil(40 / batch) if batch else len(again) < 10
    assert len(again) < len(first) / 3


def test_stock_in_batches_says_the_same(live: tuple[Any, Any]) -> None:
    # where stock does not depend on its batch: strings that are no special tokens, no overlapping ones
    asked = [ask for ask in questions(40) if ask[1]["until"] in ([" ."], "Q", ["\n"])]
    assert ResidentLM(*live, 8).generate_until(requests(asked)) == stock(*live, asked, 8)


SPOIL: dict[str, Callable[[list[int]], list[int]]] = {
    "wrong": lambda answer: [(token + 1) % 31 for token in answer],
    "half right": lambda answer: answer[: len(answer) // 2] + [9] * 5,
    "right, then more": lambda answer: [*answer, 9, 9, 9],
    "longer than allowed": lambda answer: answer * 30,
    "too short": lambda answer: answer[: len(answer) // 2],
}


def test_no_guess_changes_a_text(live: tuple[Any, Any], expected: list[str]) -> None:
    lm = ResidentLM(*live, 8)
    drafts = lm._generator._drafts._answers
    lm.generate_until(requests(questions(40)))
    right = {request: kept[0] for request, kept in drafts.items()}
    for how, spoil in SPOIL.items():
        for request, kept in drafts.items():
            kept[:] = [type(right[request])("i", spoil(right[request].tolist()))]
        assert lm.generate_until(requests(questions(40))) == expected, how


def test_another_candidate_answers_for_itself(live: tuple[Any, Any], expected: list[str]) -> None:
    lm = ResidentLM(*live, 8)
    lm.generate_until(requests(questions(10)))
    weight = live[0].model.layers[1].mlp.down_proj.weight
    kept = weight.clone()
    try:
        weight.mul_(-0.5)
        other = lm.generate_until(requests(questions(10)))
        assert other == stock(*live, questions(10))
        assert other != expected[:10]
    finally:
        weight.copy_(kept)
    assert lm.generate_until(requests(questions(10))) == expected[:10]


def test_a_common_beginning_is_computed_once(live: tuple[Any, Any]) -> None:
    stem = " ".join(random.Random(1).choices(WORDS, k=35))
    asked: list[Ask] = [(f"{stem} {word}", {"until": [" ."], "max_gen_toks": 3}) for word in WORDS]
    lm = warmed(live, None)
    with passes(live[0]) as seen:
        assert lm.generate_until(requests(asked)) == stock(*live, asked)
        assert seen[0] == 35
        assert seen[1] == len(WORDS)


def test_the_same_question_is_computed_once(live: tuple[Any, Any]) -> None:
    lm = warmed(live, 8)
    with lm.watched(lambda: None):
        texts = lm.generate_until(requests([("Q ba be A", {"until": [" ."], "max_gen_toks": 3})] * 5))
        assert lm.answered == 5
    assert len(set(texts)) == 1
    with passes(live[0]) as seen:
        lm.generate_until(requests([("Q ba be A", {"until": [" ."], "max_gen_toks": 3})] * 5))
    assert len(seen) == 1 and seen[0] < 8


def test_every_pass_is_announced_and_counted(live: tuple[Any, Any]) -> None:
    lm = ResidentLM(*live, 3)
    beats: list[int] = []
    with passes(live[0]) as seen, lm.watched(lambda: beats.append(lm.answered)):
        lm.generate_until(requests(questions(20)))
        assert (lm.answered, lm.tokens) == (20, sum(seen))
    assert len(beats) == len(seen) and beats == sorted(beats) and len(set(beats)) > 5


@pytest.mark.parametrize(
    "more",
    [{"do_sample": True, "temperature": 1.5}, {"temperature": 0.7}, {"num_beams": 2}, {"repetition_penalty": 1.5}],
)
def test_what_is_not_greedy_is_stock_own(live: tuple[Any, Any], more: dict[str, Any]) -> None:
    lm = ResidentLM(*live, 4)
    kwargs = {"until": [" ."], "max_gen_toks": 5}
    asked: list[Ask] = [(f"Q {word} A", kwargs | (more if i % 2 else {})) for i, word in enumerate(WORDS[:8])]
    torch.manual_seed(3)
    ours = lm.generate_until(requests(asked))
    torch.manual_seed(3)
    theirs = stock(*live, asked[1::2], 4)
    assert ours[1::2] == theirs
    assert ours[::2] == stock(*live, asked[::2])


def test_settings_of_the_model_that_change_greedy_answers_are_stock_own(
    live: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    asked = questions(6)
    settings = live[0].generation_config
    settings.repetition_penalty = 3.0
    try:
        lm = ResidentLM(*live, 4)
        with caplog.at_level(logging.INFO, "evaluation.lm.generation"):
            assert lm.generate_until(requests(asked)) == stock(*live, asked)
            lm.generate_until(requests(asked[:1]))
    finally:
        settings.repetition_penalty = None
    told = [record for record in caplog.records if getattr(record, "action", "") == "lm.generation_stock"]
    assert len(told) == 1 and "repetition_penalty: 3.0" in told[0].getMessage()


def test_the_model_s_own_end_tokens_count(live: tuple[Any, Any]) -> None:
    asked: list[Ask] = [(text, {"until": [], "max_gen_toks": 12}) for text, _ in questions(7)]
    settings = live[0].generation_config
    try:
        settings.eos_token_id = [2, 5, 9]
        some = ResidentLM(*live, 4).generate_until(requests(asked))
        assert some == stock(*live, asked)
        settings.eos_token_id = None
        none = ResidentLM(*live, 4).generate_until(requests(asked))
        assert none == stock(*live, asked) != some
    finally:
        settings.eos_token_id = 2


def test_an_answer_longer_than_the_window_is_refused_as_stock_does(live: tuple[Any, Any]) -> None:
    with pytest.raises(AssertionError, match="must be less than model's maximum sequence length"):
        ResidentLM(*live, 4).generate_until(requests([("Q ba A", {"until": ["Q"], "max_gen_toks": 48})]))


@pytest.mark.parametrize("end", [7, "ba"])
def test_thinking_is_cut_as_stock_cuts_it(live: tuple[Any, Any], end: int | str) -> None:
    asked: list[Ask] = [(text, {"until": ["Q"], "max_gen_toks": 20}) for text, _ in questions(8)]
    theirs, ours = HFLM(pretrained=live[0], tokenizer=live[1], batch_size=1), ResidentLM(*live, 4)
    plain = ours.generate_until(requests(asked))
    theirs.think_end_token = ours.think_end_token = end
    texts = ours.generate_until(requests(asked))
    assert texts == theirs.generate_until(requests(asked), disable_tqdm=True)
    assert texts != plain


def test_running_out_of_memory_makes_batches_smaller_and_changes_nothing(
    live: tuple[Any, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.lm.budget._free", lambda device: None)  # slow
    lm = warmed(live, None)

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"]
        if ids.shape[0] * (ids.shape[1] + kwargs["past_key_values"].get_seq_length()) > 100:
            raise torch.OutOfMemoryError("too much")

    handle = live[0].register_forward_pre_hook(before, with_kwargs=True)
    try:
        assert lm.generate_until(requests(questions(40)[:12])) == expected[:12]
    finally:
        handle.remove()
    assert lm.budget.tokens <= 128


def test_a_candidate_without_finite_logits_is_stock_own_and_the_next_one_is_not(live: tuple[Any, Any]) -> None:
    weight = live[0].model.norm.weight
    kept = weight.clone()
    asked = questions(4)
    lm = ResidentLM(*live, 4)
    try:
        weight.fill_(float("nan"))
        assert lm.generate_until(requests(asked)) == stock(*live, asked)
    finally:
        weight.copy_(kept)
    assert lm.generate_until(requests(asked)) == stock(*live, asked)
    with passes(live[0]) as seen:
        lm.generate_until(requests(asked))
    assert len(seen) == 1


def test_a_candidate_that_cannot_be_drawn_from_has_a_score_that_is_not_finite(live: tuple[Any, Any]) -> None:
    weight = live[0].model.norm.weight
    kept = weight.clone()
    asked: list[Ask] = [("Q ba A", {"until": ["Q"], "max_gen_toks": 2, "do_sample": True, "temperature": 1.0})]
    try:
        weight.fill_(float("nan"))
        with pytest.raises(NonFiniteScore, match="the chances of the next token of task own"):
            ResidentLM(*live, 4).generate_until(
                [Instance("generate_until", {}, ask, 0, metadata=("own", 0, 1)) for ask in asked]
            )
    finally:
        weight.copy_(kept)


def test_half_precision_repeats_whatever_the_batch_and_the_guesses(tiny: Any) -> None:
    from evaluation.live import load_live

    live = load_live(tiny.model, "cpu", "bfloat16")
    lm = ResidentLM(*live, 4)
    first = lm.generate_until(requests(questions(10)))
    assert lm.generate_until(requests(questions(10))) == first
    assert ResidentLM(*live, 1).generate_until(requests(questions(10))) == first
    assert len(set(first)) > 3
