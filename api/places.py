"""Whether a folder could be made and written, found out without leaving anything behind."""

import tempfile
from pathlib import Path

from merging.errors import OutputError


def require_writable(key: str, path: Path, remedy: str) -> None:
    """See that `path`, or the nearest folder above it that exists, takes new files.

    Raises:
        OutputError: it does not.
    """
    nearest = path.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise OutputError(key, str(path), f"cannot be written ({error.strerror})", remedy) from error
