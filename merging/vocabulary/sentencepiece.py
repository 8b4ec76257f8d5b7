"""The pieces of a SentencePiece model file, read without its library: a list of strings, ids by position.

The file is a protobuf message whose field 1 repeats a piece, itself a message whose field 1 is the string
(sentencepiece_model.proto). Everything else in the file is skipped.
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def pieces(content: bytes) -> list[str]:
    """The piece strings, in the order of their ids.

    Raises:
        ValueError: not a SentencePiece model.
    """
    found = []
    for field, value in _fields(content):
        if field == 1:
            found += [text.decode() for number, text in _fields(value) if number == 1][:1]
    if not found:
        raise ValueError("no pieces in it")
    return found


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of every length-delimited field of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind not in (_FIXED64, _BYTES, _FIXED32):
            raise ValueError(f"protobuf wire type {kind}")
        size, at = _varint(message, at) if kind == _BYTES else (8 if kind == _FIXED64 else 4, at)
        if at + size > len(message):
            raise ValueError("truncated")
        if kind == _BYTES:
            yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("truncated")
