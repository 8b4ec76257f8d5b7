"""The diagonal Fisher information: closed form, autograd sequence by sequence, and rounds that change nothing."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import LlamaConfig, MambaConfig, MambaForCausalLM

from evaluation.artefacts import fisher as module
from evaluation.artefacts.contract import Subject
from evaluation.artefacts.fisher import Fisher, drawn, measure_fisher
from evaluation.artefacts.gradients import tracked
from evaluation.artefacts.texts import Text
from evaluation.artefacts.workshop import nobody
from tests.evaluation.artefacts.subjects import VOCABULARY, ids, llama, mixture, request, some_texts, subject_of


class Logistic(nn.Module):
    """A language of two words, of which the next hangs on the last token's fixed inputs alone: logistic regression.

    Args:
        inputs: of each token, [tokens, d].
        weight: of the two words, [2, d].
    """

    def __init__(self, inputs: Tensor, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("inputs", inputs, persistent=False)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.config, self.device = LlamaConfig(), torch.device("cpu")

    def forward(self, input_ids: Tensor, use_cache: bool, past_key_values: None = None) -> Any:
        return SimpleNamespace(logits=self.get_buffer("inputs")[input_ids] @ self.weight.mT, past_key_values=None)


def regression(chances: list[float]) -> tuple[Tensor, Tensor]:
    """Inputs x of as many contexts, and weights by which the second word follows each with its chance."""
    count = len(chances)
    inputs = torch.randn(count, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = torch.tensor([math.log(p / (1 - p)) for p in chances], dtype=torch.float64)
    difference = torch.linalg.solve(inputs, logits)
    return inputs.float(), torch.stack([torch.full_like(difference, 0.5), 0.5 + difference]).float()


def measured(subject: Subject, labels: str = "given") -> tuple[dict[str, Tensor], Fisher]:
    """All values, and what measured them."""
    found = measure_fisher(subject, request("fisher", labels=labels))
    values = {name: value.clone() for name, value in found.values()}
    assert [(name, tuple(value.shape)) for name, value in values.items()] == [
        (n, shape) for n, _, shape in found.shapes
    ]
    return values, found


def gradients(model: Any, text: Text) -> dict[str, Tensor]:
    """∂ log p(answer | context) / ∂θ of each parameter, by torch alone."""
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    row, first = ids(text), len(text.context)
    loss = cross_entropy(model(input_ids=row).logits[0, first - 1 : -1], row[0, first:], reduction="sum")
    found = torch.autograd.grad(loss, list(parameters.values()))
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    return dict(zip(parameters, found, strict=True))


def expected(model: Any, texts: list[Text]) -> dict[str, Tensor]:
    """The mean over sequences of each one's squared gradient."""
    each = [gradients(model, text) for text in texts]
    return {name: torch.stack([one[name].square() for one in each]).mean(0) for name in each[0]}


def assert_untracked(model: Any) -> None:
    assert all(not each.requires_grad and each.grad is None for each in model.parameters())


def test_given_answers_as_frequent_as_they_are_likely_give_logistic_regression_s_own() -> None:
    chances = [0.25, 0.5, 0.75]
    inputs, weight = regression(chances)
    texts = [Text([c], [int(i < 4 * p)]) for c, p in enumerate(chances) for i in range(4)]
    values, found = measured(subject_of(Logistic(inputs, weight), texts))
    wanted = torch.stack([p * (1 - p) * x.square() for p, x in zip(chances, inputs, strict=True)]).mean(0)
    assert_close(values["weight"], torch.stack([wanted, wanted]), rtol=0, atol=1e-6)
    figures = found.figures()
    assert figures["mean"] == pytest.approx(float(wanted.mean()), abs=1e-6) and figures["sequences"] == 12
    assert figures["norm"] == pytest.approx(float(wanted.norm()) * 2**0.5, abs=1e-6)


def test_answers_drawn_from_the_model_give_it_without_bias() -> None:
    chances, count = [0.15, 0.35], 3000
    rows, weight = regression(chances)
    contexts = torch.arange(count)
    texts = [Text([int(c)], [1]) for c in contexts]  # the given answers are always the same
    model = Logistic(rows[contexts % 2], weight)
    squares, p = rows.square().double(), torch.tensor(chances, dtype=torch.float64)[:, None]
    wanted = (p * (1 - p) * squares).mean(0)
    variance = (p * (1 - p) * (1 - 2 * p).square() * squares.square()).mean(0)
    off = (measured(subject_of(model, texts), "drawn")[0]["weight"][1].double() - wanted).abs()
    assert bool((off <= 4 * (variance / count).sqrt()).all())
    given = (measured(subject_of(model, texts))[0]["weight"][1].double() - wanted).abs()
    assert bool((given > 4 * (variance / count).sqrt()).all())


def test_draws_are_repeatable_and_move_no_other_generator() -> None:
    model, texts = llama(), [Text(text.context, [0] * 6) for text in some_texts()]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = [drawn(model, text, nobody) for text in texts]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert [drawn(model, text, nobody) for text in texts] == first
    assert [text.context for text in first] == [text.context for text in texts]
    assert {len(text.answer) for text in first} == {6} and len({tuple(text.answer) for text in first}) == len(texts)


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_draws_follow_the_model_token_by_token(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    model = llama() if family == "llama" else MambaForCausalLM(MambaConfig(**sizes)).eval()
    chances: list[Tensor] = []

    def draw(given: Tensor, count: int, generator: torch.Generator) -> Tensor:
        chances.append(given)
        return given.argmax()

    monkeypatch.setattr(torch, "multinomial", draw)
    beats: list[int] = []
    answer = drawn(model, Text([3, 4, 5], [0] * 4), lambda: beats.append(len(chances))).answer
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[3, 4, 5, *answer]])).logits[0, 2:-1]
    assert_close(torch.stack(chances), logits.softmax(-1), rtol=1e-4, atol=1e-6)
    assert beats == [0, 1, 2, 3]  # one before every pass


def test_each_sequence_is_squared_by_itself() -> None:
    model, texts = llama(), some_texts()
    values, _ = measured(subject_of(model, texts))
    wanted = expected(model, texts)
    assert values.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(values[name], value, rtol=1e-3, atol=1e-6)
    batch = torch.stack([gradients(model, text)["lm_head.weight"] for text in texts]).sum(0).square() / len(texts)
    assert float((batch - wanted["lm_head.weight"]).norm() / wanted["lm_head.weight"].norm()) > 0.1


def test_tied_embeddings_have_one_tensor_with_the_gradients_of_both() -> None:
    model, texts = llama(tie_word_embeddings=True), some_texts(3)
    values, _ = measured(subject_of(model, texts))
    assert "lm_head.weight" not in values
    wanted = expected(model, texts)["model.embed_tokens.weight"]
    assert_close(values["model.embed_tokens.weight"], wanted, rtol=1e-3, atol=1e-6)
    untouched = sorted(set(range(VOCABULARY)) - {token for text in texts for token in text.context})
    assert bool((values["model.embed_tokens.weight"][untouched] > 0).any())  # the head reads every row


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_that_are_fused_get_their_own_share(family: str, tmp_path: Path) -> None:
    (model, tensors), texts = mixture(family, tmp_path), some_texts(3)
    values, found = measured(subject_of(model, texts, tensors, room=1))
    assert values.keys() == tensors.keys()
    for number in range(2):
        wanted = expected(model, texts)
        prefix = f"model.layers.{number}.mlp.experts."
        gates, ups = wanted[f"{prefix}gate_up_proj"].chunk(2, dim=1)
        kinds = {"w1": gates, "gate_proj": gates, "w3": ups, "up_proj": ups, "w2": wanted[f"{prefix}down_proj"]}
        kinds["down_proj"] = kinds["w2"]
        mine = [n for n in tensors if f"layers.{number}." in n and ".experts." in n]
        assert len(mine) == 3 * 3
        for name in mine:
            expert, kind = name.split(".")[-3:-1]
            assert_close(values[name], kinds[kind][int(expert)], rtol=1e-3, atol=1e-6)
    assert found.rounds == len(list(model.parameters()))  # a gradient of one expert's share alone is not to be had


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_small_room_takes_several_rounds_and_gives_the_same(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tensors = (llama(), None) if family == "llama" else mixture(family, tmp_path)
    taken: list[int] = []

    def counted(model: Any, tensors: dict[str, Tensor]) -> Any:
        sums = sum(4 * tensor.numel() for tensor in tensors.values())
        gradients = [p.nbytes for p in model.parameters() if any(_within(t, p) for t in tensors.values())]
        taken.append(sums + sum(gradients))
        return tracked(model, tensors)

    monkeypatch.setattr(module, "tracked", counted)
    texts = some_texts(3)
    whole, large = measured(subject_of(model, texts, tensors))
    assert (large.rounds, large.need) == (1, taken[0])
    taken.clear()
    room = large.need // 4
    parts, small = measured(subject_of(model, texts, tensors, room=room))
    assert small.rounds == len(taken) > 3 and small.need == max(taken) <= room
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert small.figures() == large.figures()
    assert_untracked(model)


def _within(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor lies in the memory of a parameter."""
    return parameter.data_ptr() <= tensor.data_ptr() < parameter.data_ptr() + parameter.nbytes


@pytest.mark.parametrize("after", [0, 5, 12])
def test_nothing_is_followed_afterwards_even_if_a_beat_ends_it(after: int) -> None:
    model, beats = llama(), list[None]()

    def beat() -> None:
        if len(beats) == after:
            raise InterruptedError("stopped")
        beats.append(None)

    with pytest.raises(InterruptedError):
        measured(subject_of(model, some_texts(), room=20_000, beat=beat))
    assert_untracked(model)
