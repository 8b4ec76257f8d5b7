"""Finds artefacts and takes new ones, in the places of `merging.artefacts.place`.

An artefact appears whole or not at all; two processes that want the same one wait for each other. All of it may be
deleted at any time, and is then measured again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from merging.artefacts.place import lock_of, locked, places, writable
from merging.artefacts.request import OF_RECIPE, Request
from merging.errors import InvalidModel, InvalidRecipe
from merging.folder import appearing, write_file
from merging.shard import Shard

TENSORS, MANIFEST = "artefact.safetensors", "artefact.json"
MOST_OF_RECIPES = 4
"""Artefacts that belong to one recipe each are measured again when they are wanted again: so many are kept."""


class MissingArtefact(InvalidRecipe):
    """A recipe reads what was never measured here."""


class Artefact:
    """One artefact on the disk; tensors are views of the mapped file.

    Attributes:
        figures: numbers of the whole, by name, and how it was measured.

    Raises:
        InvalidModel: the files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.figures: Mapping[str, Any] = json.loads((folder / MANIFEST).read_bytes())["figures"]
        except (OSError, ValueError, KeyError) as error:
            remedy = "delete the folder; it is measured again"
            raise InvalidModel("artefact", str(folder), f"is damaged ({error})", remedy) from error
        self._shard = Shard(folder / TENSORS, "artefact")

    def tensor(self, name: str) -> Tensor | None:
        """The tensor of that name; None if the artefact does not cover it. Do not write to it."""
        return self._shard.tensor(name) if name in self._shard.entries else None


class Growing:
    """An artefact in the making, in memory: what is being measured hangs on what was merged from its beginning."""

    figures: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Takes what was measured."""
        self._tensors[name] = tensor

    def forget(self) -> None:
        """Lets go of everything: it was used."""
        self._tensors.clear()

    def tensor(self, name: str) -> Tensor | None:
        """As `Artefact.tensor`."""
        return self._tensors.get(name)


class Shelf:
    """Finds artefacts and takes new ones.

    Args:
        models: the folder of each expert by name, and of the base under the empty name.
    """

    def __init__(self, models: Mapping[str, Path]) -> None:
        self._models = models
        self._open: dict[str, Artefact | Growing] = {}
        self._latest: dict[str, str] = {}  # of each kind that belongs to single recipes, the one that is open

    def find(self, request: Request) -> Artefact | Growing | None:
        """The artefact, if it was ever finished."""
        digest = request.digest
        if digest not in self._open:
            place = next((p for p in self._places(request) if (p / MANIFEST).exists()), None)
            if place is None:
                return None
            self._open[digest] = Artefact(place)
            if request.kind in OF_RECIPE:
                self._used(request, place)
        return self._open[digest]

    def _used(self, request: Request, place: Path) -> None:
        """The last used are kept, and one is open: what is removed frees the disk once nobody maps it."""
        with suppress(OSError):
            os.utime(place / MANIFEST)
        before, self._latest[request.kind] = self._latest.get(request.kind), request.digest
        if before is not None and before != request.digest:
            self._open.pop(before, None)

    def require(self, request: Request) -> Artefact | Growing:
        """The artefact.

        Raises:
            MissingArtefact: it was not measured here.
        """
        found = self.find(request)
        if found is None:
            of = f"expert {request.expert}" if request.expert else "the models"
            problem = f"has documents on which the {request.kind} of {of} was not measured here"
            remedy = "run `mergesearch measure` on the study that the recipe is of"
            if request.kind in OF_RECIPE:  # of this recipe alone, which the study need not begin with
                remedy = "export its trial from the study: that measures it again"
            raise MissingArtefact("suite", request.suite, problem, remedy)
        return found

    def share(self, measured: Request, wanted: Request) -> None:
        """What was measured for one recipe serves another, which is that but for what its result is stored in.

        Raises:
            MissingArtefact: it was not measured here.
        """
        self._open[wanted.digest] = self.require(measured)

    @contextmanager
    def lending(self, request: Request, growing: Growing) -> Iterator[None]:
        """For as long as it is in the making, the artefact is what there is of it."""
        self._open[request.digest] = growing
        try:
            yield
        finally:
            del self._open[request.digest]

    @contextmanager
    def making(self, request: Request, waiting: Callable[[], None] | None = None) -> Iterator[Path | None]:
        """A folder to fill with `TENSORS`; None if another process finished it meanwhile. `finish` it within.

        Args:
            waiting: as of `merging.artefacts.place.locked`.

        Raises:
            OutputError: nothing can be written anywhere.
        """
        place = writable(self._places(request))
        with locked(place, waiting):
            if self.find(request) is not None:
                yield None
                return
            with appearing(place) as folder:
                yield folder
            if request.kind in OF_RECIPE:
                _thin(place)

    def _places(self, request: Request) -> list[Path]:
        return places(self._models[request.expert], f"{request.kind.replace(' ', '-')}-{request.digest}")


def finish(folder: Path, request: Request, figures: Mapping[str, Any]) -> None:
    """Writes the manifest: the last of an artefact's files."""
    content = {"schema": "mergesearch/artefact/v1", "request": asdict(request), "figures": dict(figures)}
    write_file(folder / MANIFEST, json.dumps(content, indent=2).encode() + b"\n")


def _thin(place: Path) -> None:
    """Removes all but the latest of what belongs to single recipes: a search makes one for every trial."""
    kind = place.name.rpartition("-")[0]
    found = sorted(place.parent.glob(f"{kind}-*/{MANIFEST}"), key=lambda manifest: manifest.stat().st_mtime_ns)
    for manifest in found[:-MOST_OF_RECIPES]:
        manifest.unlink(missing_ok=True)
        shutil.rmtree(manifest.parent, ignore_errors=True)
        lock_of(manifest.parent).unlink(missing_ok=True)
