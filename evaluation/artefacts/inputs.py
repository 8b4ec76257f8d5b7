"""What each linear layer of a model sees: the mean products of its inputs, padding left out.

For every matrix [out, in]: E[x xᵀ] over all positions of the texts, float32 `gram.0` [in, in], or for wide inputs in
blocks along the diagonal `gram.0`, `gram.1` … [b, b] ([in] where b is 1), and `mean` E[x] [in]. Matrices that see the
same input (queries, keys and values) are summed once. What is computed of a part of the positions alone (experts that
tokens are routed to) is left out: no padding could be told apart there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.modules import Layer, shared_inputs, watched
from evaluation.artefacts.passes import forward, read_all, rounds
from evaluation.artefacts.texts import Text
from merging.artefacts.measured import stored_name
from merging.artefacts.request import Request
from merging.weightfiles import Shape


class Sums:
    """The running sums of one input.

    Args:
        width: channels.
        block: channels whose products with each other are kept.

    Attributes:
        rows: how many positions were added.
    """

    def __init__(self, width: int, block: int, device: torch.device) -> None:
        self._grams = [torch.zeros(shape, device=device) for shape in gram_shapes(width, block)]
        self._total = torch.zeros(width, device=device)
        self.rows = 0

    def add(self, values: Tensor) -> None:
        """Adds inputs [n, in]."""
        wide, first = values.float(), 0
        for gram in self._grams:
            part = wide[:, first : first + len(gram)]
            gram += part.mT @ part if gram.dim() == 2 else part.square().sum(0)
            first += len(gram)
        self._total += wide.sum(0)
        self.rows += len(wide)

    def clear(self) -> None:
        """Forgets all that was added."""
        for each in (*self._grams, self._total):
            each.zero_()
        self.rows = 0

    def means(self) -> list[Tensor]:
        """E[x xᵀ] block by block, then E[x]."""
        return [each / max(self.rows, 1) for each in (*self._grams, self._total)]


class Products:
    """The running products of two inputs of one width, on the same positions.

    Args:
        width: channels.
        block: channels whose products with each other are kept.
    """

    def __init__(self, width: int, block: int, device: torch.device) -> None:
        self._sums = [torch.zeros(shape, device=device) for shape in gram_shapes(width, block)]
        self._rows = 0

    def add(self, left: Tensor, right: Tensor) -> None:
        """Adds inputs [n, in] of both."""
        ours, theirs, first = left.float(), right.float(), 0
        for total in self._sums:
            part = slice(first, first + len(total))
            total += ours[:, part].mT @ theirs[:, part] if total.dim() == 2 else (ours * theirs)[:, part].sum(0)
            first += len(total)
        self._rows += len(ours)

    def means(self) -> list[Tensor]:
        """E[left rightᵀ] block by block."""
        return [each / max(self._rows, 1) for each in self._sums]


@dataclass
class Inputs:
    """Measures the inputs of all linear layers: a `Measurement`.

    Args:
        block: channels whose products with each other are kept.
    """

    subject: Subject
    block: int
    layers: list[Layer] = field(init=False)
    _rows: int = 0

    def __post_init__(self) -> None:
        self.layers = shared_inputs(self.subject)

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [
            (stored_name(name, part), torch.float32, shape)
            for layer in self.layers
            for name in layer.names
            for part, shape in self._parts(layer.width)
        ]

    @property
    def need(self) -> int:
        """Bytes of the largest round's sums."""
        return max((sum(map(self._bytes, layers)) for layers in self._rounds()), default=0)

    @property
    def rounds(self) -> int:
        """As `Measurement.rounds`."""
        return len(self._rounds())

    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`."""
        for layers in self._rounds():
            found = self._sums(layers)
            for layer, sums in zip(layers, found, strict=True):
                means = sums.means()
                for name in layer.names:
                    parts = (stored_name(name, part) for part, _ in self._parts(layer.width))
                    yield from zip(parts, means, strict=True)

    def figures(self) -> Mapping[str, float | int]:
        """How many positions were seen."""
        return {"positions": self._rows}

    @torch.no_grad()
    def _sums(self, layers: Sequence[Layer]) -> list[Sums]:
        device = self.subject.model.device
        found = [Sums(layer.width, self.block, device) for layer in layers]
        with watched((layer, sums.add) for layer, sums in zip(layers, found, strict=True)) as show:

            def read(batch: Sequence[Text]) -> None:
                show([text.positions for text in batch])
                forward(self.subject.model, batch)

            def restart() -> None:
                for sums in found:
                    sums.clear()

            read_all(self.subject, read, restart)
        self._rows = found[0].rows if found else 0
        return found

    def _parts(self, width: int) -> list[tuple[str, tuple[int, ...]]]:
        shapes = gram_shapes(width, self.block)
        return [*((f"gram.{i}", shape) for i, shape in enumerate(shapes)), ("mean", (width,))]

    def _bytes(self, layer: Layer) -> int:
        return 4 * sum(torch.Size(shape).numel() for _, shape in self._parts(layer.width))

    def _rounds(self) -> list[list[Layer]]:
        return rounds(self.layers, self._bytes, self.subject.room)


def measure_inputs(subject: Subject, request: Request) -> Inputs:
    """The measurement of an `inputs` artefact."""
    return Inputs(subject, request.setting("block"))


def gram_shapes(width: int, block: int) -> list[tuple[int, ...]]:
    """Shapes of the blocks that an input of that width is summed in."""
    if block == 1:
        return [(width,)]
    sizes = [min(block, width - first) for first in range(0, width, block)]
    return [(size, size) for size in sizes]
