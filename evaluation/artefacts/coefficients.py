"""Learned coefficients: how much of each expert, layer by layer, makes a loss over documents smallest.

An artefact of all models together with one number for each expert and tensor, `<fingerprint>/<tensor>`, float32 []:
the delta's coefficient, or with `alpha0` the base's share. Experts of equal content have equal coefficients by
symmetry. Settings say what is learned: `alpha0` adaptive averaging, `start` AdaMerging, else a learned soup.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.backward import Backward, backward_of
from evaluation.artefacts.contract import Joint, Subject, alone
from evaluation.artefacts.forms import MOST, Form, Free, Ratios, Softmax
from evaluation.artefacts.learning import Course, Learned, learn
from evaluation.artefacts.losses import Loss, cross_entropy, first_entropy
from merging.arrangement import arrange
from merging.artefacts.request import Request
from merging.coefficients import inner_products
from merging.layers import Layout
from merging.recipe import GroupMerge, Override, Recipe
from merging.schedule import GroupKey, assign, group_keys
from merging.weightfiles import Shape

_METHOD = "task_arithmetic"


@dataclass
class _Soup:
    """A `Learner` of coefficients.

    Attributes:
        keys: what has coefficients of its own: groups of layers, or tensors by name, longer names first.
        groups: each tensor's place among the keys.
        slopes: dL/dλ, float64 [T, keys].
    """

    joint: Joint
    form: Form
    keys: Sequence[GroupKey | str]
    groups: Mapping[str, int] = field(init=False)
    slopes: Tensor = field(init=False)

    def __post_init__(self) -> None:
        models, recipe = self.joint.models, self._recipe()
        first = len(recipe.groups) if recipe.overrides else 0
        indices = assign(recipe, arrange(recipe, models.layout, models.names))
        self.groups = {name: index - first for name, index in indices.items()}
        self.slopes = torch.zeros(len(models.names), len(self.keys), dtype=torch.float64)

    @property
    def leaves(self) -> list[Tensor]:
        """As `Learner.leaves`."""
        return [self.form.raw]

    def build(self) -> None:
        """As `Learner.build`."""
        self.joint.resident.apply(self._recipe())

    def take(self, name: str, gradient: Tensor) -> None:
        """As `Learner.take`."""
        self.slopes[:, self.groups[name]] += inner_products(gradient, self.joint.models.stack(name))

    def pull(self) -> None:
        """As `Learner.pull`."""
        ((self.form.weights() * self.slopes).sum() + self.form.penalty()).backward()
        self.slopes.zero_()

    def penalty(self) -> float:
        """As `Learner.penalty`."""
        return float(self.form.penalty().detach())

    def settle(self) -> None:
        """As `Learner.settle`."""
        self.form.settle()

    def _recipe(self) -> Recipe:
        """The candidate: task arithmetic with the present coefficients."""
        models, columns = self.joint.models, self.form.weights().detach().T.tolist()
        each = [dict(zip(models.names, column, strict=True)) for column in columns]
        whole = alone(models, models.names[0])
        groups, overrides = [], []
        for key, weights in zip(self.keys, each, strict=True):
            if isinstance(key, str):
                overrides.append(Override(method=_METHOD, contains=key, weights=weights))
            else:
                groups.append(GroupMerge(method=_METHOD, layers=key.layers, modules=key.modules, weights=weights))
        return whole.model_copy(update={"groups": tuple(groups) or whole.groups, "overrides": tuple(overrides)})


@dataclass
class Coefficients:
    """Learns them: a `Measurement`."""

    backward: Backward
    joint: Joint
    soup: _Soup
    loss: Loss
    course: Course
    _learned: Learned | None = None

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        owners = dict.fromkeys(self.joint.models.expert_fingerprints)
        return [(f"{owner}/{name}", torch.float32, ()) for owner in owners for name in self.joint.models.base.names]

    @property
    def need(self) -> int:
        """Bytes of gradients and activations, and of Adam's sums."""
        return self.backward.need + 5 * 8 * self.soup.form.raw.numel()

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return self.course.rounds(len(self.backward.subject.texts)) * len(self.backward.names)

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`. The live model holds the last candidate that was tried."""
        self._learned = learn(self.backward, self.soup, self.loss, self.course)
        found, models = self.soup.form.kept().float(), self.joint.models
        rows = dict(zip(reversed(models.expert_fingerprints), reversed(range(len(found))), strict=True))
        for owner in dict.fromkeys(models.expert_fingerprints):
            for name in models.base.names:
                yield f"{owner}/{name}", found[rows[owner], self.soup.groups[name]]

    def figures(self) -> Mapping[str, float | int]:
        """The loss at the start and as kept, the step that was, and how many texts were read."""
        assert self._learned is not None, "all values were taken"
        done = {"first loss": self._learned.first, "last loss": self._learned.last, "best step": self._learned.step}
        return {**done, "steps": self.course.steps, "texts": len(self.backward.subject.texts)}


def measure_coefficients(subject: Subject, request: Request) -> Coefficients:
    """The measurement of a `coefficients` artefact."""
    assert subject.joint is not None, "it is of all models together"
    settings, joint = dict(request.settings), subject.joint
    keys = _keys(settings, joint.models.layout)
    names = [name for name in joint.models.base.names if subject.tensors[name].is_floating_point()]
    course = Course(settings["steps"], settings["rate"], settings["batch"])
    soup = _Soup(joint, _form(settings, len(joint.models.names), len(keys)), keys)
    loss = first_entropy if "start" in settings else cross_entropy
    return Coefficients(backward_of(subject, names), joint, soup, loss, course)


def _keys(settings: Mapping[str, Any], layout: Layout) -> Sequence[GroupKey | str]:
    """What has coefficients of its own."""
    count, granularity = layout.layer_count, settings.get("granularity")
    if granularity is None:
        return group_keys(count, min(int(settings["blocks"]), count), "together")
    if granularity == "tensor":  # an override counts wherever its text occurs, and the first that fits
        return sorted(layout.places, key=lambda name: (-len(name), name))
    return group_keys(
        count, 1 if granularity == "model" else "each", "split" if granularity == "module" else "together"
    )


def _form(settings: Mapping[str, Any], experts: int, groups: int) -> Form:
    if "alpha0" in settings:
        return Ratios(experts, groups, settings["alpha0"], settings["epsilon"])
    if "start" in settings:
        return Free(experts, groups, settings["start"], 0.0)
    return Softmax(experts, groups) if settings["form"] == "softmax" else Free(experts, groups, 1.0 / experts, -MOST)
