"""Models of another start on the zoo: averaged once their units are in one order, and joined layer to layer.

    python -m benchmarks.stitching [--zoo FOLDER] [--preset tiny] [--skill srt] [--starts 3] [--texts 1000]

A stranger is an expert of the zoo that was trained from other random weights (`zoo.strangers`). First: the cosine of
the zoo's base with it, and the loss of their plain average, with the stranger's units as they are, in the order that
weights give, activations, and weights from where activations have led; and with its residual stream rotated, its other
units as weights or activations say. Means over strangers of several starts. Then, for the first of them and each number
of layers: the loss of the front's first layers with the back's others, joined as they are, by a rotation (what
`mergesearch stitch` writes) and by the best affine map. Losses are nats a token of the right answers to documents that
no model was trained on, the same number of each of the five skills; what is fitted reads other texts. Markdown.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from api.aligning import by_activations, by_rotation
from api.given_texts import GivenTexts
from api.stitching import WAYS
from benchmarks.evaluation import show
from evaluation.artefacts.texts import Text, log_likelihoods
from evaluation.unlike.junctions import fit, judge, unmapped
from evaluation.unlike.pair import Pair, Side, open_pair
from merging.checkpoint import Checkpoint
from merging.permuting.apply import permute
from merging.permuting.decoder import specify
from merging.permuting.export import RECORD, Find, by_weights
from merging.permuting.matching import Source, cosine
from merging.permuting.rotating import align_rotated
from zoo.make import Zoo, build
from zoo.presets import preset
from zoo.skills import SKILLS, make_dictionary
from zoo.strangers import train_stranger

PARTS = ("mlp", "all")
ROTATED: Mapping[str, Sequence[str]] = {"residual": ("weights",), "all": ("weights", "activations")}
Row = list[str]


class Average(NamedTuple):
    """A model, the part of it that was aligned, its cosine with the base in that part, nats a token."""

    model: str
    part: str
    cosine: float | None
    loss: float


class Documents:
    """Texts of the zoo's skills: some to fit, others to judge by."""

    def __init__(self, zoo: Zoo, count: int) -> None:
        dictionary, rng = make_dictionary(preset(zoo.preset).words, zoo.seed), Random("unlike models")
        each = max(1, count // len(SKILLS))
        trained = [skill.train(rng, dictionary) for skill in SKILLS.values() for _ in range(each)]
        self.fitted = GivenTexts(Path("zoo"), tuple(row.prompt + row.right for row in trained))
        self._judged = [skill.document(rng, dictionary) for skill in SKILLS.values() for _ in range(each)]

    def judged(self, side: Side) -> list[Text]:
        """Prompts and right answers."""
        found = []
        for row in self._judged:
            prompt, whole = (side.tokenizer(text)["input_ids"] for text in (row.prompt, row.prompt + row.right))
            found.append(Text(prompt, whole[len(prompt) :]))
        return found


def averages(base: Checkpoint, stranger: Checkpoint, documents: Documents) -> Iterator[Average]:
    """Each part and way of matching."""
    pair = open_pair(base, stranger, "cpu")
    judged = documents.judged(pair.ours)
    for name, side in (("the base itself", pair.ours), ("the stranger itself", pair.theirs)):
        yield Average(name, "", None, _loss(side, judged))
    own = {name: stranger.tensor(name).clone() for name in stranger.names}
    shapes = {name: stranger.entry(name).shape for name in stranger.names}
    ways: Mapping[str, Find] = {
        "weights": by_weights(),
        "activations": by_activations(stranger, base, documents.fitted, "cpu"),
        "activations, then weights": by_activations(stranger, base, documents.fitted, "cpu", polish=0),
    }
    for part in PARTS:
        specification = specify(shapes, stranger.config, (part,))
        orders: dict[str, Mapping[str, Tensor]] = {"as they are": {}}
        orders |= {name: find(specification, base.tensor, stranger.tensor)[0].orders for name, find in ways.items()}
        for name, found in orders.items():
            _average(pair, base, lambda tensor: permute(specification, found, tensor, own[tensor]))  # noqa: B023
            alike = cosine(specification, base.tensor, stranger.tensor, found)
            yield Average(f"average, {name}", part, alike, _loss(pair.theirs, judged))
    yield from rotations(base, stranger, documents, pair, ways)


def rotations(
    base: Checkpoint, stranger: Checkpoint, documents: Documents, pair: Pair, ways: Mapping[str, Find]
) -> Iterator[Average]:
    """With the stream rotated: nothing else, then all other units by weights and by activations.

    Args:
        pair: both models; the second one is overwritten.
        ways: to match units, by name.
    """
    judged, turning = documents.judged(pair.ours), by_rotation(stranger, base, documents.fitted, "cpu")()
    for part, names in ROTATED.items():
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                to = Path(folder) / "aligned"
                align_rotated(stranger, base, to, lambda: turning, parts=(part,), find=ways[name])
                _average(pair, base, Checkpoint(to).tensor)
                alike = json.loads((to / RECORD).read_text())["similarity"]["after"]
            said = "average, rotated" if part == "residual" else f"average, rotated, then {name}"
            yield Average(said, part, alike, _loss(pair.theirs, judged))


def table(found: Mapping[tuple[str, str], Sequence[Average]]) -> list[Row]:
    """A line for each part and way, means over the starts; and the loss of each start."""
    rows = []
    for (name, part), each in found.items():
        alike = [one.cosine for one in each if one.cosine is not None]
        losses = [one.loss for one in each]
        shown = ", ".join(f"{loss:.2f}" for loss in losses)
        rows.append([name, part, f"{fmean(alike):.3f}" if alike else "", f"{fmean(losses):.3f}", shown])
    return rows


def joins(front: Path, back: Path, documents: Documents) -> Iterator[Row]:
    """A line for each number of layers that may be the front's."""
    pair: Pair = open_pair(Checkpoint(front), Checkpoint(back), "cpu")
    fitted, judged = pair.encode(documents.fitted.texts), documents.judged(pair.ours)
    for after in range(1, pair.theirs.depth):
        maps = fit(pair, after, fitted)
        stitches = unmapped(len(maps.turn.rotation)), maps.turn.stitch, maps.affine
        found = judge(pair, after, judged, dict(zip(WAYS, stitches, strict=True)))
        losses = [f"{loss:.3f}" for loss in found.loss.values()]
        explained = [f"{share:.2f}" for share in found.explained.values()]
        yield [f"{front.name} → {back.name}", str(after), *losses, *explained]


def _average(pair: Pair, base: Checkpoint, other: Source) -> None:
    """Puts the mean of the base and another model in the place of `pair.theirs`."""
    for name, live in pair.theirs.tensors.items():
        live.copy_((base.tensor(name) + other(name)) / 2)


@torch.no_grad()
def _loss(side: Side, texts: Sequence[Text]) -> float:
    """Nats a token of the answers."""
    total = sum(float(each) for text in texts for each in log_likelihoods(side.live, [text]))
    return -total / sum(len(text.answer) for text in texts)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Models of another start, on the zoo.")
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--skill", default="srt")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--texts", type=int, default=1000)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        strangers = [train_stranger(zoo.folder, settings.skill, 1 + i) for i in range(settings.starts)]
        documents = Documents(zoo, settings.texts)
        found: dict[tuple[str, str], list[Average]] = {}
        for each in strangers:
            for row in averages(Checkpoint(zoo.base), Checkpoint(each), documents):
                found.setdefault((row.model, row.part), []).append(row)
        header = ["model", "aligned", "cosine", "loss", "loss of each start"]
        show(f"Averages of the base and the strangers of {settings.starts} starts", header, table(found))
        stranger, own = strangers[0], [zoo.experts[name] for name in (settings.skill, "add")]
        pairs = (stranger, zoo.base), (zoo.base, stranger), (own[0], own[1])
        header = ["front → back", "layers of the front", "front", "back", *WAYS, *(f"R², {way}" for way in WAYS)]
        show("Joined after some layers", header, [row for each in pairs for row in joins(*each, documents)])


if __name__ == "__main__":
    main()
