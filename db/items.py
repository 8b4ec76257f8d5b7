"""Per-document results as bytes: packed bits where all are right-or-wrong, doubles where all are numbers.

Anything else (tuples, strings) is kept as compressed JSON. Decoding gives back exactly what was encoded.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

_BITS, _DOUBLES, _JSON = b"b", b"d", b"j"


def encode(items: Sequence[Any]) -> bytes:
    """The items as bytes: one kind byte, then the payload."""
    if items and all(type(x) is float and x in (0.0, 1.0) for x in items):
        bits = sum(1 << i for i, x in enumerate(items) if x)
        return _BITS + struct.pack("<I", len(items)) + bits.to_bytes((len(items) + 7) // 8, "little")
    if items and all(type(x) is float for x in items):
        return _DOUBLES + struct.pack(f"<{len(items)}d", *items)
    return _JSON + zlib.compress(json.dumps(list(items)).encode())


def decode(content: bytes) -> tuple[Any, ...]:
    """What `encode` was given."""
    kind, payload = content[:1], content[1:]
    if kind == _BITS:
        (count,) = struct.unpack_from("<I", payload)
        bits = int.from_bytes(payload[4:], "little")
        return tuple(float(bits >> i & 1) for i in range(count))
    if kind == _DOUBLES:
        return struct.unpack(f"<{len(payload) // 8}d", payload)
    return tuple(json.loads(zlib.decompress(payload)))
