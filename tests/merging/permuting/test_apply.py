"""Units in another order: the model answers the same, and orders form a group."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.permuting.apply import Orders, compose, identity, inverse, permute, units
from merging.permuting.specification import Site, Specification
from tests.merging.permuting.decoders import DECODERS, decoder, logits, random_orders, specification, state

PARTS = ("mlp", "attention", "residual", "all")
FEW = settings(max_examples=15, deadline=None, derandomize=True, database=None)
SEEDS = st.integers(0, 2**32)


def permuted(made: Specification, orders: Orders, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: permute(made, orders, name, tensor) for name, tensor in tensors.items()}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("name", DECODERS)
def test_a_model_in_any_order_answers_the_same(name: str, parts: str) -> None:
    model = decoder(name)
    made, expected = specification(model, parts), logits(model)
    tensors = state(model)
    other = permuted(made, random_orders(made), tensors)
    moved = [key for key in tensors if not torch.equal(tensors[key], other[key])]
    assert set(moved) == {site.tensor for each in made.permutations for site in each.sites if each.size > 1}
    assert_close(logits(model, other), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    other[moved[-1]] = tensors[moved[-1]]  # the test would notice a tensor left behind
    assert (logits(model, other) - expected).abs().max() > 1e-2 * expected.abs().max()


@FEW
@given(seed=SEEDS)
def test_two_orders_after_one_another_are_one(seed: int) -> None:
    model = decoder("llama, biases")
    made, tensors = specification(model, "all"), state(model)
    first, then = random_orders(made, seed), random_orders(made, seed + 1)
    expected = permuted(made, then, permuted(made, first, tensors))
    found = permuted(made, compose(made, first, then), tensors)
    assert all(torch.equal(found[name], expected[name]) for name in tensors)


@FEW
@given(seed=SEEDS)
def test_an_inverse_undoes_and_is_undone(seed: int) -> None:
    model = decoder("llama, biases")
    made, tensors = specification(model, "all"), state(model)
    orders = random_orders(made, seed)
    back = inverse(made, orders)
    for there_and_back in (compose(made, orders, back), compose(made, back, orders)):
        assert all(torch.equal(there_and_back[name], order) for name, order in identity(made).items())
    found = permuted(made, back, permuted(made, orders, tensors))
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_an_order_that_is_not_named_is_kept() -> None:
    model = decoder()
    made, tensors = specification(model, "all"), state(model)
    some = {name: order for name, order in random_orders(made).items() if name in ("layers.1.heads", "layers.2.mlp")}
    full = identity(made) | some
    for name, tensor in tensors.items():
        assert torch.equal(permute(made, some, name, tensor), permute(made, full, name, tensor))
    assert permute(made, {}, "lm_head.weight", tensors["lm_head.weight"]) is tensors["lm_head.weight"]
    other = random_orders(made, 5)
    for one, two in ((some, other), (other, some)):
        found, expected = compose(made, one, two), compose(made, identity(made) | one, identity(made) | two)
        assert all(torch.equal(found[name], order) for name, order in expected.items())
    assert all(torch.equal(inverse(made, some)[name], order) for name, order in inverse(made, full).items())


def test_outer_units_move_first() -> None:
    model = decoder()
    made = specification(model, "attention")
    orders = {"layers.0.heads": torch.tensor([1, 0]), "layers.0.heads.0.queries": torch.tensor([1, 0])}
    weight = torch.arange(32.0)[:, None].expand(32, 32)
    rows = permute(made, orders, "model.layers.0.self_attn.q_proj.weight", weight)[::8, 0]
    assert (rows / 8).tolist() == [3, 2, 0, 1]  # the second group, its query heads exchanged; the first as it was
    assert permute(made, orders, "model.layers.0.self_attn.k_proj.weight", weight[:16])[::8, 0].tolist() == [8, 0]


def test_numbers_and_dtypes_are_kept_bit_for_bit() -> None:
    model = decoder()
    made = specification(model, "mlp")
    orders = random_orders(made)
    name = "model.layers.0.mlp.down_proj.weight"
    weight = state(model)[name].bfloat16()
    kept = weight.clone()
    moved = permute(made, orders, name, weight)
    assert moved.dtype == torch.bfloat16 and torch.equal(moved, weight[:, orders["layers.0.mlp"]])
    assert torch.equal(weight, kept)


def test_the_numbers_of_a_unit() -> None:
    tensor = torch.arange(24).view(2, 12)  # on the second axis: one entry, then twice three units of one entry …
    assert units(tensor, Site("t", 1, 1, 2, 3, 1)).tolist() == [[1, 13, 4, 16], [2, 14, 5, 17], [3, 15, 6, 18]]
    assert units(tensor, Site("t", 1, 0, 1, 2, 6)).tolist() == [
        [k + r * 12 for k in range(6) for r in range(2)],
        [k + r * 12 for k in range(6, 12) for r in range(2)],
    ]
    assert units(torch.arange(4), Site("t", 0, 0, 1, 4, 1)).tolist() == [[0], [1], [2], [3]]
