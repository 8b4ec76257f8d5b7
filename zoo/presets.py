"""The sizes a zoo comes in: one row each; `nano` is for unit tests alone, its models know next to nothing.

Measured for `tiny`, seed 0, mean of the four skills on 256 documents each (87 CPU seconds to build): base .05, best
expert .34, uniform soup .52, best lambda .59 (at 0.5; 0.28 at 1.0), and more with a weight an expert. Fewer steps of
the base make every merge worse (450: best lambda .41), more make merging too easy (900: .89).

`broad` learns the second curriculum; holdout means of its five skills (348 CPU seconds to build): base .08, best expert
.31, uniform soup .69, best lambda .82 (at 0.4; 0.18 at 1.0).
"""

from dataclasses import asdict, dataclass
from typing import Any

from zoo.curricula import CURRICULA, Curriculum


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how fast one model is trained.

    Attributes:
        steps: optimiser steps.
        rate: peak learning rate, reached after `warmup` steps; a cosine takes it down to 5 %.
        warmup: steps of linear warm-up.
        batch: sequences a step.
    """

    steps: int
    rate: float
    warmup: int
    batch: int = 128


@dataclass(frozen=True, slots=True)
class Preset:
    """One size of zoo.

    Attributes:
        name: what the caller asks for.
        width, layers, ffn, heads: the Llama's shape.
        base, expert: how the base is pre-trained and how each expert is tuned from it.
        right_share: share of the base's examples that follow the wanted convention; below one half, so that the
            base prefers the sloppy one.
        words: words of the invented dictionaries.
        documents: documents a task, as far as there are so many.
        curriculum: what is learned (`zoo.curricula`).
    """

    name: str
    width: int
    layers: int
    ffn: int
    heads: int
    base: Training
    expert: Training
    right_share: float = 0.25
    words: int = 300
    documents: int = 400
    curriculum: str = "first"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its models from another row's; zoos of before there were curricula say nothing of theirs."""
        content = asdict(self)
        if self.curriculum == "first":
            del content["curriculum"]
        return content

    @property
    def learned(self) -> Curriculum:
        """Its skills."""
        return CURRICULA[self.curriculum]


_ROWS = (
    Preset("nano", 32, 2, 64, 2, Training(120, 4e-3, 12, 32), Training(16, 3e-3, 4, 32), words=100, documents=100),
    Preset("tiny", 64, 4, 192, 4, Training(600, 3e-3, 50), Training(60, 6e-4, 10)),
    Preset("small", 128, 5, 384, 4, Training(800, 2e-3, 50), Training(60, 3e-4, 10)),
    Preset("broad", 96, 6, 288, 4, Training(800, 2.5e-3, 50), Training(60, 4e-4, 10), curriculum="second"),
    Preset("medium", 256, 6, 704, 8, Training(700, 1.2e-3, 50), Training(60, 2e-4, 10)),
)
PRESETS: dict[str, Preset] = {row.name: row for row in _ROWS}


def preset(name: str) -> Preset:
    """The row of that name.

    Raises:
        ValueError: no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"zoo preset {name!r} is unknown: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
