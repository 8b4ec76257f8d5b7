"""A loss over many texts and its gradients, in memory that is known before: batches, layers computed twice, rounds."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.gradients import tracked
from evaluation.artefacts.losses import Loss
from evaluation.artefacts.passes import read_all, rounds
from evaluation.artefacts.texts import Text

Take = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Backward:
    """How a live model's gradients are taken.

    Attributes:
        subject: with a budget of its own, for passes that keep activations.
        names: of the tensors that are followed, round by round.
        need: bytes of gradients and activations at most.
        twice: the layers whose activations are not kept but computed again; none if all fit.
    """

    subject: Subject
    names: list[list[str]]
    need: int
    twice: list[nn.Module]

    def mean(self, loss: Loss) -> float:
        """The mean loss over all of the subject's texts, without gradients."""
        values: list[float] = []

        @torch.no_grad()
        def read(batch: Sequence[Text]) -> None:
            values.append(float(loss(self.subject.model, batch)))

        read_all(self.subject, read, values.clear)
        return sum(values) / len(self.subject.texts)

    def gradients(self, loss: Loss, texts: list[Text], take: Take) -> None:
        """Gives the gradient of the mean loss over these texts, tensor by tensor; afterwards none is left."""
        model = self.subject.model
        for names in self.names:
            tensors = {name: self.subject.tensors[name] for name in names}
            with tracked(model, tensors) as found, computed_twice(self.twice):

                def read(batch: Sequence[Text]) -> None:
                    (loss(model, batch) / len(texts)).backward()

                def restart(found: Callable[[], Iterator[tuple[str, Tensor]]] = found) -> None:
                    for _ in found():
                        pass

                read_all(replace(self.subject, texts=texts), read, restart)
                with torch.no_grad():
                    for name, gradient in found():
                        take(name, gradient)


def backward_of(subject: Subject, names: Sequence[str]) -> Backward:
    """How the gradients of these tensors fit into half of the subject's room, and activations into the other.

    Args:
        names: of tensors of floating point.
    """
    half = subject.room // 2
    parts = rounds(names, lambda name: _bytes(subject.tensors[name]), half)
    gradients = max((sum(_bytes(subject.tensors[name]) for name in part) for part in parts), default=0)
    budget, layers = copy.copy(subject.budget), _layers(subject.model)
    kept, once = _activations(subject.model)
    longest = max(map(len, subject.texts))
    wanted = min(budget.tokens, sum(map(len, subject.texts)))
    twice = layers if wanted * kept > half else []
    each = once if twice else kept
    budget.tokens = max(longest, min(wanted, half // each))
    return Backward(replace(subject, budget=budget), parts, int(gradients + budget.tokens * each), twice)


@contextmanager
def computed_twice(layers: Sequence[nn.Module]) -> Iterator[None]:
    """These modules keep their inputs alone and are computed again on the way back.

    Not by `gradient_checkpointing_enable`: transformers heeds that in training mode only, where dropout acts.
    """
    before = [layer.__dict__.get("forward") for layer in layers]  # None: the class's own
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def _layers(model: Any) -> list[nn.Module]:
    """The layers of the model's longest stack."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))


def _activations(model: Any) -> tuple[int, int]:
    """Bytes that a position keeps for the way back: where layers keep all, and where they are computed twice."""
    config = model.config.get_text_config()
    layers, hidden = int(getattr(config, "num_hidden_layers", 0) or 24), int(getattr(config, "hidden_size", 0) or 1024)
    inner = max(int(getattr(config, "intermediate_size", 0) or 0), 4 * hidden)
    size = next(model.parameters()).element_size()
    layer, head = size * (16 * hidden + 3 * inner), (size + 12) * int(config.vocab_size)
    return layers * layer + head, size * layers * hidden + layer + head


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
