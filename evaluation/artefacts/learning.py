"""Learning a candidate's numbers on texts by Adam: build it in the live model, take its gradients, step, again.

What is learned, and how a tensor's gradient becomes a gradient of it, is the learner's. Of all looks at the whole set
of texts the best one counts, the start among them: what is learned is never worse there than what it began with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from evaluation.artefacts.backward import Backward
from evaluation.artefacts.losses import Loss

EVERY = 10
"""Steps between two looks at all texts."""


class Learner(Protocol):
    """What is learned."""

    @property
    def leaves(self) -> Sequence[Tensor]:
        """The numbers that Adam moves, overwritten in place."""
        ...

    def build(self) -> None:
        """Makes the live model what the leaves say."""
        ...

    def take(self, name: str, gradient: Tensor) -> None:
        """Takes the loss's gradient by one tensor of the live model."""
        ...

    def pull(self) -> None:
        """Turns what was taken into gradients of the leaves, the penalty's among them, and forgets it."""
        ...

    def penalty(self) -> float:
        """What is added to the loss."""
        ...

    def settle(self) -> None:
        """Brings the leaves back to where they may be, after a step."""
        ...


@dataclass(frozen=True)
class Course:
    """How long and how fast.

    Attributes:
        steps: of Adam.
        rate: its first learning rate; it falls in a straight line to 0.
        batch: texts of a step.
    """

    steps: int
    rate: float
    batch: int

    def rounds(self, texts: int) -> int:
        """How often all texts are read, rounded up."""
        looks = 1 + -(-self.steps // EVERY)
        return looks + -(-self.steps * min(self.batch, texts) // max(texts, 1))


@dataclass(frozen=True)
class Learned:
    """What came of it: the loss with its penalty over all texts, at the start and at the step that was kept."""

    first: float
    last: float
    step: int


def learn(backward: Backward, learner: Learner, loss: Loss, course: Course) -> Learned:
    """Leaves the best numbers seen in the learner's leaves; the live model holds the last ones tried."""
    texts, losses = backward.subject.texts, dict[int, float]()
    optimiser = torch.optim.Adam(learner.leaves, lr=course.rate)
    best = [leaf.detach().clone() for leaf in learner.leaves]
    order = _order(len(texts), course)
    for step in range(course.steps + 1):
        learner.build()
        if step % EVERY == 0 or step == course.steps:
            losses[step] = backward.mean(loss) + learner.penalty()
            if min(losses, key=lambda each: losses[each]) == step:
                best = [leaf.detach().clone() for leaf in learner.leaves]
        if step == course.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = course.rate * (1.0 - step / course.steps)
        optimiser.zero_grad()
        backward.gradients(loss, [texts[i] for i in order[step]], learner.take)
        with torch.enable_grad():
            learner.pull()
        optimiser.step()
        learner.settle()
    with torch.no_grad():
        for leaf, value in zip(learner.leaves, best, strict=True):
            leaf.copy_(value)
    kept = min(losses, key=lambda each: losses[each])
    return Learned(losses[0], losses[kept], kept)


def _order(texts: int, course: Course) -> list[list[int]]:
    """The texts of each step: all of them in an order drawn anew, again and again."""
    generator, size = torch.Generator().manual_seed(0), min(course.batch, texts)
    drawn: list[int] = []
    while len(drawn) < course.steps * size:
        drawn += torch.randperm(texts, generator=generator).tolist()
    return [drawn[i * size : (i + 1) * size] for i in range(course.steps)]
