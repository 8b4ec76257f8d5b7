"""The surroundings of stock `lm_eval`: its random state, without its bars, and its templates compiled once.

Importing it takes a second (lm-eval, data sets), so import it where it is used.
"""

import contextlib
import functools
import io
import random
from collections.abc import Iterator

import datasets
import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.utils import env as _templates

_compiled = functools.lru_cache(maxsize=256)(_templates.from_string)


@contextlib.contextmanager
def stock_seeds() -> Iterator[None]:
    """The random state `lm_eval` starts a run with; ours comes back afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """lm-eval compiles a template anew for every document, which takes longer than scoring a small model."""
    own = _templates.from_string
    _templates.from_string = _compiled
    try:
        yield
    finally:
        _templates.from_string = own


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars: lm-eval draws one while it builds requests and offers no switch for it."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()
