"""Logits on a delta's largest elements, learned in the live model: θ₀ + σ(S) ⊙ τ there, the base everywhere else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.artefacts.contract import Joint, Subject
from merging.arrangement import Part
from merging.memo import Memo
from merging.statistics import ModelStatistics

BYTES = 44
"""What each takes: index, origin, delta; logit, its gradient, Adam's two sums, the best one, and what is in between."""


@dataclass(frozen=True)
class Candidates:
    """The elements of one tensor that have a logit.

    Attributes:
        live: the tensor of the live model.
        places: flat indices, int64 [n], ascending.
        origin: the base's elements as the live model holds them, [n].
        deltas: the expert's, float32 [n].
        logits: float32 [n], a leaf.
    """

    live: Tensor
    places: Tensor
    origin: Tensor
    deltas: Tensor
    logits: Tensor

    def write(self, values: Tensor) -> None:
        """Puts these values [n] in the live tensor's places."""
        flat = self.live.view(-1) if self.live.is_contiguous() else self.live.flatten()
        flat[self.places] = values.to(flat.dtype)
        if not self.live.is_contiguous():
            self.live.copy_(flat.view(self.live.shape))


@dataclass
class Logits:
    """A `Learner` of logits, by tensor name.

    Attributes:
        l1: the penalty's weight.
    """

    candidates: Mapping[str, Candidates]
    l1: float

    @property
    def leaves(self) -> list[Tensor]:
        """As `Learner.leaves`."""
        return [one.logits for one in self.candidates.values()]

    @property
    def count(self) -> int:
        """How many logits there are."""
        return sum(leaf.numel() for leaf in self.leaves)

    @torch.no_grad()
    def build(self) -> None:
        """As `Learner.build`."""
        for one in self.candidates.values():
            one.write(one.origin.float() + one.logits.sigmoid() * one.deltas)

    def take(self, name: str, gradient: Tensor) -> None:
        """As `Learner.take`: ∂L/∂S = ∂L/∂θ · τ · σ'(S)."""
        one = self.candidates[name]
        masks = one.logits.sigmoid()
        one.logits.grad = gradient.reshape(-1)[one.places].float() * one.deltas * masks * (1.0 - masks)

    @torch.no_grad()
    def pull(self) -> None:
        """As `Learner.pull`: a logit is lowered by what its mask costs."""
        each = self.l1 / max(self.count, 1)
        for one in self.candidates.values():
            masks = one.logits.sigmoid()
            slope = each * masks * (1.0 - masks)
            one.logits.grad = slope if one.logits.grad is None else one.logits.grad + slope

    def penalty(self) -> float:
        """As `Learner.penalty`: l1 · mean σ(S)."""
        total = sum(float(leaf.detach().sigmoid().sum(dtype=torch.float64)) for leaf in self.leaves)
        return self.l1 * total / max(self.count, 1)

    def settle(self) -> None:
        """Every logit may be."""

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Afterwards the live model holds the base's elements again, as it did before."""
        try:
            yield
        finally:
            with torch.no_grad():
                for one in self.candidates.values():
                    one.write(one.origin)

    def kept(self, count: int) -> dict[str, Tensor]:
        """The highest logits' flat indices, by tensor; of equal ones those of the first tensors come first."""
        every = torch.cat([leaf.detach().cpu() for leaf in self.leaves])
        chosen = torch.zeros(len(every), dtype=torch.bool)
        chosen[every.sort(descending=True, stable=True).indices[:count]] = True
        parts = chosen.split([leaf.numel() for leaf in self.leaves])
        return {name: one.places.cpu()[part] for (name, one), part in zip(self.candidates.items(), parts, strict=True)}


def candidates(subject: Subject, joint: Joint, expert: str, names: Sequence[str], count: int) -> dict[str, Candidates]:
    """The `count` elements of the whole model that the expert moved furthest, to 1 %; the live model holds the base."""
    models, number = joint.models, joint.models.names.index(expert)
    parts = [Part(name, models.layout.places[name], name, (name,) * len(models.names)) for name in names]
    figures, found = ModelStatistics(lambda part: models.stack(part.base), parts, Memo(0)), {}
    for part in parts:
        stack, live = models.stack(part.base), subject.tensors[part.name]
        delta = (stack.experts[number].float() - stack.base.float()).flatten()
        cut = figures.of(part).cut(number, count, "model")
        above, level = delta.abs() > cut.value, (delta.abs() == cut.value).nonzero().flatten()
        above[level[level <= cut.index]] = True
        places = above.nonzero().flatten()
        device = live.device
        logits = torch.zeros(len(places), device=device, requires_grad=True)
        origin = live.detach().flatten()[places.to(device)]
        found[part.name] = Candidates(live.detach(), places.to(device), origin, delta[places].to(device), logits)
    return found
