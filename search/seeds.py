"""Seeds derived by hashing, so that every random draw depends on what it is for and on nothing else."""

from hashlib import blake2b


def derive(*parts: object) -> int:
    """A seed in [0, 2^32) from anything that can be written."""
    text = "|".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "little")
