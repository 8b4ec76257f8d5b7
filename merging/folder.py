"""A folder that appears whole or not at all: filled beside its place under a hidden name, synced and renamed.

What a killed process left there goes when the next begins to fill a folder of the same name. No torch here.
"""

import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from merging.errors import OutputError


def require_absent(to: Path) -> None:
    """See that nothing lies there yet.

    Raises:
        OutputError: something does.
    """
    if to.exists() or to.is_symlink():
        raise OutputError("to", str(to), "exists", "choose another folder, or remove it first")


@contextmanager
def appearing(to: Path, size: int = 0) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends and vanishes when the block fails.

    Args:
        size: bytes that it will hold, if that is known.

    Raises:
        OutputError: `to` exists or cannot be written; also whatever else is an OSError within the block.
    """
    require_absent(to)
    prefix = f".{to.name}.{_host()}."
    _sweep(to.parent, prefix)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}.", suffix=".part", dir=to.parent))
    except OSError as error:
        raise _unwritable(to, error) from error
    try:
        folder.chmod(0o777 & ~_umask())
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield folder
        for part in (*filter(Path.is_dir, folder.rglob("*")), folder):
            _sync(part)
        os.rename(folder, to)
        _sync(to.parent)
    except OSError as error:
        raise _unwritable(to, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    """This machine's name, as one part of a file name: without dots, the parts cannot be mistaken."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())


def _sweep(parent: Path, prefix: str) -> None:
    """Removes what killed processes left: each is as large as a checkpoint. Other machines' may be alive."""
    leftover = re.compile(re.escape(prefix) + r"(\d{1,9})\.\w+\.part")
    with suppress(OSError):  # a parent that cannot be listed may still be written; making the folder will tell
        for path in parent.iterdir():
            found = leftover.fullmatch(path.name)
            if found and not _runs(int(found[1])):
                shutil.rmtree(path, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as somebody else
    return True


def _unwritable(to: Path, error: OSError) -> OutputError:
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return OutputError("to", str(to), "exists", "choose another folder, or remove it first")
    remedies = {
        errno.ENOENT: "create its parent folder first",
        errno.ENOSPC: "free disk space or choose another disk",
    }
    remedy = remedies.get(error.errno or 0, "choose a folder that you may write to")
    return OutputError("to", str(to), f"cannot be written ({error.strerror})", remedy)


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current


def write_file(path: Path, content: bytes) -> None:
    """Writes a file and makes it durable."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes the folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
