"""Texts of the user's that models are compared on: a file of them, and what a record says of it."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from evaluation.evaluators.documents import read_texts
from evaluation.split import canonical


@dataclass(frozen=True)
class GivenTexts:
    """The texts of a file.

    Attributes:
        file: as it was named.
        texts: in its order, at least one.
    """

    file: Path
    texts: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> "GivenTexts":
        """The texts of a `.txt` or `.jsonl` file, cut as a task of kind `text` does it.

        Raises:
            InvalidStudy: the file cannot be read, or holds no texts.
        """
        return cls(file, tuple(row["text"] for row in read_texts(str(file), Path(), "--texts")))

    @property
    def said(self) -> dict[str, Any]:
        """File, number of texts and their digest, for a record."""
        digest = blake2b(canonical(list(self.texts)), digest_size=16).hexdigest()
        return {"file": str(self.file), "count": len(self.texts), "digest": digest}
