"""The source files behind a task's functions: what they call decides scores as much as they do themselves."""

import functools
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

_MARK = "__mergesearch_source__"
_PACKAGES, _PYTHON = (
    tuple(Path(sysconfig.get_path(kind)).resolve() for kind in kinds) for kinds in (("purelib", "platlib"), ("stdlib",))
)


def source_digests(*things: Any) -> list[str]:
    """Digests of the files that hold these functions, classes and modules, and of those that they import.

    What they import of installed packages, and Python itself, is left out. Digests are of contents alone, so the same
    files have the same ones wherever they lie.

    Args:
        things: also mappings and sequences with functions somewhere in them, such as a task's configuration.
    """
    waiting, found = list(_modules(things)), dict[int, str]()
    named = {id(module) for module in waiting}
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if id(module) in found or not file or Path(file).suffix != ".py":
            continue
        if _lies_in(_PACKAGES, file):
            if id(module) not in named:
                continue
        elif _lies_in(_PYTHON, file):
            continue
        found[id(module)] = module_digest(module)
        waiting += _modules(list(vars(module).values()), deep=False)
    return sorted(set(found.values()))


def module_digest(module: ModuleType) -> str:
    """Digest of a module's file as it was when first asked for: a process that lives on runs what it has loaded."""
    found = vars(module).get(_MARK)
    if found is None:
        try:
            source = Path(str(module.__file__)).read_bytes()
        except (AttributeError, OSError):  # built in, or out of an archive
            source = module.__name__.encode()
        found = vars(module)[_MARK] = blake2b(source, digest_size=16).hexdigest()
    return str(found)


def _modules(things: Any, *, deep: bool = True) -> Iterator[ModuleType]:
    """The modules of what lies in these values.

    Args:
        deep: whether to look into containers too.
    """
    waiting, seen = [things], set[int]()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or thing is None or isinstance(thing, bool | int | float | str | bytes):
            continue
        seen.add(id(thing))
        if isinstance(thing, ModuleType):
            yield thing
        elif isinstance(thing, functools.partial):
            waiting += [thing.func, thing.args, thing.keywords]
        elif isinstance(thing, Mapping | list | tuple | set | frozenset):
            if deep or thing is things:
                waiting += [*thing.values()] if isinstance(thing, Mapping) else [*thing]
        else:
            own = thing.__func__ if isinstance(thing, MethodType) else thing
            own = own if isinstance(own, FunctionType | type) else type(own)
            module = sys.modules.get(own.__module__)
            if module is not None:
                yield module


def _lies_in(folders: tuple[Path, ...], file: str) -> bool:
    place = Path(file).resolve()
    return any(place.is_relative_to(folder) for folder in folders)
