"""Models of another start on the zoo: averaged once their units are in one order, and joined layer to layer.

    python -m benchmarks.stitching [--zoo FOLDER] [--preset tiny] [--skill srt] [--start 1] [--texts 1000]

The stranger is an expert of the zoo that was trained from other random weights (`zoo.strangers`). First: the cosine of
the zoo's base with it, and the loss of their plain average, with the stranger's units as they are, in the order that
weights give, activations, and weights from where activations have led. Then, for each number of layers: the loss of
the front's first layers with the back's others, joined as they are, by a rotation (what `mergesearch stitch` writes)
and by the best affine map. Losses are nats a token of the right answers to documents that no model was trained on,
the same number of each of the five skills; what is fitted reads other texts. Markdown.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from api.aligning import by_activations
from api.given_texts import GivenTexts
from api.stitching import WAYS
from benchmarks.evaluation import show
from evaluation.artefacts.texts import Text, log_likelihoods
from evaluation.unlike.junctions import fit, judge, unmapped
from evaluation.unlike.pair import Pair, Side, open_pair
from merging.checkpoint import Checkpoint
from merging.permuting.apply import permute
from merging.permuting.decoder import specify
from merging.permuting.export import Find, by_weights
from merging.permuting.matching import cosine
from zoo.make import Zoo, build
from zoo.presets import preset
from zoo.skills import SKILLS, make_dictionary
from zoo.strangers import train_stranger

PARTS = ("mlp", "all")
Row = list[str]


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


def averages(base: Checkpoint, stranger: Checkpoint, documents: Documents) -> Iterator[Row]:
    """A line for each part and way of matching."""
    pair = open_pair(base, stranger, "cpu")
    judged = documents.judged(pair.ours)
    for name, side in (("the base itself", pair.ours), ("the stranger itself", pair.theirs)):
        yield [name, "", "", f"{_loss(side, judged):.3f}"]
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
            for tensor, live in pair.theirs.tensors.items():
                live.copy_((base.tensor(tensor) + permute(specification, found, tensor, own[tensor])) / 2)
            alike = cosine(specification, base.tensor, stranger.tensor, found)
            yield [f"average, {name}", part, f"{alike:.3f}", f"{_loss(pair.theirs, judged):.3f}"]


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
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--texts", type=int, default=1000)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo = build(settings.zoo or Path(folder), preset=settings.preset)
        stranger = train_stranger(zoo.folder, settings.skill, settings.start)
        documents = Documents(zoo, settings.texts)
        rows = list(averages(Checkpoint(zoo.base), Checkpoint(stranger), documents))
        show("Averages of the base and the stranger", ["model", "permuted", "cosine", "loss"], rows)
        own = [zoo.experts[name] for name in (settings.skill, "add")]
        pairs = (stranger, zoo.base), (zoo.base, stranger), (own[0], own[1])
        header = ["front → back", "layers of the front", "front", "back", *WAYS, *(f"R², {way}" for way in WAYS)]
        show("Joined after some layers", header, [row for each in pairs for row in joins(*each, documents)])


if __name__ == "__main__":
    main()
