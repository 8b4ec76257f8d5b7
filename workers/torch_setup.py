"""How torch and its companions are loaded in a worker process: few threads, none of them spinning, no chatter."""

import functools
import os
import threading

from workers.garbage import collect_rarely


@functools.cache
def prepare_torch(threads: int) -> None:
    """Load torch with that many CPU threads, the first time. To be called before anything else loads it."""
    collect_rarely()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait starve the other workers
    import torch
    from tqdm import tqdm

    from evaluation.quiet import quiet_libraries

    torch.set_num_threads(threads)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore that a killed worker leaves behind
    quiet_libraries()
