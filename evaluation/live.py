"""The live model that candidates are written into: loading it, and finding its tensors by checkpoint name."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from merging.errors import InvalidModel


def load_live(base: Path, device: str, dtype: str | None = None) -> tuple[Any, Any]:
    """Load a Hugging Face causal language model and its tokenizer, as lm-eval does, ready to be overwritten.

    Args:
        base: its folder; safetensors only, no remote code, nothing is fetched.
        dtype: torch's name of the dtype (`float32`); None: as the checkpoint says.

    Raises:
        InvalidModel: the folder holds no such model or tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer  # seconds to import

    placed = {} if device == "cpu" else {"device_map": {"": device}}  # straight to the device, not through memory
    safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(
                base, dtype=dtype or "auto", use_safetensors=True, **safe, **placed
            )
        tokenizer = AutoTokenizer.from_pretrained(base, use_fast=True, **safe)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise  # not the folder's fault, and may pass
        raise InvalidModel(
            "models.base",
            str(base),
            f"cannot be loaded as a causal language model ({error})",
            "give a folder that AutoModelForCausalLM and AutoTokenizer can load",
        ) from error
    return model.eval().requires_grad_(False), tokenizer


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar while the weights load."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def live_tensors(model: Any, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The model's tensors by checkpoint name: writing into them in place changes what the model computes.

    Args:
        names: all tensor names of the checkpoint. Those that the model shares with another name (tied weights) or
            has no use for (old rotary frequencies) are left out.

    Raises:
        InvalidModel: a name has no tensor of its own in the model, or a tensor of the model has no name.
    """
    own = _own_tensors(model)
    found: dict[str, torch.Tensor] = {}
    taken: dict[int, str] = {}
    order = {name: i for i, name in enumerate(own)}
    located = _located(model, sorted(names), own)
    # of two names of one tensor the one the model registers first stays: the embedding, not the head tied to it
    for name, place in sorted(located.items(), key=lambda item: order.get(item[1] or "", -1)):
        if place is None:
            if not _ignored(model, name):
                raise _mismatch(name, "is a tensor of the checkpoint that the loaded model does not have as it is")
        elif id(own[place]) not in taken:
            taken[id(own[place])] = name
            found[name] = own[place]
    for place, tensor in own.items():
        if id(tensor) not in taken:
            raise _mismatch(place, "is a tensor of the model that no name in the checkpoint belongs to")
    return {name: found[name] for name in sorted(found)}


def _own_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers by the model's own names, aliases included, in the order they are registered.

    Identity of the tensor object tells aliases: `keep_vars` gives the parameters themselves.
    """
    return dict(model.state_dict(keep_vars=True))


def _located(model: Any, names: Iterable[str], own: dict[str, torch.Tensor]) -> dict[str, str | None]:
    """The model's name for each of the checkpoint's: renamed as transformers does on loading; None if it has none."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    located: dict[str, str | None] = {}
    for name in names:
        renamed, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        # a converter builds one tensor out of several (fused experts): none of its own to write this one into
        located[name] = renamed if converted is None and renamed in own else None
    return located


def _ignored(model: Any, name: str) -> bool:
    """Whether transformers drops this name on loading without a word."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    return any(re.search(pattern, name) for pattern in patterns)


def _mismatch(name: str, problem: str) -> InvalidModel:
    return InvalidModel("models.base", name, problem, "use a model whose checkpoint transformers loads name by name")


def check_loads(base: Path, names: Iterable[str]) -> None:
    """See whether `load_live` and `live_tensors` will work, without reading any weights.

    Raises:
        InvalidModel: they will not.
    """
    model, _ = load_live(base, "meta")
    live_tensors(model, names)
