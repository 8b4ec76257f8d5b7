"""Finds the order of one model's units that brings it nearest to another: by its weights, or by given similarities.

Weight matching is Git Re-Basin's coordinate ascent on Σ_W ⟨W_reference, P(W_expert)⟩ (arXiv:2209.04836, algorithm 1):
with all other units where they are, the best order of one set of units is a linear sum assignment. Where that ends
depends on the order of work: units that share tensors (heads, MLPs and the residual stream) may end in a poorer match
than the best. Activations say of each set of units by itself which is which, whatever the others' order is; what they
find can be where the ascent starts. Models trained far apart may have no units in common, which no permutation can
mend.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from merging.methods.primitives import steady_sum
from merging.permuting.apply import Orders, compose, identity, permute, units
from merging.permuting.assignment import assign
from merging.permuting.heads import HeadProducts, Step, match_heads
from merging.permuting.specification import Permutation, Site, Specification

MOST_SWEEPS = 100
_GAIN = 1e-12  # of the similarity: less is rounding
Source = Callable[[str], Tensor]
"""Gives a model's tensor of a name, on the CPU."""


@dataclass(frozen=True)
class Match:
    """What the ascent found.

    Attributes:
        orders: for every permutation of the specification; to be applied to the expert.
        sweeps: how many times it went over the permutations that could still gain.
        gain: by how much Σ_W ⟨W_reference, P(W_expert)⟩ grew since the orders it started from.
    """

    orders: Mapping[str, Tensor]
    sweeps: int
    gain: float


@dataclass(frozen=True)
class Assigned:
    """What similarities of activations say.

    Attributes:
        orders: of the permutations that similarities were given for, and of those inside them.
        unsure: bool [size] of each: the places that got a unit without any similarity, on either side.
        likeness: the mean similarity of units in one place, before and with these orders; by the name it was given for.
    """

    orders: dict[str, Tensor]
    unsure: dict[str, Tensor]
    likeness: dict[str, tuple[float, float]]

    def update(self, other: "Assigned") -> None:
        """Takes in what was found of other permutations."""
        self.orders.update(other.orders)
        self.unsure.update(other.unsure)
        self.likeness.update(other.likeness)


def match_weights(
    specification: Specification, reference: Source, expert: Source, seed: int = 0, start: Orders | None = None
) -> Match:
    """The orders of the expert's units in which its weights are most like the reference's.

    Ends when no permutation gains more than 10^-12 of its similarity, or after 100 sweeps. Memory: a few tensors and
    the similarities of one set of units, in float64.

    Args:
        specification: of both models.
        reference, expert: their tensors, finite, of equal shapes.
        seed: of the order in which permutations are visited.
        start: where the ascent begins; units that it does not name stand as they are.
    """
    ascent = _Ascent(specification, reference, expert, start or {})
    stale = {each.name for each in specification.permutations if not each.outer}
    sweep, gain = 0, 0.0
    while stale and sweep < MOST_SWEEPS:
        sweep += 1
        for name in sorted(stale, key=lambda name: _keyed(seed, sweep, name)):
            stale.discard(name)
            if gained := ascent.improve(specification.named[name]):
                gain += gained
                stale |= ascent.affected(name)  # nobody else's similarities have changed
    return Match(ascent.orders, sweep, gain)


def from_activations(specification: Specification, similarities: Mapping[str, Tensor]) -> Assigned:
    """The best order of each permutation by itself, from how alike the units' activations are.

    Args:
        specification: of both models.
        similarities: by a permutation's name, [size, size]: of the reference's unit (row) and the expert's (column),
            such as the correlations of their activations on the same tokens; all 0 for units that never change. For
            key-value heads: of all channels of all query heads, as they go into `o_proj`, from which the order of
            the heads and of everything inside them follows at once. For units inside heads alone: of the expert as
            it is once the order of its heads has been applied.

    Raises:
        ValueError: no such permutation, or of another size.
    """
    made = Assigned({}, {}, {})
    for name, similarity in similarities.items():
        permutation = specification.named.get(name)
        held = specification.inner.get(name, ())
        sizes = _inside(held)
        size = 0 if permutation is None else permutation.size * sizes[0] * sizes[1]
        if permutation is None or similarity.shape != (size, size):
            raise ValueError(f"{name!r} with similarities {list(similarity.shape)} is no permutation of this model")
        if held:
            made.update(_assign_heads(permutation, held, similarity))
        else:
            order = assign(similarity)
            unsure = _silent(similarity, 1) | _silent(similarity, 0)[order]
            likeness = similarity.diagonal().mean(), similarity[torch.arange(size), order].mean()
            made.update(Assigned({name: order}, {name: unsure}, {name: (float(likeness[0]), float(likeness[1]))}))
    return made


def settle(
    specification: Specification, reference: Source, expert: Source, orders: Orders, unsure: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The orders with the units in some places handed out among these places as the weights say.

    Args:
        specification: of both models.
        reference, expert: their tensors, finite, of equal shapes.
        orders: of the expert's units.
        unsure: bool [size] by a permutation's name: its places that are open.
    """
    ascent = _Ascent(specification, reference, expert, orders)
    for each in specification.permutations:
        if each.name in unsure and bool(unsure[each.name].any()):
            ascent.settle(each, unsure[each.name].nonzero().flatten())
    return ascent.orders


def cosine(specification: Specification, reference: Source, expert: Source, orders: Orders) -> float:
    """The cosine of the two models, over all tensors that have units, with the expert's units in these orders."""
    inner = own = other = 0.0
    for name in sorted(specification.sites):
        theirs, ours = reference(name).double(), permute(specification, orders, name, expert(name)).double()
        inner += float(steady_sum(theirs * ours))
        own += float(steady_sum(ours.square()))
        other += float(steady_sum(theirs.square()))
    return inner / (own * other) ** 0.5 if own and other else 0.0


def _keyed(seed: int, sweep: int, name: str) -> bytes:
    return blake2b(f"{seed}|{sweep}|{name}".encode(), digest_size=16).digest()


def _inside(held: Sequence[Permutation]) -> tuple[int, int]:
    """Query heads of a key-value head, and channels of each; 1 and 1 of a permutation that holds none."""
    queries, channels = (next((each.size for each in held if each.kind == kind), 1) for kind in ("queries", "channels"))
    return queries, channels


def _silent(similarity: Tensor, axis: int) -> Tensor:
    """Which units are like none: of rows with axis 1, of columns with axis 0."""
    return (similarity == 0).all(axis).cpu()


def _assign_heads(heads: Permutation, held: Sequence[Permutation], similarity: Tensor) -> Assigned:
    """Heads and what is inside them, from the similarity of their outputs' channels."""
    queries, channels = _inside(held)
    products = HeadProducts(heads.size, queries, channels)
    products.both += similarity.to(products.both).view_as(products.both)
    step = match_heads(heads, held, products)
    ours, theirs = (_silent(similarity, axis).view(heads.size, queries, channels) for axis in (1, 0))
    theirs = theirs[step.orders[heads.name]]
    unsure = {heads.name: ours.all(2).all(1) | theirs.all(2).all(1)}
    for each in held:
        group, axis = each.siblings.index(each.name), 1 if each.kind == "queries" else 0
        unsure[each.name] = ours[group].all(axis) | theirs[group].all(axis)[step.orders[each.name]]
    before = similarity.diagonal().mean()
    return Assigned(step.orders, unsure, {heads.name: (float(before), float(before) + step.gain / len(similarity))})


class _Ascent:
    """The state of the ascent: the orders so far."""

    def __init__(self, specification: Specification, reference: Source, expert: Source, start: Orders) -> None:
        self._specification, self._reference, self._expert = specification, reference, expert
        self.orders = identity(specification) | dict(start)

    def improve(self, permutation: Permutation) -> float:
        """Brings its units, and those inside them, into the best order; the gain, 0 if nothing was changed."""
        held = self._specification.inner.get(permutation.name, ())
        step = (
            match_heads(permutation, held, self._head_products(permutation, held)) if held else self._step(permutation)
        )
        if step.gain <= _GAIN * step.scale:
            return 0.0
        self.orders = compose(self._specification, self.orders, step.orders)
        return step.gain

    def affected(self, name: str) -> set[str]:
        """Those that share a tensor with it; itself too if its units hold others, which are not matched exactly."""
        specification = self._specification
        tensors = {site.tensor for site in specification.named[name].sites}
        sharing = {each.name for tensor in tensors for each, _ in specification.sites[tensor] if not each.outer}
        return sharing if name in specification.inner else sharing - {name}

    def settle(self, permutation: Permutation, places: Tensor) -> None:
        """Hands the units in these places (int64) out among them anew."""
        products = self._products(permutation)[places][:, places]
        order = torch.arange(permutation.size)
        order[places] = places[assign(products)]
        self.orders = compose(self._specification, self.orders, {permutation.name: order})

    def _step(self, permutation: Permutation) -> Step:
        products = self._products(permutation)
        order = assign(products)
        gain = products[torch.arange(len(order)), order].sum() - products.trace()
        return Step({permutation.name: order}, float(gain), float(products.abs().amax(1).sum()))

    def _products(self, permutation: Permutation) -> Tensor:
        """Inner products of the reference's units (rows) with the expert's, float64."""
        products = torch.zeros((permutation.size,) * 2, dtype=torch.float64)
        for site in permutation.sites:
            ours, theirs = self._units(site)
            products += ours @ theirs.mT
        return products

    def _head_products(self, heads: Permutation, held: tuple[Permutation, ...]) -> HeadProducts:
        products = HeadProducts(heads.size, *_inside(held))
        for site in heads.sites:
            kinds = {each.kind for each in held for part in each.sites if site.covers(part)}
            products.add(kinds, *self._units(site))
        return products

    def _units(self, site: Site) -> tuple[Tensor, Tensor]:
        """The units of the reference and of the expert as it is by now, float64 [count, numbers] each."""
        theirs = permute(self._specification, self.orders, site.tensor, self._expert(site.tensor))
        return units(self._reference(site.tensor), site).double(), units(theirs, site).double()
