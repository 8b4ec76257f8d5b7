"""Orders found from weights and from activations: planted ones are recovered, and no unit could be placed better."""

from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from merging.permuting.apply import compose, identity, inverse, permute, units
from merging.permuting.matching import Match, cosine, from_activations, match_weights, settle
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
    similarities["layers.1.heads"] = correlations(heads, hidden(model, "model.layers.1.self_attn.o_proj"))
    found = from_activations(made, similarities)
    inside = {name for name in made.named if name.startswith("layers.1.heads")}
    assert found.orders.keys() == found.unsure.keys() == inside | {f"layers.{layer}.mlp" for layer in range(3)}
    back = inverse(made, planted)
    assert all(torch.equal(order, back[name]) for name, order in found.orders.items())
    assert not any(places.any() for places in found.unsure.values())
    assert found.likeness.keys() == similarities.keys()
    for name, (ours, theirs) in found.likeness.items():
        assert ours == pytest.approx(float(similarities[name].diagonal().mean())) and theirs > 0.9


def test_the_likeness_of_heads_is_that_of_their_channels() -> None:
    made = specification(decoder(), "attention")
    similarity = torch.rand((32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = from_activations(made, {"layers.0.heads": similarity})
    order = torch.arange(32)
    for each in made.permutations:
        for site in each.sites:
            if site.tensor == "model.layers.0.self_attn.o_proj.weight":
                index = torch.arange(32)
                part = index[site.start : site.end].view(site.repeats, site.count, site.width)
                index[site.start : site.end] = part[:, found.orders[each.name]].flatten()
                order = order[index]
    after = float(similarity[torch.arange(32), order].mean())
    before = float(similarity.diagonal().mean())
    assert list(found.likeness["layers.0.heads"]) == [pytest.approx(before), pytest.approx(after)]


def test_units_inside_heads_are_compared_once_the_heads_are_in_order() -> None:
    made = specification(decoder(), "attention")
    swap, group = torch.tensor([1, 0]), "layers.0.heads"
    inner = from_activations(made, {f"{group}.0.queries": torch.eye(2)[swap]})
    # where the first head stands afterwards, two query heads are exchanged
    full = compose(made, {group: swap}, {f"{group}.0.queries": swap})
    assert torch.equal(full[f"{group}.0.queries"], inner.orders[f"{group}.0.queries"])


def test_units_that_never_change_are_matched_by_weights() -> None:
    model = decoder()
    made, reference = specification(model, "mlp", "attention"), state(model)
    planted = random_orders(made, 4)
    expert, back = shuffled(made, noisy(reference, 1, 0.02), planted), inverse(made, planted)
    perfect = {name: torch.zeros((each.size, each.size)) for name, each in made.named.items() if each.kind == "mlp"}
    for name, similarity in perfect.items():
        similarity[torch.arange(44), back[name]] = 1.0
        similarity[[3, 17, 40]] = 0.0  # still in the reference
        similarity[:, back[name][[5, 17]]] = 0.0  # still in the expert
    heads = torch.zeros((2, 2, 8, 2, 2, 8))
    similarities = perfect | {"layers.2.heads": heads.view(32, 32)}  # nothing at all
    found = from_activations(made, similarities)
    assert sorted(found.unsure["layers.0.mlp"].nonzero().flatten().tolist()) == [3, 5, 17, 40]
    assert found.unsure["layers.2.heads"].all() and found.unsure["layers.2.heads.1.channels"].all()
    settled = settle(made, reference.__getitem__, expert.__getitem__, found.orders, found.unsure)
    assert all(torch.equal(settled[f"layers.{i}.mlp"], back[f"layers.{i}.mlp"]) for i in range(3))
    assert settled.keys() == made.named.keys()
    assert torch.equal(settled["layers.0.heads"], torch.arange(2))  # of which nobody has asked


def test_a_channel_is_unsure_if_it_is_still_in_all_query_heads() -> None:
    made = specification(decoder(), "attention")
    similarity = torch.eye(32).view(2, 2, 8, 2, 2, 8)
    similarity[0, :, 3] = 0.0  # a channel of the first key-value head, in both its query heads
    similarity[1, 1, 5] = 0.0  # a channel in one of two query heads
    found = from_activations(made, {"layers.0.heads": similarity.reshape(32, 32)})
    still = {name: places.nonzero().flatten().tolist() for name, places in found.unsure.items() if places.any()}
    assert still == {"layers.0.heads.0.channels": [3]}


def test_an_ascent_goes_on_from_where_activations_have_led() -> None:
    model = decoder(seed=1)
    made, reference, expert = specification(model, "all"), state(model), state(decoder(seed=2))
    start = random_orders(made, 9)
    found = match_weights(made, reference.__getitem__, expert.__getitem__, start=start)
    begun, ended = (shuffled(made, expert, dict(orders)) for orders in (start, found.orders))
    gain = similarity(made, reference, ended) - similarity(made, reference, begun)
    assert found.gain == pytest.approx(gain, rel=1e-9) and gain > 0
    again = match_weights(made, reference.__getitem__, expert.__getitem__, start=found.orders)
    assert again.gain == 0 and all(torch.equal(again.orders[name], order) for name, order in found.orders.items())


@pytest.mark.parametrize(
    "similarities", [{"layers.9.mlp": torch.eye(44)}, {"layers.0.mlp": torch.eye(43)}, {"layers.0.heads": torch.eye(2)}]
)
def test_similarities_of_other_units_are_refused(similarities: State) -> None:
    with pytest.raises(ValueError, match="is no permutation of this model"):
        from_activations(specification(decoder(), "mlp", "attention"), similarities)
