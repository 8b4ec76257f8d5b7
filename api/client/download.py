"""Downloads an export into a new folder, which appears whole and verified or not at all."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from api.client.problems import ServiceError
from api.client.wire import Wire
from merging.errors import OutputError
from merging.folder import appearing, require_absent

_SILENCE_SECONDS = 30.0


@dataclass(frozen=True)
class RemoteFile:
    """A file of an export, and where it lies there: `url` is a path under `/v1`."""

    name: str
    size: int
    sha256: str
    url: str


Tell = Callable[[RemoteFile, int], object]  # a file, and how many of its bytes are here


def listed(export: Mapping[str, Any]) -> tuple[RemoteFile, ...]:
    """The files of an export.

    Raises:
        ServiceError: it names places outside of its folder.
    """
    files = []
    for file in export["files"]:
        name = str(file["name"])
        path = PurePosixPath(name)
        odd = not path.parts or path.is_absolute() or ".." in path.parts or path.as_posix() != name
        if odd or "\\" in name or "\0" in name:
            raise ServiceError(f"the service lists a file {name!r}, which is not within the export; do not use it")
        url = f"/exports/{export['id']}/files/{quote(name)}"
        files.append(RemoteFile(name, int(file["bytes"]), str(file["sha256"]), url))
    return tuple(files)


def require_place(to: Path) -> None:
    """See that the folder can be made, before anything is asked for.

    Raises:
        OutputError: it is there, or its parent is not.
    """
    require_absent(to)
    if not to.absolute().parent.is_dir():
        raise OutputError("to", str(to), "cannot be written (no such folder)", "create its parent folder first")


def download(wire: Wire, files: Sequence[RemoteFile], to: Path, tell: Tell) -> None:
    """Write the files to the new folder `to`.

    Raises:
        OutputError: it exists or cannot be written.
        MergesearchError: the service refuses, is away too long, or sends what it does not list.
    """
    with appearing(to.absolute(), sum(file.size for file in files)) as folder:
        for file in files:
            place = folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not (_fetch(wire, file, place, tell) or _fetch(wire, file, place, tell)):
                said = f"{file.name} does not have the checksum that the service lists, twice; export the trial again"
                raise ServiceError(said)


def _fetch(wire: Wire, file: RemoteFile, place: Path, tell: Tell) -> bool:
    """Download one file, going on where a connection broke; whether it is what was listed."""
    patience, digest = wire.patience(), sha256()
    with place.open("wb") as out:
        while (have := out.tell()) < file.size:
            try:
                for piece in _pieces(wire, file, have):
                    if piece is None:  # from the beginning
                        out.seek(0)
                        out.truncate()
                        digest = sha256()
                        continue
                    patience.renew()
                    digest.update(piece)
                    out.write(piece)
                    tell(file, out.tell())
            except ServiceError as error:
                if error.status == 416:
                    raise _too_short(file, have) from error
                patience.bear(error)
        out.flush()
        os.fsync(out.fileno())
        return out.tell() == file.size and digest.hexdigest() == file.sha256


def _pieces(wire: Wire, file: RemoteFile, have: int) -> Iterator[bytes | None]:
    """The bytes that follow the first `have`; None first, if all of them come again."""
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{file.sha256}"'}
    count = 0
    with wire.stream(file.url, headers=headers, silence=_SILENCE_SECONDS) as response:
        if have and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
            yield None
            have = 0
        for piece in response.iter_raw():
            count += len(piece)
            yield piece
            if have + count > file.size:
                return
    if not count:
        raise _too_short(file, have)


def _too_short(file: RemoteFile, have: int) -> ServiceError:
    return ServiceError(f"{file.name} ended after {have} of {file.size} bytes; export the trial again")
