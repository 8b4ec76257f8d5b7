"""Correlations of two models' units: those of a whole table of activations, and enough to undo a shuffling."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluation.artefacts.passes import forward
from evaluation.artefacts.texts import Text
from evaluation.unlike.correlations import CrossSums, similarities
from evaluation.unlike.pair import Pair
from merging.errors import InvalidModel
from merging.permuting.apply import inverse
from merging.permuting.matching import from_activations, settle
from tests.evaluation.unlike.models import draw_texts, pair_of
from tests.merging.permuting.decoders import decoder, random_orders, specification, state
from tests.merging.permuting.test_matching import noisy, shuffled

CPU = torch.device("cpu")


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_correlations_are_those_of_all_tokens_at_once_whatever_their_means() -> None:
    ours, theirs = draw(50, 6, seed=0) + 1e4, draw(50, 6, seed=1) * 1e-3 - 7
    theirs += 1e-3 * ours[:, [1]]
    made = CrossSums(6, CPU)
    for first, end in ((0, 1), (1, 20), (20, 20), (20, 50)):
        made.add(ours[first:end], theirs[first:end])
    expected = torch.corrcoef(torch.cat([ours, theirs], 1).mT)[:6, 6:]
    torch.testing.assert_close(made.correlations(), expected, rtol=1e-6, atol=1e-6)
    made.clear()
    made.add(theirs, ours)
    torch.testing.assert_close(made.correlations(), expected.mT, rtol=1e-6, atol=1e-6)


def test_units_that_never_change_are_like_none() -> None:
    ours, theirs = draw(40, 3, seed=2).float(), draw(40, 3, seed=3).float()
    ours[:, 1], theirs[:, 2] = 0.1, 0.0
    made = CrossSums(3, CPU)
    made.add(ours[:13], theirs[:13])
    made.add(ours[13:], theirs[13:])
    found = made.correlations()
    assert not found[1].any() and not found[:, 2].any() and found[[0, 2]][:, :2].all()


def other_model(name: str, *parts: str) -> tuple[Any, Any, dict[str, Tensor]]:
    """A model, a noisy copy of it with its units shuffled, and the orders that undo that."""
    model, copied = decoder(name), decoder(name)
    made = specification(model, *parts)
    planted = random_orders(made, 4)
    copied.load_state_dict(shuffled(made, noisy(state(model), 1, 0.02), planted), strict=False)
    return model, copied, inverse(made, planted)


@pytest.mark.parametrize("name", ["llama", "llama, tied", "qwen3", "phi3", "gemma2", "olmo2"])
def test_shuffled_units_are_found_again(tmp_path: Path, name: str) -> None:
    model, copied, back = other_model(name, "all")
    pair = pair_of(tmp_path, model, copied)
    made = specification(model, "all")
    found = dict(similarities(pair, made, pair.encode(draw_texts(40))))
    assert found.keys() == {each.name for each in made.permutations if not each.outer}
    assigned = from_activations(made, found)
    assert all(torch.equal(assigned.orders[each], order) for each, order in back.items())
    assert not any(places.any() for places in assigned.unsure.values())


def test_the_stream_s_similarity_is_the_mean_of_the_layers(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(), decoder(seed=1))
    texts = pair.encode(draw_texts(12))
    ((name, found),) = similarities(pair, specification(decoder(), "residual"), texts)
    streams = []
    for side in (pair.ours, pair.theirs):
        rows: list[list[Tensor]] = [[], [], []]
        for text in texts:
            ids = torch.tensor([[*text.context, *text.answer][:-1]])
            outputs: list[Tensor] = []
            hooks = [
                layer.register_forward_hook(lambda *a, o=outputs: o.append(a[2])) for layer in side.live.model.layers
            ]
            side.live(ids)
            for hook in hooks:
                hook.remove()
            for i, output in enumerate(outputs):
                rows[i].append(output[0].double())
        streams.append([torch.cat(layer) for layer in rows])
    each = [torch.corrcoef(torch.cat(pair_, 1).mT)[:32, 32:] for pair_ in zip(*streams, strict=True)]
    torch.testing.assert_close(found, sum(each) / torch.tensor(3.0), rtol=1e-4, atol=1e-4)
    assert name == "residual"


def test_sums_that_do_not_fit_are_made_in_several_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_of(tmp_path, decoder(), decoder(seed=1))
    made, texts = specification(decoder(), "all"), pair.encode(draw_texts(20))
    expected = dict(similarities(pair, made, texts))
    readings: list[int] = []
    read = Pair.read

    def counted(self: Pair, given: list[Text], look: Any, restart: Any) -> None:
        readings.append(len(given))
        read(self, given, look, restart)

    monkeypatch.setattr(Pair, "read", counted)
    found = dict(similarities(replace(pair, room=1), made, texts))
    assert len(readings) == 9 and set(readings) == {len(texts)}  # three MLPs, three attentions, three streams
    assert all(torch.equal(found[name], each) for name, each in expected.items())


def test_running_out_of_memory_counts_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_of(tmp_path, decoder(), decoder(seed=1))
    made, texts = specification(decoder(), "mlp"), pair.encode(draw_texts(30))
    expected = dict(similarities(pair, made, texts))
    passes: list[int] = []

    def scarce(model: Any, batch: Sequence[Text]) -> None:
        passes.append(len(batch))
        if len(passes) == 4:  # the second model at the second batch
            raise torch.OutOfMemoryError("planned")
        forward(model, batch)

    monkeypatch.setattr("evaluation.unlike.correlations.forward", scarce)
    found = dict(similarities(pair, made, texts))
    assert len(passes) > 4
    for name, each in expected.items():
        torch.testing.assert_close(found[name], each, rtol=1e-6, atol=1e-6)


def test_silent_units_are_left_to_the_weights(tmp_path: Path) -> None:
    model = decoder(hidden_act="relu")
    made, reference = specification(model, "mlp"), state(model)
    gate = "model.layers.1.mlp.gate_proj.weight"
    reference[gate][[2, 9, 30]] = 0.0
    planted = random_orders(made, 4)
    expert, back = shuffled(made, reference, planted), inverse(made, planted)
    copied = decoder(hidden_act="relu")
    model.load_state_dict(reference)
    copied.load_state_dict(expert)
    pair = pair_of(tmp_path, model, copied)
    found = from_activations(made, dict(similarities(pair, made, pair.encode(draw_texts(40)))))
    assert found.unsure["layers.1.mlp"].nonzero().flatten().tolist() == [2, 9, 30]
    settled = settle(made, reference.__getitem__, expert.__getitem__, found.orders, found.unsure)
    assert all(torch.equal(settled[each], order) for each, order in back.items())


def test_a_model_that_computes_infinity_is_refused(tmp_path: Path) -> None:
    broken = decoder()
    broken.model.layers[1].mlp.up_proj.weight.data[:] = torch.inf
    pair = pair_of(tmp_path, decoder(), broken)
    with pytest.raises(InvalidModel, match=r"BACK.*computes NaN or infinity"):
        list(similarities(pair, specification(decoder(), "mlp"), pair.encode(["abcdef"])))
