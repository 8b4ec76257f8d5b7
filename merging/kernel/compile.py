"""Compiles the kernel with the machine's own compiler, once: the library is kept in the user's cache folder.

Its name is a digest of all that decides its instructions (source, flags, compiler, processor), and it is written
under another name and renamed, so several processes may begin at once and none loads half a file. Loading a library
is running it: a folder that somebody else owns or may write to is not used.
"""

import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from hashlib import blake2b
from pathlib import Path

_SOURCE = Path(__file__).parent / "source"
# No fused multiply and add, and no -ffast-math: results are rounded as program.py says, and NaN survives. What is given
# up is errno and the processor's exception flags, which nobody reads and which keep loops from becoming vectors.
_FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_NATIVE = ("-march=native",)
# Seconds: it takes about seven.
_TIMEOUT = 120.0


class NoKernel(Exception):
    """The kernel cannot be compiled or loaded here. Its message is the reason; torch computes the same."""


def compiled() -> Path:
    """The path of the compiled library, which is made if it is not there yet.

    Raises:
        NoKernel: no compiler, no folder to write to, or the compiler fails.
    """
    compiler = _compiler()
    try:
        library = _folder() / f"{_digest(compiler)}.so"
        if not library.exists():
            _compile(compiler, library)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # the second: a user without a home
        raise NoKernel(str(error)) from error
    return library


def _compiler() -> list[str]:
    """The command: $CXX, else the first that is there."""
    for command in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    raise NoKernel("there is no C++ compiler ($CXX, c++, g++, clang++)")


def _folder() -> Path:
    if os.name != "posix":
        raise NoKernel("the compiler's flags are those of POSIX systems")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "mergesearch" / "kernels"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoKernel(f"{folder} belongs to somebody else, or others may write to it")
    return folder


def _digest(compiler: list[str]) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=_TIMEOUT).stdout
    whole = blake2b(digest_size=16)
    for part in (*_FLAGS, *_NATIVE, *compiler, _processor()):
        whole.update(f"{part}\0".encode())
    whole.update(version)
    for path in sorted(_SOURCE.iterdir()):
        whole.update(path.read_bytes())
    return whole.hexdigest()


def _processor() -> str:
    """What `-march=native` depends on: homes are shared between machines."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.machine() + platform.processor()
    named = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU part", "isa")
    return "\n".join(line for line in first.splitlines() if line.startswith(named))


def _compile(compiler: list[str], library: Path) -> None:
    sources = [str(path) for path in sorted(_SOURCE.glob("*.cpp"))]
    handle, name = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        for native in (_NATIVE, ()):  # some compilers do not know the processor they run on
            command = [*compiler, *_FLAGS, *native, *sources, "-o", name]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
            if done.returncode == 0:
                os.replace(name, library)
                return
        raise NoKernel(f"{compiler[0]} failed: {done.stderr.strip()[-500:]}")
    finally:
        Path(name).unlink(missing_ok=True)
