"""`mergesearch align`: by the models' weights, or by what their units do on texts of the user's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from api.given_texts import GivenTexts
from evaluation.unlike.correlations import similarities
from evaluation.unlike.pair import open_pair
from merging.checkpoint import Checkpoint
from merging.errors import InvalidRecipe
from merging.permuting.export import RECORD, Find, Found, align, by_weights
from merging.permuting.matching import Assigned, Match, Source, from_activations, match_weights, settle
from merging.permuting.specification import Specification


@dataclass(frozen=True)
class Way:
    """How units are matched.

    Attributes:
        texts: matched is what they do on these; None: their weights.
        polish: whether the weights have the last word all the same.
        seed: of matching by weights.
        device: where the texts are read.
    """

    texts: Path | None = None
    polish: bool = False
    seed: int = 0
    device: str = "cpu"


def align_model(model: Path, like: Path, to: Path, parts: tuple[str, ...], way: Way) -> str:
    """Write a model in the order of another one's units, and say how alike they are now.

    Raises:
        InvalidInput: a folder, the texts or an option cannot work; nothing is left behind.
    """
    if way.polish and way.texts is None:
        raise InvalidRecipe("--polish", None, "goes on from what texts say, and there are none", "name some: --texts")
    opened = Checkpoint(model, "MODEL"), Checkpoint(like, "--like")
    find = by_weights(way.seed)
    if way.texts is not None:
        find = by_activations(*opened, GivenTexts.read(way.texts), way.device, way.seed if way.polish else None)
    align(*opened, to.absolute(), parts=parts, find=find)
    found = json.loads((to / RECORD).read_text())["similarity"]
    return f"aligned model in {to}: cosine to {like} {found['before']:.3f}, now {found['after']:.3f}"


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
