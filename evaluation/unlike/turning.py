"""One rotation for the whole residual stream of two models, found where both read the same texts.

Every place counts between which layers add to the stream: as the embedding gives it, and as each layer leaves it.
Writes nothing; `merging.permuting.rotating` does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from evaluation.artefacts.passes import forward
from evaluation.artefacts.texts import Text
from evaluation.unlike.pair import Pair, Side
from evaluation.unlike.taps import Tap, tapped, unpadded
from merging.permuting.stitching import Turn, TurnSums


@dataclass(frozen=True)
class StreamTurn:
    """The rotation, and how well it fits.

    Attributes:
        turn: leads from our stream to theirs.
        before, after: the mean cosine of both streams in one place, as they are and once ours is turned; from −1 to 1.
        tokens: how many were read.
    """

    turn: Turn
    before: float
    after: float
    tokens: int


def fit_turn(pair: Pair, texts: list[Text]) -> StreamTurn:
    """The rotation of `pair.ours`' stream that makes it most like `pair.theirs`' all along (`TurnSums`).

    Args:
        pair: two models of one width and depth. Batches are made small enough for what all layers give to fit.
        texts: what both read, once.

    Raises:
        InvalidModel: a model computes NaN or infinity.
        MemoryError: one sequence alone does not fit.
    """
    width, depth = pair.ours.live.get_input_embeddings().embedding_dim, pair.ours.depth
    a_position = width * (4 * (depth + 1) + 4 * 8)  # ours all along; in float64 both in one place, and their directions
    pair.budget.tokens = max(1, min(pair.budget.tokens, pair.room // a_position))
    sums = SimpleNamespace()

    def restart() -> None:
        sums.turn, sums.tokens = TurnSums(width), 0

    def look(batch: Sequence[Text]) -> None:
        seen: dict[str, Tensor] = {}

        def keep(place: str, values: Tensor) -> None:
            seen[place] = pair.ours.finite(unpadded(values, batch))

        def add(place: str, values: Tensor) -> None:
            sums.turn.add(seen.pop(place), pair.theirs.finite(unpadded(values, batch)))

        for side, see in ((pair.ours, keep), (pair.theirs, add)):
            with tapped(_places(side), see):
                forward(side.live, batch)
        sums.tokens += sum(text.positions for text in batch)

    restart()
    pair.read(texts, look, restart)
    turn = sums.turn.solve()
    before, after = (sums.turn.cosine(each) for each in (torch.eye(width, dtype=torch.float64), turn.rotation))
    return StreamTurn(turn, before, after, sums.tokens)


def _places(side: Side) -> dict[str, Tap]:
    """Where the stream is seen."""
    layers = {str(after): side.stream(after) for after in range(1, side.depth + 1)}
    return {"0": Tap(side.live.get_input_embeddings(), "output")} | layers
