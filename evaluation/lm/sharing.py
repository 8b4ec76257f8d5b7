"""Whether a model may be given rows with branches: what its configuration says, and what it does."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from evaluation.lm.budget import out_of_memory
from evaluation.lm.reader import Reader
from evaluation.lm.tree import Row, chains

logger = logging.getLogger(__name__)

_UNBOUNDED = 1 << 30
_ALIBI = ("bloom", "mpt")  # they number positions by where they lie in the row
_QUERIES = 3  # of a row, that a check looks at
_TELLING = 1e-5  # of float32: a context that makes less difference tells nothing
MOST_FAILURES = 3  # checks failed one after the other: it is the model, not a candidate whose numbers burst


def deepest(model: Any) -> int:
    """Positions of the longest sequence that may share a row; 0: the architecture is known not to allow it.

    Within a sliding window or an attention chunk a sequence sees all its positions, as in full attention; longer
    sequences are left alone.
    """
    config = model.config.get_text_config()
    if config._attn_implementation not in ("eager", "sdpa") or getattr(model, "_is_stateful", False):
        return 0
    if config.model_type in _ALIBI or getattr(config, "alibi", False):
        return 0
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention", "chunked_attention"}:
        return 0
    bounds = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((int(bound) for bound in bounds if bound), default=_UNBOUNDED)


class Sharing:
    """Decides how rows may be packed for a live model, and changes its mind once a check on it fails.

    Attributes:
        deepest: positions of the longest sequence that may share a row.
    """

    def __init__(self, model: Any, reader: Reader) -> None:
        self.deepest = deepest(model)
        self._exact = model.dtype == torch.float32
        self._reader = reader
        self._checked = 0  # positions of the longest sequence that was found right
        self._failures = 0  # since then

    def allows(self, rows: Sequence[Row]) -> bool:
        """Whether these rows come out as plain ones do, tried on the deepest if none so deep was tried before.

        Rows that make the model fail, or come out wrong three times, are the last: from then on `deepest` is 0.
        Weights that tell nothing (NaN, all zero), and rows that do not fit in memory, decide this time only.
        """
        branched = [row for row in rows if row.branched]
        probe = max(branched, key=lambda row: (row.depth, len(row)), default=None)
        if probe is None or probe.depth <= self._checked:
            return True
        try:
            right = self._right(probe)
        except (RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError) as error:
            return False if out_of_memory(error) else self._refuse(f"the model fails on them: {error}")
        if right:
            self._checked, self._failures = probe.depth, 0
        elif right is not None:
            self._failures += 1
            if self._failures == MOST_FAILURES:
                self._refuse("results differ from those of plain rows")
        return bool(right)

    def _refuse(self, why: str) -> bool:
        self.deepest = 0
        logger.info("sequences share no rows: %s", why, extra={"action": "lm.rows_plain"})
        return False

    def _right(self, row: Row) -> bool | None:
        """Whether a row's queries come out as they do alone, whatever stands in the other branches; None: no telling.

        The measure is the difference that another context makes to the same targets.
        """
        alone = chains(row)
        some = [alone[i] for i in np.unique(np.linspace(0, len(alone) - 1, _QUERIES).astype(int))]
        first = row.owners == some[0].owners[0]
        packed, moved = np.split(self._read([row, _elsewhere(row, first)]), 2)
        plain, other = np.split(self._read([*some, *map(_other_context, some)]), 2)
        chosen = np.concatenate([np.flatnonzero(row.owners == chain.owners[0]) for chain in some])
        near, moved = np.abs(packed[chosen] - plain), np.abs(packed - moved)[first]
        return self._judge(near, moved, np.abs(plain - other), float(np.abs(plain).max()))

    def _judge(
        self, near: npt.NDArray[Any], moved: npt.NDArray[Any], scale: npt.NDArray[Any], size: float
    ) -> bool | None:
        if not np.isfinite([near.max(), moved.max(), scale.max()]).all():
            return None
        if self._exact:
            bound = min(max(1e-3, 1e-5 * size), 1e-2 * scale.max())
            return None if scale.max() < _TELLING else bool(max(near.max(), moved.max()) <= bound)
        # half precision: single numbers jump, so what counts is the mean
        if near.mean() <= scale.mean() / 4 and moved.mean() <= scale.mean() / 20:
            return True
        return None if scale.mean() < 0.1 else False

    def _read(self, rows: Sequence[Row]) -> npt.NDArray[Any]:
        return self._reader.read(rows).logprobs.double().numpy()


def _elsewhere(row: Row, own: npt.NDArray[np.bool_]) -> Row:
    """The row with other tokens in all branches but those the chosen targets [M] are on."""
    leaf = row.places[own].max()
    others = np.flatnonzero((np.arange(len(row)) > leaf) | (row.ends <= leaf))
    tokens = row.tokens.copy()
    tokens[others] = _shifted(tokens, others)
    return replace(row, tokens=tokens)


def _other_context(chain: Row) -> Row:
    """A plain row with other tokens before the last that is read for a target."""
    before = np.arange(chain.places.max())
    tokens = chain.tokens.copy()
    tokens[before] = _shifted(tokens, before)
    return replace(chain, tokens=tokens)


def _shifted(tokens: npt.NDArray[np.int32], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Tokens of the same row, from half a row further on."""
    return tokens[(places + max(1, len(tokens) // 2)) % len(tokens)]
