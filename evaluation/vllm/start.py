"""Starting vLLM's engine beside a live model, and seeing that both say the same of the same weights."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evaluation.errors import EngineLost
from evaluation.vllm.installed import require_vllm
from merging.errors import InvalidStudy

if TYPE_CHECKING:
    from evaluation.vllm.lm import VllmLM

UTILIZATION = 0.5  # of a GPU's memory is the engine's; the live model, base and experts share the rest
_SEED = 0
_PROMPT = 32  # tokens
_REASON = 500  # most characters shown of vLLM's error
# Medians over a prompt, in nats. An engine whose weights are wrong somewhere is off by far more; in 16 bit two
# implementations differ by some hundredths.
_TOLERANCES = {torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # it would report to its makers
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several workers would be bound to the same cores
}


def start(folder: Path, live: Any, tensors: Mapping[str, torch.Tensor], tokenizer: Any, device: str) -> "VllmLM":
    """An engine that holds the live model's weights.

    It begins with weights that mean nothing, so that one the live model's do not reach is noticed.

    Args:
        folder: config and tokenizer of the candidates.
        live: the live model, on any device; its dtype is the engine's.
        tensors: the live model's by checkpoint name.
        device: torch's name of the device the engine is to use.

    Raises:
        InvalidStudy: vLLM is not installed, does not serve such a model, or says something else of it.
    """
    require_vllm()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # weights are handed over as they lie, in this process
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    lm = _unfilled(folder, live, tensors, tokenizer, device)
    try:
        lm.take()
        off = distance(lm, live, tokenizer)
        if not off <= _TOLERANCES.get(live.dtype, _TOLERANCES[torch.bfloat16]):  # also if it is NaN
            problem = f"gives other log-likelihoods than transformers for the same weights ({off:.3g} nats a token)"
            raise _refused(problem)
    except BaseException as error:
        lm.close()
        if isinstance(error, EngineLost):
            raise _unservable(error.cause) from error
        raise
    return lm


def live_device(folder: Path, device: str) -> str:
    """Where the live model lies beside an engine: with it if it takes no more than a quarter of the memory there."""
    if device == "cpu":
        return device
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return device if size * 4 <= torch.cuda.mem_get_info(device)[1] else "cpu"


@torch.inference_mode()
def distance(lm: "VllmLM", live: Any, tokenizer: Any) -> float:
    """How far engine and live model are apart on a fixed prompt: the median over its tokens, in nats."""
    most = min(len(tokenizer), live.config.get_text_config().vocab_size)
    ids = torch.tensor([7919 * (i + 1) % most for i in range(min(_PROMPT, lm.max_length - 1))])
    logits = live(ids[None].to(live.device)).logits[0, :-1].float().cpu()  # [n - 1, V]
    said = logits.log_softmax(dim=-1).gather(1, ids[1:, None])[:, 0]
    return (torch.tensor(lm.logprobs(ids.tolist())) - said).abs().median().item()


def _unfilled(folder: Path, live: Any, tensors: Mapping[str, torch.Tensor], tokenizer: Any, device: str) -> "VllmLM":
    """An engine whose weights are not yet the live model's."""
    head = _tied_head(live) if device == "cpu" else {}
    try:
        from evaluation.vllm.lm import VllmLM

        settings = _settings(folder, live, tokenizer, device)
        if head:
            settings["hf_overrides"] = {"tie_word_embeddings": False}
        return VllmLM(live, tensors, head, **settings)
    except (torch.OutOfMemoryError, MemoryError):
        raise  # may pass
    except Exception as error:  # of every kind, from an unknown architecture to a broken installation
        raise _unservable(f"{type(error).__name__}: {error}") from error


def _tied_head(live: Any) -> dict[str, torch.Tensor]:
    """The output layer's weights by name, if they are the input layer's.

    On the CPU vLLM multiplies with a packed copy of each layer's weights, and the copy of a tied head stays what it
    was when the embedding is loaded anew. So the head is no longer tied there, and handed over beside the embedding.
    """
    head = live.get_output_embeddings()
    if head is None or head.weight is not live.get_input_embeddings().weight:
        return {}
    (name,) = (name for name, module in live.named_modules() if module is head)
    return {f"{name}.weight": head.weight}


def _settings(folder: Path, live: Any, tokenizer: Any, device: str) -> dict[str, Any]:
    """What lm-eval's class and the engine are told."""
    from lm_eval.models.utils import resolve_max_length  # a second to import

    common = {
        "pretrained": str(folder),
        "dtype": str(live.dtype).removeprefix("torch."),
        "max_length": resolve_max_length(live.config, tokenizer),
        "seed": _SEED,
        "load_format": "dummy",
    }
    if device == "cpu":
        return common | {"enforce_eager": True, "kv_cache_memory_bytes": _cpu_cache()}
    _, _, index = device.partition(":")
    return common | {"gpu_memory_utilization": UTILIZATION, "device_ids": [int(index or 0)]}


def _cpu_cache() -> int:
    """Bytes of keys and values, on the CPU: an eighth of what is free."""
    import psutil

    return max(1 << 28, psutil.virtual_memory().available // 8)


def _unservable(reason: str) -> InvalidStudy:
    return _refused(f"cannot serve these models ({' '.join(reason.split())[:_REASON]})")


def _refused(problem: str) -> InvalidStudy:
    return InvalidStudy("evaluation.backend", "vllm", problem, "use transformers, the default")
