"""`mergesearch align`: by the models' weights, by what their units do on texts of the user's, or with a rotation."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from api.given_texts import GivenTexts
from evaluation.unlike.correlations import similarities
from evaluation.unlike.pair import open_pair
from evaluation.unlike.turning import fit_turn
from merging.checkpoint import Checkpoint
from merging.errors import InvalidRecipe
from merging.permuting.export import RECORD, Find, Found, align, by_weights
from merging.permuting.matching import Assigned, Match, Source, from_activations, match_weights, settle
from merging.permuting.rotating import Turning, align_rotated
from merging.permuting.specification import Specification


@dataclass(frozen=True)
class Way:
    """How units are matched.

    Attributes:
        texts: matched is what they do on these; None: their weights.
        polish: whether the weights have the last word all the same.
        seed: of matching by weights.
        device: where the texts are read.
        rotate: whether the residual stream is rotated as the texts say; units are then matched by weights.
    """

    texts: Path | None = None
    polish: bool = False
    seed: int = 0
    device: str = "cpu"
    rotate: bool = False


def align_model(model: Path, like: Path, to: Path, parts: tuple[str, ...], way: Way) -> str:
    """Write a model in the order of another one's units, and say how alike they are now.

    Args:
        model: the folder of the model to align.
        like: that of the reference.
        to: the folder to create.
        parts: `mlp`, `attention`, `residual` or `all`; none: `mlp`, with a rotation `mlp` and `attention`.
        way: how they are matched.

    Raises:
        InvalidInput: a folder, the texts or an option cannot work; nothing is left behind.
    """
    _require_consistent(way)
    opened, folder = (Checkpoint(model, "MODEL"), Checkpoint(like, "--like")), to.absolute()
    texts = None if way.texts is None else GivenTexts.read(way.texts)
    if texts is None:
        align(*opened, folder, parts=parts or ("mlp",), find=by_weights(way.seed))
    elif way.rotate:
        turning, units = by_rotation(*opened, texts, way.device), parts or ("mlp", "attention")
        align_rotated(*opened, folder, turning, parts=units, find=by_weights(way.seed))
    else:
        find = by_activations(*opened, texts, way.device, way.seed if way.polish else None)
        align(*opened, folder, parts=parts or ("mlp",), find=find)
    return _result(to, like)


def by_rotation(expert: Checkpoint, reference: Checkpoint, texts: GivenTexts, device: str) -> Callable[[], Turning]:
    """Finds the rotation between the streams of two models on the texts, as `align_rotated` takes it.

    Args:
        expert, reference: the models.
        device: where both compute.
    """

    def find() -> Turning:
        pair = open_pair(reference, expert, device)
        found = fit_turn(pair, pair.encode(texts.texts))
        stream = {"coordinates": len(found.turn.rotation), "before": found.before, "after": found.after}
        return Turning(found.turn, {"texts": {**texts.said, "tokens": found.tokens}, "stream": stream})

    return find


def by_activations(
    expert: Checkpoint, reference: Checkpoint, texts: GivenTexts, device: str, polish: int | None = None
) -> Find:
    """Finds the order in which the expert's units do most what the reference's do on the texts.

    Units that never change on them, in either model, are matched by their weights.

    Args:
        expert, reference: as `Find` gets them.
        device: where both models compute.
        polish: the seed of an ascent by weights from there; None: none.
    """

    def find(specification: Specification, ours: Source, theirs: Source) -> Found:
        pair = open_pair(reference, expert, device)
        encoded = pair.encode(texts.texts)
        made = Assigned({}, {}, {})
        for name, similarity in similarities(pair, specification, encoded):
            made.update(from_activations(specification, {name: similarity}))
        orders = settle(specification, ours, theirs, made.orders, made.unsure)
        match, said = Match(orders, 0, 0.0), _said(made, texts, sum(text.positions for text in encoded))
        if polish is not None:
            match = match_weights(specification, ours, theirs, polish, orders)
            said["polish"] = {"seed": polish, "sweeps": match.sweeps, "gain": match.gain}
        return match, said

    return find


def _require_consistent(way: Way) -> None:
    """See that the options fit together.

    Raises:
        InvalidRecipe: they do not.
    """
    for option in ("--polish",) * way.polish + ("--rotate",) * way.rotate:
        if way.texts is None:
            raise InvalidRecipe(option, None, "goes by what texts say, and there are none", "name some: --texts")
    if way.rotate and way.polish:
        problem, remedy = "changes nothing with --rotate, which matches units by weights", "leave it out"
        raise InvalidRecipe("--polish", None, problem, remedy)


def _result(to: Path, like: Path) -> str:
    """What the user is told of the folder."""
    record = json.loads((to / RECORD).read_text())
    found, stream = record["similarity"], record.get("stream")
    said = f"aligned model in {to}: cosine to {like} {found['before']:.3f}, now {found['after']:.3f}"
    if stream is None:
        return said
    said += f"; of the residual streams {stream['before']:.3f}, now {stream['after']:.3f}"
    tokens, coordinates = record["texts"]["tokens"], stream["coordinates"]
    if tokens < 2 * coordinates:
        said += f"; only {tokens} tokens for {coordinates} coordinates: the rotation is a guess; give more texts"
    return said


def _said(made: Assigned, texts: GivenTexts, tokens: int) -> dict[str, Any]:
    """What the record says of matching by activations."""
    before, after = (sum(pair[i] for pair in made.likeness.values()) / len(made.likeness) for i in (0, 1))
    return {
        "by": "activations",
        "texts": {**texts.said, "tokens": tokens},
        "correlation": {"before": before, "after": after},
        "by_weights": _counts(made.unsure),
    }


def _counts(unsure: Mapping[str, Tensor]) -> dict[str, int]:
    """How many places of which permutations the weights decided; only those with any."""
    counts = {name: int(places.count_nonzero()) for name, places in unsure.items()}
    return {name: count for name, count in counts.items() if count}
