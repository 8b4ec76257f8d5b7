"""Heads matched with what is inside them, against plain versions that try everything."""

from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from merging.permuting.heads import HeadProducts, match_heads
from merging.permuting.specification import Permutation

FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
SEEDS = st.integers(0, 2**32)


def permutations_of(groups: int, queries: int, channels: int) -> tuple[Permutation, list[Permutation]]:
    held = []
    for kind, size in (("queries", queries), ("channels", channels)):
        names = tuple(f"h.{i}.{kind}" for i in range(groups))
        held += [
            Permutation(name, "queries" if kind == "queries" else "channels", size, (), "h", names) for name in names
        ]
    return Permutation("h", "heads", groups, ()), held


def random_products(groups: int, queries: int, channels: int, seed: int) -> HeadProducts:
    generator, made = torch.Generator().manual_seed(seed), HeadProducts(groups, queries, channels)
    for total in (made.fixed, made.queries, made.channels, made.both):
        total += torch.randn(total.shape, generator=generator, dtype=torch.float64)
    return made


def value(products: HeadProducts, orders: dict[str, Tensor]) -> float:
    """How alike the heads are, from the definition."""
    total, (groups, queries, channels) = 0.0, products.sizes
    for g in range(groups):
        other = int(orders["h"][g])
        q, c = orders[f"h.{g}.queries"].tolist(), orders[f"h.{g}.channels"].tolist()
        total += float(products.fixed[g, other])
        total += sum(float(products.queries[g, i, other, q[i]]) for i in range(queries))
        total += sum(float(products.channels[g, k, other, c[k]]) for k in range(channels))
        total += sum(float(products.both[g, i, k, other, q[i], c[k]]) for i in range(queries) for k in range(channels))
    return total


def best(products: HeadProducts) -> float:
    """The greatest similarity of all orders there are."""
    groups, queries, channels = products.sizes
    pairs = torch.empty(groups, groups, dtype=torch.float64)
    for i, j in product(range(groups), repeat=2):
        pairs[i, j] = max(
            value_of_pair(products, i, j, q, c)
            for q, c in product(permutations(range(queries)), permutations(range(channels)))
        )
    rows, columns = linear_sum_assignment(pairs.numpy(), maximize=True)
    return float(pairs[rows, columns].sum())


def value_of_pair(products: HeadProducts, i: int, j: int, q: tuple[int, ...], c: tuple[int, ...]) -> float:
    total = products.fixed[i, j] + sum(products.queries[i, a, j, b] for a, b in enumerate(q))
    total = total + sum(products.channels[i, a, j, b] for a, b in enumerate(c))
    return float(total + sum(products.both[i, a, x, j, b, y] for a, b in enumerate(q) for x, y in enumerate(c)))


@pytest.mark.parametrize("sizes", [(3, 1, 3), (2, 3, 1), (4, 1, 1)])
@FEW
@given(seed=SEEDS)
def test_where_one_kind_of_unit_moves_inside_heads_nothing_is_better(sizes: tuple[int, int, int], seed: int) -> None:
    products = random_products(*sizes, seed)
    step = match_heads(*permutations_of(*sizes), products)
    stay = {name: torch.arange(len(order)) for name, order in step.orders.items()}
    assert value(products, step.orders) == pytest.approx(best(products))
    assert step.gain == pytest.approx(best(products) - value(products, stay), abs=1e-9)


@FEW
@given(seed=SEEDS)
def test_where_both_move_nothing_is_lost_and_no_bound_is_passed(seed: int) -> None:
    sizes = (3, 2, 3)
    products = random_products(*sizes, seed)
    step = match_heads(*permutations_of(*sizes), products)
    stay = {name: torch.arange(len(order)) for name, order in step.orders.items()}
    assert step.gain == pytest.approx(value(products, step.orders) - value(products, stay), abs=1e-9)
    assert -1e-9 <= step.gain <= step.scale - value(products, stay)
    assert value(products, step.orders) <= best(products) + 1e-9
    # every pair matched inside, then the heads: the bounds have spared work and nothing else
    pairs = torch.tensor([[products.pair(i, j).solve().value for j in range(3)] for i in range(3)])
    rows, columns = linear_sum_assignment(pairs.numpy(), maximize=True)
    assert value(products, step.orders) == pytest.approx(float(pairs[rows, columns].sum()), rel=1e-6)
    assert bool((pairs <= products.bounds() + 1e-6).all())


def test_products_are_sorted_by_what_moves() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 2 * 3 * 4, generator=generator, dtype=torch.float64) for _ in range(2))
    products = HeadProducts(2, 2, 3)
    for kinds in (set[str](), {"queries"}, {"channels"}, {"queries", "channels"}):
        products.add(kinds, ours, theirs)
        products.add(kinds, ours, theirs)
    a, b = ours.view(2, 2, 3, 4), theirs.view(2, 2, 3, 4)
    torch.testing.assert_close(products.fixed, 2 * ours @ theirs.mT)
    torch.testing.assert_close(products.queries, 2 * torch.einsum("gqcx,hrcx->gqhr", a, b))
    torch.testing.assert_close(products.both, 2 * torch.einsum("gqcx,hrdx->gqchrd", a, b))
    a, b = ours.view(2, 3, 8), theirs.view(2, 3, 8)  # of values, without query heads
    torch.testing.assert_close(products.channels, 2 * torch.einsum("gcx,hdx->gchd", a, b))
