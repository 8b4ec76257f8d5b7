"""Two live models with one way to tokenise, and texts that both read: the same batches, one model after the other.

Nothing that a model computes outlives its batch. Says nothing about what is looked at (`taps.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from evaluation.artefacts.contract import Subject
from evaluation.artefacts.passes import read_all
from evaluation.artefacts.texts import Text
from evaluation.live import live_tensors, load_live
from evaluation.lm.budget import Budget
from evaluation.unlike.taps import Tap
from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel, InvalidStudy

MOST_POSITIONS = 8192
"""Of one batch: what a layer computes of it is held until the other model has read it, too."""
_WINDOW = 2048  # tokens; longer texts are read in pieces
_SHARE = 0.4  # of the free memory that sums may take


@dataclass(frozen=True)
class Side:
    """One of the two models, alive.

    Attributes:
        checkpoint: what it was loaded from.
        live: a Hugging Face causal language model in evaluation mode.
        tokenizer: its own.
        tensors: its tensors by checkpoint name.
    """

    checkpoint: Checkpoint
    live: Any
    tokenizer: Any
    tensors: Mapping[str, Tensor]

    def module(self, name: str) -> nn.Module:
        """The module whose weight has that name in the checkpoint."""
        weight = self.tensors[name]
        return next(each for each in self.live.modules() if getattr(each, "weight", None) is weight)

    def finite(self, values: Tensor) -> Tensor:
        """The values that it computed.

        Raises:
            InvalidModel: they hold NaN or infinity.
        """
        if not bool(torch.isfinite(values).all()):
            problem, remedy = "computes NaN or infinity on the texts", "use a model that works, in a dtype it works in"
            raise InvalidModel(self.checkpoint.key, str(self.checkpoint.path), problem, remedy)
        return values

    @property
    def depth(self) -> int:
        """How many decoder layers there are."""
        return len(self.live.base_model.layers)

    def stream(self, after: int) -> Tap:
        """The residual stream as so many layers, at least one, leave it."""
        return Tap(self.live.base_model.layers[after - 1], "output")


@dataclass(frozen=True)
class Pair:
    """Two models and what they can read together.

    Attributes:
        ours, theirs: the models.
        window: most tokens of a sequence.
        budget: what one batch may hold.
        room: bytes that sums may take at once.
    """

    ours: Side
    theirs: Side
    window: int
    budget: Budget
    room: int

    def encode(self, texts: Sequence[str]) -> list[Text]:
        """Texts as token ids, long ones in pieces; what is left over with less than two tokens is left out.

        Raises:
            InvalidStudy: nothing is left.
            InvalidModel: the two tokenizers do not agree on a text, or a model has no row for one of its tokens.
        """
        found = []
        for text in texts:
            ids, others = (list(side.tokenizer(text, verbose=False)["input_ids"]) for side in (self.ours, self.theirs))
            if ids != others:
                problem = f"gives the text {text[:40]!r} other tokens than {self.ours.checkpoint.path} gives it"
                remedy = "use models of one tokenizer"
                raise InvalidModel(self.theirs.checkpoint.key, str(self.theirs.checkpoint.path), problem, remedy)
            pieces = (ids[first : first + self.window] for first in range(0, len(ids), self.window))
            found += [Text(piece[:1], piece[1:]) for piece in pieces if len(piece) > 1]
        if not found:
            problem, remedy = "give no sequence of two tokens", "give more of what the models are for"
            raise InvalidStudy("--texts", len(texts), problem, remedy)
        for side in (self.ours, self.theirs):
            _require_rows(side, max((max(*text.context, *text.answer) for text in found), default=0))
        return found

    @torch.inference_mode()
    def read(self, texts: list[Text], look: Callable[[Sequence[Text]], None], restart: Callable[[], None]) -> None:
        """Shows all texts batch by batch.

        Args:
            look: reads a batch with either model, and adds to sums.
            restart: forgets what was added: memory ran out, and all is read again in smaller batches.

        Raises:
            MemoryError: one sequence alone does not fit.
        """
        read_all(Subject(self.ours.live, self.ours.tensors, texts, self.budget, self.room, lambda: None), look, restart)


def open_pair(ours: Checkpoint, theirs: Checkpoint, device: str) -> Pair:
    """Loads both models.

    Args:
        device: where both compute: `cpu`, `cuda:0`.

    Raises:
        InvalidModel: a folder holds no causal language model with a tokenizer.
    """
    sides = [_load(checkpoint, device) for checkpoint in (ours, theirs)]
    limits = [getattr(side.live.config, "max_position_embeddings", None) or _WINDOW for side in sides]
    place = torch.device(device)
    free = torch.cuda.mem_get_info(place)[0] if place.type == "cuda" else psutil.virtual_memory().available
    budget = Budget(sides[0].live, place, None)
    budget.tokens = min(budget.tokens, MOST_POSITIONS)
    return Pair(sides[0], sides[1], min(*limits, _WINDOW), budget, int(free * _SHARE))


def _load(checkpoint: Checkpoint, device: str) -> Side:
    try:
        live, tokenizer = load_live(checkpoint.path, device)
        return Side(checkpoint, live, tokenizer, live_tensors(live, checkpoint.names))
    except InvalidModel as error:  # it names the place of a study's base
        raise InvalidModel(checkpoint.key, error.value, error.problem, error.remedy) from error


def _require_rows(side: Side, token: int) -> None:
    """The model knows the token."""
    rows = side.live.get_input_embeddings().num_embeddings
    if token >= rows:
        problem = f"has {rows} rows of embeddings, but its tokenizer gives the texts the token {token}"
        remedy = "use the tokenizer that belongs to the model"
        raise InvalidModel(side.checkpoint.key, str(side.checkpoint.path), problem, remedy)
