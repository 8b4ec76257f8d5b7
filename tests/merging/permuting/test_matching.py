"""Orders found from weights and from activations: planted ones are recovered, and no unit could be placed better."""

from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from merging.permuting.apply import compose, identity, inverse, permute, units
from merging.permuting.matching import Match, cosine, from_activations, match_weights
from merging.permuting.specification import Specification
from tests.merging.permuting.decoders import DECODERS, decoder, logits, random_orders, specification, state

State = dict[str, Tensor]


def noisy(tensors: State, seed: int, share: float = 0.2) -> State:
    """The matrices with noise of a share of their size: a fine-tune."""
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    return {
        name: tensor + share * tensor.std() * noise[name] for name, tensor in tensors.items() if tensor.dim() > 1
    } | {name: tensor for name, tensor in tensors.items() if tensor.dim() == 1}


def shuffled(made: Specification, tensors: State, orders: State) -> State:
    return {name: permute(made, orders, name, tensor) for name, tensor in tensors.items()}


def match(made: Specification, reference: State, expert: State, seed: int = 0) -> Match:
    return match_weights(made, reference.__getitem__, expert.__getitem__, seed)


def similarity(made: Specification, reference: State, expert: State) -> float:
    return sum(float((reference[name].double() * expert[name].double()).sum()) for name in sorted(made.sites))


@pytest.mark.parametrize("parts", ["mlp", "attention", "residual", "all"])
@pytest.mark.parametrize("name", DECODERS)
def test_planted_orders_are_recovered_from_a_fine_tune(name: str, parts: str) -> None:
    model = decoder(name)
    made, reference = specification(model, parts), state(model)
    planted = random_orders(made, 3)
    expert = shuffled(made, noisy(reference, 1), planted)
    found = match(made, reference, expert, seed=5)
    assert all(torch.equal(order, inverse(made, planted)[key]) for key, order in found.orders.items())
    assert found.orders.keys() == made.named.keys() and found.sweeps <= 4
    aligned = shuffled(made, expert, dict(found.orders))
    gain = similarity(made, reference, aligned) - similarity(made, reference, expert)
    assert found.gain == pytest.approx(gain, rel=1e-9) and gain > 0


def test_models_in_one_order_already_stay() -> None:
    model = decoder("qwen3")
    made, reference = specification(model, "all"), state(model)
    found = match(made, reference, noisy(reference, 2))
    assert found.gain == 0 and found.sweeps == 1
    assert all(torch.equal(found.orders[name], order) for name, order in identity(made).items())


@pytest.mark.parametrize("parts", [("mlp",), ("attention",), ("all",), ("mlp", "residual")])
def test_unlike_models_end_where_no_units_could_be_placed_better(parts: tuple[str, ...]) -> None:
    model = decoder(seed=1)
    made, reference, expert = specification(model, *parts), state(model), state(decoder(seed=2))
    found = match(made, reference, expert)
    aligned = shuffled(made, expert, dict(found.orders))
    gain = similarity(made, reference, aligned) - similarity(made, reference, expert)
    assert found.gain == pytest.approx(gain, rel=1e-9) and gain > 0
    for each in made.permutations:
        sides = [
            [units(tensors[site.tensor], site).double() for site in each.sites] for tensors in (reference, aligned)
        ]
        products = sum(ours @ theirs.mT for ours, theirs in zip(*sides, strict=True))
        assert isinstance(products, Tensor)
        best = products[linear_sum_assignment(products.numpy(), maximize=True)].sum()
        assert float(best) == pytest.approx(float(products.trace()), abs=1e-9)
    assert match(made, reference, aligned).gain == 0


def test_a_seed_gives_the_same_orders_again_and_another_may_give_others() -> None:
    model = decoder(seed=1)
    made, reference, expert = specification(model, "all"), state(model), state(decoder(seed=2))
    first, *others = (match(made, reference, expert, seed) for seed in (0, 0, 1, 2, 3))
    assert all(torch.equal(others[0].orders[name], order) for name, order in first.orders.items())
    assert others[0].gain == first.gain
    assert len({round(other.gain, 6) for other in others}) > 1


def test_the_cosine_of_two_models() -> None:
    model = decoder()
    made, reference = specification(model, "mlp"), state(model)
    planted = random_orders(made)
    expert = shuffled(made, {name: 3 * tensor for name, tensor in reference.items()}, planted)
    flat = [torch.cat([tensors[name].double().flatten() for name in made.sites]) for tensors in (reference, expert)]
    before = cosine(made, reference.__getitem__, expert.__getitem__, {})
    assert before == pytest.approx(float(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()))
    after = cosine(made, reference.__getitem__, expert.__getitem__, inverse(made, planted))
    assert after == pytest.approx(1.0) and before < 0.9
    assert cosine(made, reference.__getitem__, {name: 0 * t for name, t in expert.items()}.__getitem__, {}) == 0


def hidden(model: Any, module: str) -> Tensor:
    """What goes into a linear layer on fixed tokens, [tokens, width]."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.append(inputs[0].detach().flatten(0, -2).double())

    hook = model.get_submodule(module).register_forward_pre_hook(keep)
    logits(model)
    hook.remove()
    return kept[0]


def correlations(ours: Tensor, theirs: Tensor) -> Tensor:
    """Of every unit of the one with every unit of the other, [units, units]."""
    both = [(side - side.mean(0)) / side.std(0) for side in (ours, theirs)]
    return both[0].mT @ both[1] / (len(ours) - 1)


def test_planted_orders_are_recovered_from_activations() -> None:
    model = decoder()
    made, reference = specification(model, "mlp", "attention"), state(model)
    planted = random_orders(made, 4)
    before = {layer: hidden(model, f"model.layers.{layer}.mlp.down_proj") for layer in range(3)}
    heads = hidden(model, "model.layers.1.self_attn.o_proj")
    logits(model, shuffled(made, noisy(reference, 1, 0.02), planted))  # the model is the expert from here on
    similarities = {
        f"layers.{layer}.mlp": correlations(before[layer], hidden(model, f"model.layers.{layer}.mlp.down_proj"))
        for layer in range(3)
    }
    other = hidden(model, "model.layers.1.self_attn.o_proj")
    # sums over the channels of a group do not see the order inside it
    sums = [side.view(-1, 2, 16).sum(2) for side in (heads, other)]
    similarities["layers.1.heads"] = correlations(*sums)
    found = from_activations(made, similarities)
    assert found.keys() == similarities.keys()
    back = inverse(made, planted)
    assert all(torch.equal(order, back[name]) for name, order in found.items())


def test_units_inside_heads_are_compared_once_the_heads_are_in_order() -> None:
    made = specification(decoder(), "attention")
    swap, group = torch.tensor([1, 0]), "layers.0.heads"
    # where the first head stands afterwards, two query heads are exchanged
    found = from_activations(made, {group: torch.eye(2)[swap], f"{group}.0.queries": torch.eye(2)[swap]})
    full = compose(made, {group: swap}, {f"{group}.0.queries": swap})
    assert all(torch.equal(full[name], order) for name, order in found.items())


@pytest.mark.parametrize("similarities", [{"layers.9.mlp": torch.eye(44)}, {"layers.0.mlp": torch.eye(43)}])
def test_similarities_of_other_units_are_refused(similarities: State) -> None:
    with pytest.raises(ValueError, match="is no permutation of this model"):
        from_activations(specification(decoder(), "mlp"), similarities)
