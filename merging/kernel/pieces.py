"""Cuts a pass over a large tensor into pieces and runs them on as many threads as torch uses.

Compiled code runs without the interpreter's lock, so plain threads are enough. No result depends on the pieces.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

# Elements below which a piece is not worth handing over, and pieces per thread: more than one evens the threads' loads.
_LEAST, _PER_THREAD = 1 << 17, 4

_Result = TypeVar("_Result")
_lock = Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def in_pieces(
    size: int, work: Callable[[int, int], _Result], multiple: int = 1, per_thread: int = _PER_THREAD
) -> list[_Result]:
    """The results of work(first, last) for pieces that make up 0 to `size`, in order.

    Args:
        multiple: pieces begin at multiples of this.
        per_thread: how many pieces each thread gets at most.
    """
    threads = torch.get_num_threads()
    count = min(threads * per_thread, size // _LEAST) if threads > 1 else 1
    if count <= 1:
        return [work(0, size)] if size else []
    step = -(-size // (count * multiple)) * multiple
    firsts = range(0, size, step)
    return list(_pool(threads).map(work, firsts, [min(first + step, size) for first in firsts]))


def _pool(threads: int) -> ThreadPoolExecutor:
    """This process' pool of so many threads: a forked process has lost its parent's."""
    key = os.getpid(), threads
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="merge")
        return _pools[key]
