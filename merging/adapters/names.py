"""Which tensor of the base each tensor of an adapter belongs to, by its name.

peft names modules as the model's class does, a checkpoint may call them otherwise by a prefix (`transformer.h.0.` and
`h.0.`), and a tied head has no tensor at all. Checks no shapes but to find a tied head; reads no numbers.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from merging.checkpoint import Checkpoint, tie_flag
from merging.roles import role

_OUTER = re.compile(r"^((base_model\.model|base_model|module|_orig_mod|_fsdp_wrapped_module)\.)+")
# A name of the adapter's own (`default`) stands before `weight` in what was not saved by save_pretrained().
_FACTOR = re.compile(
    r"^(?P<module>.+)\.(?P<kind>lora_(A|B|embedding_A|embedding_B|magnitude_vector))"
    r"(\.(?!bias$)(?P<adapter>[^.]+))??(\.weight)?$"
)
_OTHER_FACTOR = re.compile(r"(^|\.)(lora_|trainable_tokens|token_adapter\.)")
_COPY = re.compile(r"\.(base_layer|original_module)\.(?=weight$)")
_SAVED = re.compile(r"\.modules_to_save\.(default\.)?")
_NUMBERED = re.compile(r"(^|\.)\d+\.")
_HEADED = re.compile(r"(CausalLM|LMHeadModel|MaskedLM)$")


class Stored(NamedTuple):
    """What one stored tensor is.

    Attributes:
        module: the adapted module as the model's class names it; for what is stored whole the tensor's own name.
        kind: `lora_A` …; `whole` for a tensor in place of the base's, `copy` for one of the base's own.
    """

    module: str
    kind: str

    @property
    def tensor(self) -> str:
        """The tensor's name in the model's class."""
        return self.module if self.kind in ("whole", "copy") else f"{self.module}.weight"


def parse(name: str) -> Stored | None:
    """What a stored tensor is by its name; None for the tensor of a variant that is not known."""
    inner = _OUTER.sub("", name)
    factor = _FACTOR.match(inner)
    if factor:
        return Stored(factor["module"], factor["kind"])
    if _OTHER_FACTOR.search(inner):
        return None
    if _COPY.search(inner):
        return Stored(_COPY.sub(".", inner), "copy")
    return Stored(_SAVED.sub(".", inner).replace(".base_layer.", "."), "whole")


def places(wanted: Mapping[str, Sequence[int]], base: Checkpoint) -> dict[str, str]:
    """The base's tensor for each name; what has none is left out.

    Args:
        wanted: names as the model's class has them, and shapes as [out, in] for tensors of two dimensions.
        base: the checkpoint that the adapter is for.
    """
    known = frozenset(base.names)
    found = {name: base.tied.get(name, name) for name in sorted(wanted) if name in known or name in base.tied}
    rest = [name for name in sorted(wanted) if name not in found]
    tables = {name for name in rest if role(name, wanted[name], base.config) == "embedding"}
    shared = _renaming([name for name in rest if name not in tables], known)
    for name in rest:
        renaming = shared or _renaming([name], known)
        renamed = renaming and name.startswith(renaming[0]) and renaming[1] + name.removeprefix(renaming[0])
        if renamed and renamed in known:
            found[name] = renamed
        elif name in tables and (twin := _twin(tuple(wanted[name]), base)):
            found[name] = twin
    return found


def _renaming(names: Sequence[str], known: Collection[str]) -> tuple[str, str] | None:
    """The prefix to take from all of the names and the one to put before them, so that all are known.

    As much of a name as can be stays; no prefix has a number in it, which would make one layer of another. None if
    nothing fits, or two prefixes fit alike.
    """
    if not names:
        return None
    parts = names[0].split(".")
    for cut in range(len(parts) - 1):
        tail = ".".join(parts[cut:])
        old = names[0].removesuffix(tail)
        if _NUMBERED.search(old):
            return None
        new = sorted({name.removesuffix(tail) for name in known if name == tail or name.endswith(f".{tail}")})
        fitting = [
            prefix
            for prefix in new
            if not _NUMBERED.search(prefix) and all(_renamed(name, old, prefix) in known for name in names)
        ]
        if fitting:
            return (old, fitting[0]) if len(fitting) == 1 else None
    return None


def _renamed(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else ""


def _twin(shape: tuple[int, ...], base: Checkpoint) -> str | None:
    """The embedding that a head which the base does not store is tied to."""
    if tie_flag(base.config) is False:
        return None
    alike = [name for name in base.names if base.entry(name).shape == shape and _is_table(name, base)]
    return min(alike, key=lambda name: (name.count("."), name), default=None)


def shared_tables(base: Checkpoint) -> frozenset[str]:
    """The embeddings that serve as the base's head, too: what changes one of the two changes both."""
    stored = {original for original in base.tied.values() if _is_table(original, base)}
    if tie_flag(base.config) is False:
        return frozenset(stored)
    kinds: Iterable[Any] = base.config.get("architectures") or ()
    if tie_flag(base.config) or any(_HEADED.search(str(kind)) for kind in kinds):
        rows = _vocabulary(base.config)
        tables = [name for name in base.names if _is_table(name, base) and base.entry(name).shape[0] == rows]
        stored |= set(tables) if len(tables) == 1 else set()
    return frozenset(stored)


def _is_table(name: str, base: Checkpoint) -> bool:
    return role(name, base.entry(name).shape, base.config) == "embedding"


def _vocabulary(config: Mapping[str, Any]) -> Any:
    text = config.get("text_config")
    return config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
