"""`mergesearch stitch`: one model's first layers and another's others, joined by a rotation of the stream between."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from api.given_texts import GivenTexts
from evaluation.unlike.junctions import Judged, Maps, fit, judge, require_one_architecture, unmapped
from evaluation.unlike.pair import Pair, open_pair
from merging.checkpoint import Checkpoint
from merging.permuting.stitched import Join, stitch

WAYS = ("identity", "orthogonal", "affine")
"""To join two models: as they are, by a rotation and a scale, by the best affine map."""
_EACH = 5  # of so many texts one is kept from the fit, to judge by


@dataclass(frozen=True)
class Joined:
    """What joining two models gave.

    Attributes:
        maps: what was fitted, to all texts but those kept apart.
        judged: what it is worth, on those kept apart.
        apart: how many these are; 0: there were too few, and all were fitted and judged by.
    """

    maps: Maps
    judged: Judged
    apart: int


def stitch_models(front: Path, back: Path, after: int, texts: Path, to: Path, device: str) -> Joined:
    """Write the front's first layers with the back's others.

    Raises:
        InvalidInput: a folder, the texts or the number of layers cannot work; nothing is left behind.
    """
    opened, given = (Checkpoint(front, "FRONT"), Checkpoint(back, "BACK")), GivenTexts.read(texts)
    found: list[Joined] = []

    def find() -> Join:
        pair = open_pair(*opened, device)
        joined = join(pair, after, given.texts)
        found.append(joined)
        of_texts = {**given.said, "apart": joined.apart, "fitted_tokens": joined.maps.tokens}
        judged = {"loss": joined.judged.loss, "explained": joined.judged.explained}
        return Join(joined.maps.turn, {"texts": of_texts, **judged})

    stitch(*opened, after, to.absolute(), find)
    return found[0]


def join(pair: Pair, after: int, texts: tuple[str, ...]) -> Joined:
    """Fit the ways to join two models, and judge each on texts that were kept apart, if there are enough.

    Raises:
        InvalidModel: the models do not fit together.
    """
    require_one_architecture(pair, after)
    apart = texts[::_EACH] if len(texts) >= _EACH else ()
    fitted = [text for i, text in enumerate(texts) if not apart or i % _EACH]
    maps = fit(pair, after, pair.encode(fitted))
    stitches = unmapped(len(maps.turn.rotation)), maps.turn.stitch, maps.affine
    judged = judge(pair, after, pair.encode(apart or fitted), dict(zip(WAYS, stitches, strict=True)))
    return Joined(maps, judged, len(apart))


def stitch_table(joined: Joined) -> Table:
    """What each way to join the models is worth."""
    on = f"on {joined.apart} texts kept apart" if joined.apart else "on the texts it was fitted to, for want of more"
    table = Table(title=f"Loss {on}")
    table.add_column("model")
    table.add_column("nats a token", justify="right")
    table.add_column("R² of the stream", justify="right")
    notes = {"orthogonal": "orthogonal (written)", "affine": "affine (no checkpoint can hold it)"}
    for name, loss in joined.judged.loss.items():
        explained = joined.judged.explained.get(name)
        table.add_row(notes.get(name, name), f"{loss:.4f}", "" if explained is None else f"{explained:.3f}")
    return table


def shortage(joined: Joined) -> str:
    """A warning where the texts are too few to say how the models are to be joined; else empty."""
    coordinates = len(joined.maps.turn.rotation)
    if joined.maps.tokens >= 2 * coordinates:
        return ""
    return f"only {joined.maps.tokens} tokens for {coordinates} coordinates: the join is a guess; give more texts"
