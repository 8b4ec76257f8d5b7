"""The live model's forward passes while one candidate is scored."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED


@contextlib.contextmanager
def watched_passes(model: Any, before: Callable[[int], None]) -> Iterator[None]:
    """Call `before` ahead of every forward pass with its positions, rows times columns; what it raises ends the pass.

    Every candidate finds lm-eval's seed: tasks that sample give all of them the same noise. Outside nothing changes.
    """

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before((args[0] if args else kwargs["input_ids"]).numel())

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(DEFAULT_OTHER_SEED)
            yield
    finally:
        handle.remove()
