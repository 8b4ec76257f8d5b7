"""Experts kept compressed: each is packed once, into a folder beside it, and opened there by whoever wants it so.

The folder appears whole or not at all, two processes that want the same one wait for each other, and it may be deleted
at any time: it is then packed again, as is one that was damaged.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from merging.artefacts.place import locked, places, writable
from merging.checkpoint import Checkpoint
from merging.codecs.folder import About, write
from merging.codecs.packing import Item, pack_expert
from merging.codecs.record import RECORD
from merging.compression import Compression
from merging.errors import InvalidModel
from merging.expert import Expert
from merging.expertfolder import open_expert
from merging.fingerprint import FingerprintCache

log = logging.getLogger(__name__)
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
        InvalidModel: a model holds NaN or infinity.
        OutputError: there is no room for it.
    """
    if not isinstance(expert, Checkpoint):
        return expert
    chosen = by.checked("compress")
    found = places(expert.path, f"packed-{_digest(base, expert, chosen, whole, cache)}")
    there = (opened for place in found if (opened := _opened(place, base, expert, cache)) is not None)
    if (opened := next(there, None)) is None:
        packed = pack_expert(base, expert, chosen.codec, chosen.settings, whole)
        opened = _packed(writable(found), base, expert, packed, About(chosen.codec, chosen.settings, expert), cache)
    opened.path, opened.config = expert.path, expert.config  # the tokenizer and whatever else is beside the weights
    return opened


def _opened(folder: Path, base: Checkpoint, expert: Expert, cache: FingerprintCache | None) -> Expert | None:
    """The packed expert; None if it is not there, or was damaged."""
    if not (folder / RECORD).exists():
        return None
    try:
        return open_expert(folder, expert.key, base, cache)
    except InvalidModel as error:
        log.warning("packed again: %s", error, extra={"action": "packing.again"})
        return None


def _packed(
    place: Path,
    base: Checkpoint,
    expert: Expert,
    packed: Iterator[Item],
    about: About,
    cache: FingerprintCache | None,
) -> Expert:
    with locked(place):
        if (opened := _opened(place, base, expert, cache)) is not None:
            return opened  # somebody made it while this waited
        shutil.rmtree(place, ignore_errors=True)
        write(place, base, packed, about, cache)
        return open_expert(place, expert.key, base, cache)


def _digest(
    base: Checkpoint, expert: Checkpoint, by: Compression, whole: frozenset[str], cache: FingerprintCache | None
) -> str:
    models = base.fingerprint(cache), expert.fingerprint(cache)
    content = [VERSION, *models, by.codec, by.settings, sorted(whole)]
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
