"""Gradients over many texts: the same in rounds, in small batches and with layers computed twice."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation.artefacts.backward import backward_of, computed_twice
from evaluation.artefacts.contract import Subject
from evaluation.artefacts.losses import cross_entropy, first_entropy
from evaluation.artefacts.texts import Text
from evaluation.live import live_tensors, load_live
from evaluation.lm.budget import Budget
from tests.evaluation.conftest import Tiny


@pytest.fixture(scope="module")
def subject(tiny: Tiny) -> Subject:
    model, _ = load_live(tiny.model, "cpu", "float32")
    generator = torch.Generator().manual_seed(0)
    lengths = [(3, 2), (9, 1), (4, 4), (12, 6), (2, 1)]
    texts = [Text(*(torch.randint(3, 30, (n,), generator=generator).tolist() for n in both)) for both in lengths]
    tensors = live_tensors(model, model.state_dict())
    return Subject(model, tensors, texts, Budget(model, "cpu", None), 1 << 30, lambda: None)


def gradients(subject: Subject) -> tuple[dict[str, Tensor], Any]:
    backward, found = backward_of(subject, sorted(subject.tensors)), dict[str, Tensor]()
    backward.gradients(cross_entropy, subject.texts, lambda name, gradient: found.update({name: gradient.clone()}))
    assert not any(p.requires_grad or p.grad is not None for p in subject.model.parameters())
    return found, backward


def test_they_are_those_of_the_mean_loss(subject: Subject) -> None:
    found, backward = gradients(subject)
    assert set(found) == set(subject.tensors) and not backward.twice and len(backward.names) == 1
    parameters = dict(subject.model.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    loss = torch.stack([cross_entropy(subject.model, [text]) for text in subject.texts]).mean()
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    subject.model.requires_grad_(False)
    assert backward.mean(cross_entropy) == pytest.approx(float(loss.detach()))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("room", [1 << 21, 1 << 17, 1 << 14])
def test_little_room_gives_the_same_in_more_passes(subject: Subject, room: int) -> None:
    expected, _ = gradients(subject)
    found, backward = gradients(replace(subject, room=room))
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    if room == 1 << 14:
        assert backward.twice and len(backward.names) > 1
        assert backward.subject.budget.tokens < subject.budget.tokens  # its own: others batch as before


def test_layers_are_left_as_they_were(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, calls = list(subject.model.base_model.layers), list[int]()
    whole, other = layers[0].forward, layers[1].forward

    def own(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return other(*args, **kwargs)

    monkeypatch.setattr(layers[1], "forward", own)
    with computed_twice(layers):
        assert layers[0].forward != whole
        cross_entropy(subject.model, subject.texts[:1])
    assert calls == [1] and layers[0].forward == whole and "forward" not in vars(layers[0])
    assert layers[1].forward is own


def test_memory_that_runs_out_halves_the_batch(subject: Subject) -> None:
    backward, failures, sizes = backward_of(subject, sorted(subject.tensors)), [True], list[int]()

    def loss(model: Any, texts: Any) -> Tensor:
        sizes.append(len(texts))
        value = cross_entropy(model, texts)
        if len(sizes) > 1 and failures:
            failures.pop()
            raise torch.OutOfMemoryError("out of memory")
        return value

    found = dict[str, Tensor]()
    backward.subject.budget.tokens = 24
    backward.gradients(loss, subject.texts, lambda name, gradient: found.update({name: gradient.clone()}))
    expected, _ = gradients(subject)
    for name, gradient in found.items():  # what the first batch had given was forgotten
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_losses_by_hand(subject: Subject) -> None:
    with torch.no_grad():
        expected, entropy = [], []
        for text in subject.texts:
            logits = subject.model(torch.tensor([[*text.context, *text.answer]])).logits[0]
            start = len(text.context) - 1
            answer = torch.tensor(text.answer)
            expected.append(torch.nn.functional.cross_entropy(logits[start:-1], answer))
            entropy.append(torch.distributions.Categorical(logits=logits[start]).entropy())
        torch.testing.assert_close(cross_entropy(subject.model, subject.texts), torch.stack(expected).sum())
        torch.testing.assert_close(first_entropy(subject.model, subject.texts), torch.stack(entropy).sum())
