"""One model's first layers and another's others, joined alive: the maps between their streams, and what each costs.

The maps are fitted where both models read the same tokens: x is the front's residual stream after so many layers, y
the back's after as many. Writes nothing; only the rotation can be written (`merging.permuting.stitched`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.passes import forward
from evaluation.artefacts.texts import Text, log_likelihoods
from evaluation.unlike.pair import Pair
from evaluation.unlike.taps import replaced, tapped, unpadded
from merging.errors import InvalidModel
from merging.permuting.stitching import Stitch, StitchSums, Turn, TurnSums

# What may differ in the configs of two models that are joined: nothing that a layer computes by.
_FREE = frozenset(
    (
        *("_name_or_path", "architectures", "dtype", "initializer_range", "transformers_version", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout", "tie_word_embeddings"),
        *("layer_types", "num_hidden_layers"),  # looked at layer by layer
    )
)


@dataclass(frozen=True)
class Maps:
    """Two maps from the front's stream to the back's.

    Attributes:
        turn: the rotation.
        affine: the best linear map with a bias.
        tokens: how many they were fitted to.
    """

    turn: Turn
    affine: Stitch
    tokens: int


@dataclass(frozen=True)
class Judged:
    """What ways to join the models are worth on some texts.

    Attributes:
        loss: nats a token, by way; of the two models themselves too, as `front` and `back`.
        explained: R² of the back's stream, by way.
    """

    loss: Mapping[str, float]
    explained: Mapping[str, float]


class JoinedModel:
    """The front up to a layer, a map, then the back: called as a Hugging Face model is, without a cache.

    Args:
        pair: front and back.
        after: how many layers are the front's.
        stitch: the map between them.
    """

    def __init__(self, pair: Pair, after: int, stitch: Stitch) -> None:
        self._pair, self._after, self._stitch = pair, after, stitch
        self.device = pair.ours.live.device

    def __call__(self, input_ids: Tensor, **options: Any) -> Any:
        """The back's output."""
        seen: dict[str, Tensor] = {}
        with tapped({"x": self._pair.ours.stream(self._after)}, seen.__setitem__):
            self._pair.ours.live.base_model(input_ids=input_ids, use_cache=False)
        back = self._pair.theirs.live
        with replaced(
            self._pair.theirs.stream(self._after).module, lambda: mapped(self._stitch, seen["x"]).to(back.dtype)
        ):
            return back(input_ids=input_ids, use_cache=False)


def mapped(stitch: Stitch, x: Tensor) -> Tensor:
    """weight · x + bias, [..., d], as the activations are stored."""
    weight, bias = (each.to(x) for each in stitch)
    return x @ weight.mT + bias


def require_one_architecture(pair: Pair, after: int) -> None:
    """See that a layer of either model would compute alike in both.

    Raises:
        InvalidModel: their configs differ.
    """
    front, back = (side.live.config.to_dict() for side in (pair.ours, pair.theirs))
    kinds = [(config.get("layer_types") or [])[:after] for config in (front, back)]
    differing = [key for key in sorted({*front, *back} - _FREE) if front.get(key) != back.get(key)]
    for key in [*differing, *(["layer_types"] if kinds[0] != kinds[1] else [])]:
        problem = f"is {front.get(key)!r} in {pair.ours.checkpoint.path}"
        remedy = "join models of one architecture and size"
        raise InvalidModel(f"{pair.theirs.checkpoint.key}: {key}", back.get(key), problem, remedy)


def fit(pair: Pair, after: int, texts: list[Text]) -> Maps:
    """The maps from the front's stream (`pair.ours`) to the back's (`pair.theirs`) after so many layers.

    Raises:
        InvalidModel: a model computes NaN or infinity.
        MemoryError: one sequence alone does not fit.
    """
    width = pair.ours.live.get_input_embeddings().embedding_dim
    sums = SimpleNamespace()

    def restart() -> None:
        sums.affine, sums.turn, sums.tokens = StitchSums(width, width), TurnSums(width), 0

    def look(batch: Sequence[Text]) -> None:
        x, y = _streams(pair, after, batch)
        sums.affine.add(x, y)
        sums.turn.add(x, y)
        sums.tokens += len(x)

    restart()
    pair.read(texts, look, restart)
    return Maps(sums.turn.solve(), sums.affine.solve(), sums.tokens)


def judge(pair: Pair, after: int, texts: list[Text], ways: Mapping[str, Stitch]) -> Judged:
    """How well texts are predicted by either model and by the two joined in several ways.

    Args:
        ways: maps by the name they are to have in the answer.

    Raises:
        MemoryError: one sequence alone does not fit.
    """
    width = pair.ours.live.get_input_embeddings().embedding_dim
    sums = SimpleNamespace()

    def restart() -> None:
        sums.streams, sums.nats = StitchSums(width, width), dict.fromkeys(("front", "back", *ways), 0.0)

    def look(batch: Sequence[Text]) -> None:
        seen: dict[str, Tensor] = {}
        nats = {}
        for name, side in (("front", pair.ours), ("back", pair.theirs)):
            with tapped({name: side.stream(after)}, seen.__setitem__):
                nats[name] = _nats(side.live, batch)
        for name, stitch in ways.items():
            output = mapped(stitch, seen["front"]).to(seen["back"].dtype)
            with replaced(pair.theirs.stream(after).module, lambda output=output: output):  # type: ignore[misc]
                nats[name] = _nats(pair.theirs.live, batch)
        sums.streams.add(*(unpadded(seen[name], batch) for name in ("front", "back")))
        sums.nats = {name: total + nats[name] for name, total in sums.nats.items()}

    restart()
    pair.read(texts, look, restart)
    tokens = sum(len(text.answer) for text in texts)
    explained = {name: sums.streams.explained(stitch) for name, stitch in ways.items()}
    return Judged({name: total / tokens for name, total in sums.nats.items()}, explained)


def unmapped(width: int) -> Stitch:
    """The map that changes nothing: the layers of one model simply put on those of the other."""
    return Stitch(torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))


def _streams(pair: Pair, after: int, batch: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """The streams of both models, without padding, [positions, d] each."""
    seen: dict[str, Tensor] = {}
    for name, side in (("x", pair.ours), ("y", pair.theirs)):
        with tapped({name: side.stream(after)}, seen.__setitem__):
            forward(side.live, batch)
    return pair.ours.finite(unpadded(seen["x"], batch)), pair.theirs.finite(unpadded(seen["y"], batch))


def _nats(model: Any, batch: Sequence[Text]) -> float:
    """−Σ log p of all tokens but the first of each text."""
    return -float(torch.stack(log_likelihoods(model, batch)).double().sum())
