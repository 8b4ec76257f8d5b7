"""Packs every tensor of an expert: unchanged ones as `same`, what the codec does not take `whole`, the rest by it."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.codecs.catalog import Row, codec, implementation
from merging.codecs.contract import Codec, Packed
from merging.codecs.whole import Same, Whole
from merging.errors import InvalidModel
from merging.expert import Expert
from merging.fingerprint import is_finite
from merging.roles import role

Item = tuple[str, str, Packed]


def pack_expert(
    base: Checkpoint, expert: Expert, name: str, settings: Mapping[str, object], whole: frozenset[str] = frozenset()
) -> Iterator[Item]:
    """Every tensor's name, the form it is in (`merging.codecs.catalog.FORMS`) and the packed tensor, by name.

    A tensor is read and packed when its turn comes. Integers, flags and tensors of another shape than the base's (rows
    of new tokens) are kept whole.

    Args:
        base, expert: the models.
        name: of a codec.
        settings: those of the codec that differ from its defaults.
        whole: tensors to keep whole.

    Raises:
        InvalidStudy: there is no such codec, or a setting makes no sense.
        InvalidModel: the models do not have the same tensors; when its turn comes, a tensor has NaN or infinity.
    """
    row = codec(name)
    chosen = row.checked(settings)
    if odd := set(base.names) ^ set(expert.names):
        first = min(odd)
        problem = f"lacks the base's tensor {first}" if first in base.names else f"has {first}, which the base lacks"
        raise InvalidModel(expert.key, str(expert.path), problem, "use a fine-tune of this base with the same ties")
    return (
        (
            tensor,
            *(("whole", Whole(expert.tensor(tensor))) if tensor in whole else _pack(tensor, base, expert, row, chosen)),
        )
        for tensor in expert.names
    )


def _pack(name: str, base: Checkpoint, expert: Expert, row: Row, settings: Mapping[str, float]) -> tuple[str, Packed]:
    """One tensor: its form, and the tensor in it."""
    before, after = base.tensor(name), expert.tensor(name)
    if before.shape != after.shape:
        return "whole", Whole(after)
    if _unchanged(before, after, row.lossless):
        return "same", Same(tuple(after.shape))
    if not (before.is_floating_point() and after.is_floating_point()):
        return "whole", Whole(after)
    for model, tensor in ((base, before), (expert, after)):
        if not is_finite(tensor):
            problem = f"has NaN or infinity in tensor {name}"
            raise InvalidModel(model.key, str(model.path), problem, "use a checkpoint that trained to the end")
    code: Codec = implementation(row.name)
    packed = code.pack(before, after, role(name, after.shape, base.config), settings)
    return "whole" if isinstance(packed, Whole) else row.name, packed


def _unchanged(base: Tensor, expert: Tensor, lossless: bool) -> bool:
    """Whether the bits are equal; where something may be lost, equal values of different dtypes will do."""
    if base.dtype == expert.dtype:
        return torch.equal(base.flatten().view(torch.uint8), expert.flatten().view(torch.uint8))
    floats = base.is_floating_point() and expert.is_floating_point()
    return floats and not lossless and torch.equal(base.double(), expert.double())
