"""Whether a study keeps its experts compressed: where it says so, or where they need more memory than it allows."""

from dataclasses import dataclass
from math import prod
from typing import Any

from rich.filesize import decimal

from merging.compression import Compression
from merging.errors import InvalidStudy
from merging.models import ModelSet
from search.study import StudySpec

CODEC = "bitdelta"
"""What packs experts where a study only names its memory."""


@dataclass(frozen=True)
class Fitted:
    """How a study's experts are kept.

    Attributes:
        bytes_, whole_bytes: of base and experts, compressed and as they are.
        bits_per_parameter: of the compressed experts.
    """

    by: Compression
    bytes_: int
    whole_bytes: int
    bits_per_parameter: float

    @property
    def said(self) -> str:
        """How they are kept, in words."""
        sizes = f"{decimal(self.bytes_)} instead of {decimal(self.whole_bytes)}"
        bits = f"{self.bits_per_parameter:.3g} bits a parameter"
        return f"experts are kept compressed by {self.by.codec}: {bits}, with the base {sizes}"

    def to_json(self) -> dict[str, Any]:
        """As a study's setup keeps it."""
        sizes = {"bytes": self.bytes_, "whole_bytes": self.whole_bytes, "bits_per_parameter": self.bits_per_parameter}
        return {"by": self.by.model_dump(), **sizes}


def compression(spec: StudySpec, models: ModelSet) -> Fitted | None:
    """How the experts are compressed; None: they are kept as they are. Packs them, unless somebody has.

    Raises:
        InvalidStudy: they need more memory than the study allows even so.
        InvalidModel, OutputError: as `ModelSet.compressed`.
    """
    limit, asked, whole = spec.models.memory, spec.models.compress, models.kept_bytes
    if (limit is None and asked is None) or (limit is not None and whole <= limit):
        return None
    by = (asked or Compression(codec=CODEC)).checked("models.compress")
    kept = models.compressed(by).kept_bytes
    if limit is not None and kept > limit:
        base = models.base_bytes
        remedy = "allow more, name fewer experts, or choose a codec of fewer bits with models.compress"
        sizes = f"{decimal(kept)}, {decimal(base)} of that the base"
        problem = f"is less than base and experts take when {by.codec} packs them: {sizes}"
        raise InvalidStudy("models.memory", decimal(limit), problem, "allow more" if base > limit else remedy)
    count = sum(prod(models.shape(name)) for name in models.base.names) * len(models.names)
    return Fitted(by, kept, whole, 8 * (kept - models.base_bytes) / count)
