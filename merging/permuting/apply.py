"""Puts a model's units in another order, tensor by tensor; and the algebra of such orders.

Orders are a mapping from a permutation's name to int64 [size]: unit i of the result is unit order[i] of the model.
A permutation that is not named keeps its order. Nothing is computed: the result has the same numbers, bit for bit.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from merging.permuting.specification import Permutation, Site, Specification

Orders = Mapping[str, Tensor]


def permute(specification: Specification, orders: Orders, name: str, tensor: Tensor) -> Tensor:
    """One tensor of the model with its units in the new order.

    Args:
        specification: of the model.
        orders: outer and inner ones are applied as `Permutation.outer` says.
        name: the tensor's.
        tensor: [*shape]; it is not changed.

    Returns:
        [*shape]; `tensor` itself where none of its units move.
    """
    indices: dict[int, Tensor] = {}
    for permutation, site in specification.sites.get(name, ()):
        if permutation.name in orders:
            index = indices.setdefault(site.axis, torch.arange(tensor.shape[site.axis]))
            part = index[site.start : site.end].view(site.repeats, site.count, site.width)
            index[site.start : site.end] = part[:, orders[permutation.name]].flatten()
    for axis, index in indices.items():
        tensor = tensor.index_select(axis, index.to(tensor.device))
    return tensor


def identity(specification: Specification) -> dict[str, Tensor]:
    """The orders that leave every unit where it is."""
    return {each.name: torch.arange(each.size) for each in specification.permutations}


def compose(specification: Specification, first: Orders, then: Orders) -> dict[str, Tensor]:
    """The orders that do at once what `first` and `then` do one after the other."""
    made = {}
    for each in specification.permutations:
        source = first.get(_before(each, then, specification), torch.arange(each.size))
        made[each.name] = source[then.get(each.name, slice(None))]
    return made


def inverse(specification: Specification, orders: Orders) -> dict[str, Tensor]:
    """The orders that undo these, whether they are applied before or after them."""
    made: dict[str, Tensor] = {}
    for each in specification.permutations:  # outer ones first
        back = orders.get(_before(each, made, specification), torch.arange(each.size))
        made[each.name] = torch.argsort(back)
    return made


def _before(permutation: Permutation, orders: Orders, specification: Specification) -> str:
    """Which permutation's units these orders bring to where this one's are: a sibling's if outer units move."""
    if permutation.outer not in orders:
        return permutation.name
    place = permutation.siblings.index(permutation.name)
    return permutation.siblings[int(orders[permutation.outer][place])]


def units(tensor: Tensor, site: Site) -> Tensor:
    """The numbers of each unit of a site, [count, numbers]."""
    axis_first = tensor.movedim(site.axis, 0)[site.start : site.end]
    return axis_first.reshape(site.repeats, site.count, -1).movedim(1, 0).reshape(site.count, -1)
