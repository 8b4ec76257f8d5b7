"""Experts kept compressed: each is packed once, into a folder beside it, and opened there by whoever wants it so.

The folder appears whole or not at all, two processes that want the same one wait for each other, and it may be deleted
at any time: it is then packed again.
"""

import json
from hashlib import blake2b
from pathlib import Path

from merging.artefacts.place import locked, places, writable
from merging.checkpoint import Checkpoint
from merging.codecs.catalog import codec
from merging.codecs.folder import About, write
from merging.codecs.packing import pack_expert
from merging.codecs.record import RECORD
from merging.compression import Compression
from merging.expert import Expert
from merging.expertfolder import open_expert
from merging.fingerprint import FingerprintCache

VERSION = 1
"""Raised whenever packing the same expert would give other bytes."""


def compressed(
    base: Checkpoint,
    expert: Expert,
    by: Compression,
    whole: frozenset[str] = frozenset(),
    cache: FingerprintCache | None = None,
) -> Expert:
    """The expert as the codec keeps it; what is no full checkpoint is small already and stays as it is.

    Args:
        base: what it was tuned from.
        whole: tensors that are not packed: their rows are not those of the base's.
        cache: remembers content fingerprints.

    Raises:
        InvalidModel: a model holds NaN or infinity, or the packed expert was damaged.
        OutputError: there is no room for it.
    """
    if not isinstance(expert, Checkpoint):
        return expert
    chosen = by.checked("compress")
    found = places(expert.path, f"packed-{_digest(base, expert, chosen, whole, cache)}")
    folder = next((place for place in found if (place / RECORD).exists()), None)
    opened = open_expert(folder or _pack(writable(found), base, expert, chosen, whole, cache), expert.key, base, cache)
    opened.path, opened.config = expert.path, expert.config  # the tokenizer and whatever else is beside the weights
    return opened


def _pack(
    place: Path,
    base: Checkpoint,
    expert: Checkpoint,
    by: Compression,
    whole: frozenset[str],
    cache: FingerprintCache | None,
) -> Path:
    with locked(place):
        if not (place / RECORD).exists():  # nobody has made it while this waited
            about = About(by.codec, codec(by.codec).checked(by.settings), expert)
            write(place, base, pack_expert(base, expert, by.codec, by.settings, whole), about, cache)
    return place


def _digest(
    base: Checkpoint, expert: Checkpoint, by: Compression, whole: frozenset[str], cache: FingerprintCache | None
) -> str:
    models = base.fingerprint(cache), expert.fingerprint(cache)
    content = [VERSION, *models, by.codec, by.settings, sorted(whole)]
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
