"""The live model that candidates are written into: loading it, and finding its tensors by checkpoint name."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merging.errors import InvalidModel, MergesearchError

_REASON = 300  # most characters shown of a vendor's error


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
        with quiet_loading():
            model = AutoModelForCausalLM.from_pretrained(
                base, dtype=dtype or "auto", use_safetensors=True, **safe, **placed
            )
        tokenizer = AutoTokenizer.from_pretrained(base, use_fast=True, **safe)
    except (torch.OutOfMemoryError, MemoryError, MergesearchError):
        raise  # memory is not the folder's fault, and may pass
    except Exception as error:  # a config.json's values reach vendor code unchecked, so anything can come out of it
        raise InvalidModel(
            "models.base",
            str(base),
            f"cannot be loaded as a causal language model ({_reason(error)})",
            "give a folder that AutoModelForCausalLM and AutoTokenizer can load",
        ) from error
    return model.eval().requires_grad_(False), tokenizer


def _reason(error: Exception) -> str:
    """An error on one line, cut short: transformers explains itself over several, and may list all it knows."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _REASON else text[: _REASON - 3] + "..."


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
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

    Returns:
        Parameters and buffers; where transformers keeps an MoE layer's experts in one parameter, views of it.

    Raises:
        InvalidModel: a name has no place in the model, or a tensor of the model is not filled by the names.
    """
    own: dict[str, torch.Tensor] = dict(model.state_dict(keep_vars=True))  # aliases are the same object
    places = _places(model, sorted(names), own)
    lost = [name for name, place in places.items() if place is None and not _ignored(model, name)]
    if lost:
        raise _mismatch(lost[0], "is a tensor of the checkpoint that the loaded model has no place for")
    order = {name: i for i, name in enumerate(own)}
    found: dict[str, torch.Tensor] = {}
    filled: dict[int, int] = {}  # numbers filled, by identity of the model's tensor
    # of two names of one tensor the one the model registers first stays: the embedding, not the head tied to it
    for name, place in sorted(((n, p) for n, p in places.items() if p), key=lambda item: order[item[1].tensor]):
        whole = own[place.tensor]
        if filled.get(id(whole), 0) < whole.numel():
            found[name] = place.of(whole)
            filled[id(whole)] = filled.get(id(whole), 0) + found[name].numel()
    for name, tensor in own.items():
        if filled.get(id(tensor), 0) != tensor.numel():
            raise _mismatch(name, "is a tensor of the model that the names in the checkpoint do not fill")
    return {name: found[name] for name in sorted(found)}


@dataclass(frozen=True)
class _Place:
    """Where a checkpoint's tensor lies in the model: a whole tensor of its, or one expert's share of a fused one.

    Attributes:
        expert: position in the fused tensor [experts, parts * rows, columns]; None: the whole tensor.
        part, parts: which of the matrices fused per expert (gate, up).
    """

    tensor: str
    expert: int | None = None
    part: int = 0
    parts: int = 1

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        return whole if self.expert is None else whole[self.expert].chunk(self.parts)[self.part]


def _places(model: Any, names: Iterable[str], own: Mapping[str, torch.Tensor]) -> dict[str, _Place | None]:
    """Where each of the checkpoint's tensors goes, as transformers decides on loading; None: nowhere."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    places: dict[str, _Place | None] = {}
    for name in names:
        renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, own)
        if renamed not in own:
            places[name] = None
        elif pattern is None:
            places[name] = _Place(renamed)
        else:
            (converter,) = (c for c in converters if pattern in c.source_patterns)
            places[name] = _fused(name, renamed, pattern, converter)
    return places


def _fused(name: str, tensor: str, pattern: str, converter: Any) -> _Place | None:
    """An expert's place in a fused parameter; None for a conversion that is not a stack of experts."""
    operations = [(type(op).__name__, op.dim) for op in converter.operations if hasattr(op, "dim")]
    stacked = [("MergeModulelist", 0)]
    sources = converter.source_patterns
    number = re.search(re.escape(pattern).replace(r"\*", r"(\d+)"), name)
    if len(operations) != len(converter.operations) or number is None or not number.groups():
        return None
    if operations != (stacked if len(sources) == 1 else [*stacked, ("Concatenate", 1)]):
        return None
    return _Place(tensor, int(number.group(1)), sources.index(pattern), len(sources))


def _ignored(model: Any, name: str) -> bool:
    """Whether transformers drops this name on loading without a word."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    return any(re.search(pattern, name) for pattern in patterns)


def _mismatch(name: str, problem: str) -> InvalidModel:
    return InvalidModel("models.base", name, problem, "use a model whose checkpoint transformers loads name by name")


def class_prefix(base: Path, names: Iterable[str]) -> str:
    """What the model's class puts before the checkpoint's names: `transformer.` for a GPT-2 of the hub; often nothing.

    Nothing, too, for a model that is no causal language model.
    """
    import transformers  # seconds to import

    try:
        config = transformers.AutoConfig.from_pretrained(base, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError):
        return ""
    own = dict(model.state_dict(keep_vars=True))
    found = ((name, place.tensor) for name, place in _places(model, sorted(names), own).items() if place is not None)
    prefixes = {whole.removesuffix(name) for name, whole in found if whole.endswith(name) and whole != name}
    return min(prefixes) if len(prefixes) == 1 else ""


def check_loads(base: Path, names: Iterable[str]) -> None:
    """See whether `load_live` and `live_tensors` will work, without reading any weights.

    Raises:
        InvalidModel: they will not.
    """
    model, _ = load_live(base, "meta")
    live_tensors(model, names)
