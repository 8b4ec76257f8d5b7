"""How often Python looks for garbage in processes that load the large libraries."""

import gc


def collect_rarely() -> None:
    """Look for garbage less often. To be called before the libraries are loaded.

    They leave half a million objects that live for ever, and to go through them as they come takes a sixth of a start.
    """
    gc.set_threshold(10_000, 10, 10)
