"""A second live model, of other layers than the one that is loaded: what recipes that stack layers are scored on.

transformers builds it from the config that an export of the recipe would have, just as if it loaded that export, so
whatever a family makes of a layer's number (cache slots, sliding windows, layers without rotary positions) is right.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from evaluation.live import live_tensors, quiet_loading
from merging.errors import InvalidModel, InvalidRecipe

Shape = tuple[int, ...]


def live_of_depth(live: Any, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> tuple[Any, dict[str, Tensor]]:
    """A live model whose weights are still to be written, and its tensors by checkpoint name.

    Args:
        live: the one that is loaded; the other has its class, dtype and device.
        config: the other's config.json.
        shapes: of every tensor of its checkpoint.

    Raises:
        InvalidRecipe: transformers makes no such model of that config and these tensors.
    """
    from transformers import AutoConfig

    with TemporaryDirectory(prefix="mergesearch-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            described = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            with quiet_loading():
                made = _made(live, described, shapes)
            return made, live_tensors(made, shapes)
        except (InvalidModel, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
            raise _unstackable(error) from error
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise  # memory is not the recipe's fault
            raise _unstackable(error) from error


def _made(live: Any, described: Any, shapes: Mapping[str, Shape]) -> Any:
    placed = {} if live.device.type == "cpu" else {"device_map": {"": str(live.device)}}
    state = {name: torch.empty(shape, dtype=live.dtype, device=live.device) for name, shape in shapes.items()}
    made = type(live).from_pretrained(
        None,
        config=described,
        state_dict=state,
        dtype=live.dtype,
        attn_implementation=live.config._attn_implementation,
        **placed,
    )
    made.generation_config = live.generation_config  # of a file beside the weights, which are not in a folder here
    made.config._name_or_path = live.config._name_or_path
    return made.eval().requires_grad_(False)


def _unstackable(error: Exception) -> InvalidRecipe:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    problem = f"give layers of which transformers makes no model of this kind ({reason})"
    return InvalidRecipe("slices", None, problem, "leave out slices for such models")
