"""Whether an expert's hidden units stand in another order than the base's: a cheap test on a sample of them.

The order of an MLP's hidden units means nothing, so models that were trained apart have them in different orders,
and a tool may have shuffled them; fine-tuning never does. If units of the expert resemble other units of the base
far better than their own, weights that do not belong together would be averaged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.diagnosis.opening import Opened
from merging.layers import Layout

SAMPLED_LAYERS = 8
SAMPLED_UNITS = 256
ALIKE = 0.7  # cosine from which on two units may be the same one, trained further; chance gives 0.5 in narrow models
CLEARLY = 0.1  # by how much the other unit must resemble it better than its own
_BLOCK = 1024  # base units compared at a time
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")


@dataclass(frozen=True)
class Match:
    """How one expert's units of one MLP match the base's.

    Attributes:
        expert, tensor: whose units, and of which matrix.
        elsewhere: the share of sampled units that clearly resemble another unit of the base better than their own.
        own, best: mean cosine with the unit in the same place, and with the most similar one.
    """

    expert: str
    tensor: str
    elsewhere: float
    own: float
    best: float


def matches(models: Opened) -> Iterator[Match]:
    """The matches of every expert in a sample of the layers; experts without the matrix are passed over."""
    if models.base is None:
        return
    comparable = {expert: models.comparable(expert) for expert in models.experts}
    for name, axis in sampled(models.base, models.layout):
        theirs = models.base.tensor(name).movedim(axis, 0)
        for expert, checkpoint in models.experts.items():
            if name in comparable[expert]:
                yield Match(expert, name, *match(theirs, checkpoint.tensor(name).movedim(axis, 0)))


def sampled(base: Checkpoint, layout: Layout) -> list[tuple[str, int]]:
    """One MLP matrix a layer, of layers spread over the model, with the axis along which its hidden units lie."""
    hidden = hidden_size(base.config)
    found: dict[int, tuple[int, str]] = {}
    for name in base.names:
        place, entry = layout.places[name], base.entry(name)
        if not isinstance(place.layer, int) or place.module != "mlp" or not entry.dtype.is_floating_point:
            continue
        axis = unit_axis(entry.shape, hidden)
        if axis is not None:  # units along the first axis are read in one piece
            found[place.layer] = min(found.get(place.layer, (axis, name)), (axis, name))
    layers = sorted(found)
    step = max(1, -(-len(layers) // SAMPLED_LAYERS))
    return [(found[layer][1], found[layer][0]) for layer in layers[::step]]


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """The width of the residual stream; None if the config does not say."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        for key in _HIDDEN:
            if isinstance(part.get(key), int):
                return int(part[key])
    return None


def unit_axis(shape: tuple[int, ...], hidden: int | None) -> int | None:
    """The axis of an MLP matrix along which its hidden units lie: the one that is not the model's width."""
    if len(shape) != 2 or shape[0] == shape[1]:
        return None
    if hidden in shape:
        return 1 - shape.index(hidden)
    return 0 if shape[0] > shape[1] else 1


def match(base: Tensor, expert: Tensor) -> tuple[float, float, float]:
    """`Match.elsewhere`, `own` and `best` of two matrices [units, width].

    Units of length zero are left out; without any other the answer is (0, 1, 1).
    """
    count = expert.shape[0]
    indices = torch.arange(0, count, max(1, -(-count // SAMPLED_UNITS)))
    units = expert[indices].float()
    kept = (units.norm(dim=1) > 0) & torch.isfinite(units).all(1)
    indices, units = indices[kept], torch.nn.functional.normalize(units[kept], dim=1)
    if not len(indices):
        return 0.0, 1.0, 1.0
    best = torch.full((len(indices),), -1.0)
    own = torch.zeros(len(indices))
    for first in range(0, count, _BLOCK):
        block = torch.nn.functional.normalize(base[first : first + _BLOCK].float().nan_to_num(), dim=1)
        cosines = units @ block.T
        best = torch.maximum(best, cosines.max(1).values)
        here = (indices >= first) & (indices < first + block.shape[0])
        own[here] = cosines[here, indices[here] - first]
    elsewhere = (best >= ALIKE) & (best > own + CLEARLY)
    return float(elsewhere.double().mean()), float(own.mean()), float(best.mean())
