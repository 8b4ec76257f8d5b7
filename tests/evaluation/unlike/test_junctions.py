"""Two live models joined: maps that were planted are found, and what is judged is what the joined model computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluation.artefacts.texts import Text
from evaluation.unlike.junctions import JoinedModel, fit, judge, require_one_architecture, unmapped
from evaluation.unlike.pair import Pair
from merging.errors import InvalidModel
from merging.permuting.stitched import Join, stitch
from merging.permuting.stitching import Stitch
from tests.evaluation.unlike.models import draw_texts, pair_of
from tests.merging.permuting.decoders import decoder, logits
from tests.merging.permuting.rotated import rotated, rotation_of

WIDTH = 32
TEXTS = draw_texts(40)


def nats(model: Any, texts: list[Text]) -> float:
    """Nats a token, text by text."""
    total = 0.0
    for text in texts:
        ids = torch.tensor([[*text.context, *text.answer]])
        log_p = model(input_ids=ids[:, :-1], use_cache=False).logits[0].double().log_softmax(-1)
        total -= float(log_p.gather(1, ids[0, 1:, None]).sum())
    return total / sum(len(text.answer) for text in texts)


@pytest.mark.parametrize("after", [1, 2])
def test_a_model_is_joined_to_itself_by_the_identity(tmp_path: Path, after: int) -> None:
    pair = pair_of(tmp_path, decoder(), decoder())
    maps = fit(pair, after, pair.encode(TEXTS))
    identity = torch.eye(WIDTH, dtype=torch.float64)
    torch.testing.assert_close(maps.turn.rotation, identity, rtol=0, atol=1e-9)
    assert maps.turn.scale == pytest.approx(1.0)
    torch.testing.assert_close(maps.affine.weight, identity, rtol=0, atol=1e-6)
    stitch(pair.ours.checkpoint, pair.theirs.checkpoint, after, tmp_path / "joined", lambda: Join(maps.turn, {}))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(logits(loaded), logits(decoder()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama, biases", "phi3", "gemma"])
def test_a_planted_rotation_is_found_and_written(tmp_path: Path, name: str) -> None:
    offset = 1.0 if name == "gemma" else 0.0
    # of a stream twice as long the number under the norms' root is a smaller part
    model, rotation = decoder(name, rms_norm_eps=1e-12), rotation_of(WIDTH, 5)
    pair = pair_of(tmp_path, model, rotated(model, rotation, 2.0, offset))
    maps = fit(pair, 2, pair.encode(TEXTS))
    torch.testing.assert_close(maps.turn.rotation, rotation, rtol=0, atol=1e-4)
    assert maps.turn.scale == pytest.approx(2.0, rel=1e-5)
    stitch(pair.ours.checkpoint, pair.theirs.checkpoint, 2, tmp_path / "joined", lambda: Join(maps.turn, {}))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)


def test_the_checkpoint_computes_what_the_live_join_does(tmp_path: Path) -> None:
    front, back = decoder("qwen3", seed=1), decoder("qwen3", seed=2)
    pair = pair_of(tmp_path, front, back)
    maps = fit(pair, 2, pair.encode(TEXTS))
    stitch(pair.ours.checkpoint, pair.theirs.checkpoint, 2, tmp_path / "joined", lambda: Join(maps.turn, {}))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "joined")
    alive = JoinedModel(pair, 2, maps.turn.stitch)
    tokens = torch.randint(1, 27, (3, 20), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(tokens).logits, alive(tokens).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alive(tokens).logits, back(tokens).logits, atol=0.1)


def test_what_is_judged_is_what_each_model_says_of_each_text(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, decoder(seed=1), decoder(seed=2))
    texts = pair.encode(TEXTS)
    maps = fit(pair, 1, texts)
    ways = {"identity": unmapped(WIDTH), "orthogonal": maps.turn.stitch, "affine": maps.affine}
    found = judge(pair, 1, texts, ways)
    assert list(found.loss) == ["front", "back", *ways] and list(found.explained) == list(ways)
    for name, model in (("front", pair.ours.live), ("back", pair.theirs.live)):
        assert found.loss[name] == pytest.approx(nats(model, texts), rel=1e-5)
    for name, each in ways.items():
        assert found.loss[name] == pytest.approx(nats(JoinedModel(pair, 1, each), texts), rel=1e-5)
    assert found.explained["identity"] < found.explained["orthogonal"] < found.explained["affine"] <= 1
    assert maps.tokens == sum(text.positions for text in texts)


@pytest.mark.parametrize("half", ["front", "back"])
def test_models_of_two_dtypes_are_judged(tmp_path: Path, half: str) -> None:
    front, back = decoder(seed=1), decoder(seed=2)
    (front if half == "front" else back).to(torch.bfloat16)
    pair = pair_of(tmp_path, front, back)
    texts = pair.encode(TEXTS[:6])
    maps = fit(pair, 1, texts)
    found = judge(pair, 1, texts, {"orthogonal": maps.turn.stitch})
    assert found.loss["orthogonal"] == pytest.approx(nats(JoinedModel(pair, 1, maps.turn.stitch), texts), rel=1e-2)


def test_a_map_onto_the_stream_itself_gives_back_the_back(tmp_path: Path) -> None:
    model, rotation = decoder(), rotation_of(WIDTH, 6)
    pair = pair_of(tmp_path, model, rotated(model, rotation))
    nothing = torch.zeros(WIDTH, dtype=torch.float64)
    found = judge(pair, 1, pair.encode(TEXTS[:6]), {"planted": Stitch(rotation, nothing)})
    assert found.loss["planted"] == pytest.approx(found.loss["back"], rel=1e-5)
    assert found.explained["planted"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps: 0.001 is 1e-06"),
        ({"hidden_act": "relu"}, "hidden_act: 'relu' is 'silu'"),
    ],
)
def test_models_that_compute_otherwise_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    pair: Pair = pair_of(tmp_path, decoder(), decoder(**changes))
    with pytest.raises(InvalidModel, match=f"BACK: {said}"):
        require_one_architecture(pair, 1)


def test_models_that_differ_in_what_does_not_matter_pass(tmp_path: Path) -> None:
    other = decoder("llama, tied", num_hidden_layers=4, eos_token_id=3)
    require_one_architecture(pair_of(tmp_path, decoder(), other), 2)


def test_layers_of_other_kinds_are_refused(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    options: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    pair = pair_of(tmp_path, decoder("qwen2", **options), decoder("qwen2", layer_types=kinds, **options))
    with pytest.raises(InvalidModel, match="BACK: layer_types"):
        require_one_architecture(pair, 3)
    require_one_architecture(pair, 2)
