"""Trained masks: the few elements of an expert's delta under which the answers to its own texts are likeliest.

The candidate is θ₀ + σ(S) ⊙ τ, S a logit for each of the elements that moved furthest, four times as many as are
kept; all begin alike, and the rest of the delta stays out. Adam makes −log p(answer) per token + l1 · mean σ(S) small;
then the `share` of the model with the highest logits is the mask (skill grafting, arXiv:2302.06600, and
Localize-and-Stitch, arXiv:2408.13656, whose code pushes every logit away from 0 instead of down).

An artefact has one tensor of bits (`merging.codecs.bits`) for each of the model's: uint8 [⌈n / 8⌉].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.artefacts.backward import Backward, backward_of
from evaluation.artefacts.contract import Joint, Subject, alone
from evaluation.artefacts.learning import Course, Learned, learn
from evaluation.artefacts.logits import BYTES, Logits, candidates
from evaluation.artefacts.losses import cross_entropy
from merging.artefacts.request import Request
from merging.codecs.bits import pack, packed_size
from merging.recipe import GroupMerge, Recipe
from merging.weightfiles import Shape

POOL = 4
"""Elements that have a logit, for each that is kept."""


@dataclass
class Masks:
    """Trains the mask of one expert: a `Measurement`.

    Args:
        kept: how many elements the mask keeps.
    """

    subject: Subject
    backward: Backward
    masks: Logits
    course: Course
    kept: int
    _learned: Learned | None = None

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        sizes = {name: self.subject.tensors[name].numel() for name in self.masks.candidates}
        return [(name, torch.uint8, (packed_size(size),)) for name, size in sizes.items()]

    @property
    def need(self) -> int:
        """Bytes of gradients and activations, and of all that is kept of each element with a logit."""
        return self.backward.need + BYTES * self.masks.count

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return self.course.rounds(len(self.subject.texts)) * len(self.backward.names)

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`. The live model holds the base afterwards."""
        with self.masks.trying():
            self._learned = learn(self.backward, self.masks, cross_entropy, self.course)
        for name, places in self.masks.kept(self.kept).items():
            flags = torch.zeros(self.subject.tensors[name].numel(), dtype=torch.bool)
            flags[places] = True
            yield name, pack(flags)

    def figures(self) -> Mapping[str, float | int]:
        """The loss at the start and as kept, the step that was, how many texts were read, and elements kept."""
        assert self._learned is not None, "all values were taken"
        done = {"first loss": self._learned.first, "last loss": self._learned.last, "best step": self._learned.step}
        kept = min(self.kept, self.masks.count)
        return {**done, "steps": self.course.steps, "texts": len(self.subject.texts), "kept": kept}


def measure_masks(subject: Subject, request: Request) -> Masks:
    """The measurement of a `masks` artefact; the live model is made the base.

    Raises:
        MemoryError: the logits do not fit.
    """
    assert subject.joint is not None, "a mask is of an expert's delta, and needs the base"
    settings, joint = dict(request.settings), subject.joint
    names = [name for name in joint.models.base.names if subject.tensors[name].is_floating_point()]
    size = sum(subject.tensors[name].numel() for name in names)
    kept = max(1, round(settings["share"] * size))
    if BYTES * min(POOL * kept, size) > subject.room:
        raise MemoryError(f"masks of {kept} elements need more than {subject.room} bytes; lower the method's share")
    joint.resident.apply(_base(joint))
    masks = Logits(candidates(subject, joint, request.expert, names, min(POOL * kept, size)), settings["l1"])
    course = Course(settings["steps"], settings["rate"], settings["batch"])
    return Masks(subject, backward_of(subject, names), masks, course, kept)


def _base(joint: Joint) -> Recipe:
    """The recipe that is the base."""
    weights = dict.fromkeys(joint.models.names, 0.0)
    whole = GroupMerge(layers=(0, joint.models.layout.layer_count), method="task_arithmetic", weights=weights)
    return alone(joint.models, joint.models.names[0]).model_copy(update={"groups": (whole,)})
