"""A user's Python function by its name, `module:function`: where it lies, and loading it."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

from evaluation.sources import module_digest, source_digests
from merging.errors import InvalidStudy


@dataclass(frozen=True)
class Loaded:
    """A function, its module, and a digest of the module's source and that of the user's modules it imports."""

    function: Callable[..., Any]
    module: ModuleType
    digest: str


def module_file(module: str, folder: Path) -> Path | None:
    """The file in a folder that holds a module (`a.b`: `a/b.py`); None: there is none."""
    place = folder.joinpath(*module.split("."))
    return next((f for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()), None)


def load_source(named: str, include: Path | None, key: str) -> Loaded:
    """The function, from a file in `include` if its module is there, else from the import path.

    Args:
        named: `module:function`.
        key: where it stands in the study.

    Raises:
        InvalidStudy: there is no such function, or its module cannot be loaded.
    """
    name, _, attribute = named.partition(":")
    file = None if include is None else module_file(name, include)
    try:
        module = importlib.import_module(name) if file is None else _executed(name, file)
    except (Exception, SystemExit) as error:  # the user's code runs, so anything can come out of it
        require_own(error)
        problem = f"cannot be loaded ({type(error).__name__}: {error})"
        remedy = "mend the module, or put it into evaluation.include_path"
        if file is not None:
            missing = isinstance(error, ModuleNotFoundError)
            remedy = f"mend {file}" + (": it cannot import its neighbours, so let it hold all it needs" * missing)
        raise InvalidStudy(key, named, problem, remedy) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise InvalidStudy(key, named, "is no function", f"define {attribute} in {getattr(module, '__file__', name)}")
    sources = sorted({module_digest(module), *source_digests(module)})
    return Loaded(function, module, blake2b("|".join(sources).encode(), digest_size=16).hexdigest())


def require_own(error: BaseException) -> None:
    """Raise an error again that is no fault of a user's code: Celery's children exit so when a signal ends them."""
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code < 0:
        raise error


def _executed(name: str, file: Path) -> ModuleType:
    """A module made of a file as it is now, not as some compiled copy of it was."""
    source = file.read_bytes()
    module = ModuleType(f"mergesearch_task_{blake2b(str(file).encode() + source, digest_size=8).hexdigest()}_{name}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module
