"""Whether a study keeps its experts compressed: where it says so, or where they need more memory than it allows."""

from collections.abc import Mapping
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
        fingerprints: of the models with compressed experts.
    """

    by: Compression
    bytes_: int
    whole_bytes: int
    bits_per_parameter: float
    fingerprints: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As a study's setup keeps it."""
        sizes = {"bytes": self.bytes_, "whole_bytes": self.whole_bytes, "bits_per_parameter": self.bits_per_parameter}
        return {"by": self.by.model_dump(), **sizes, "fingerprints": dict(self.fingerprints)}


def compression(spec: StudySpec, models: ModelSet) -> Compression | None:
    """What packs the study's experts; None: they are kept as they are.

    Raises:
        InvalidStudy: the base alone, or experts that are small already, need more memory than the study allows.
    """
    limit, asked, whole = spec.models.memory, spec.models.compress, models.kept_bytes
    if (limit is None and asked is None) or (limit is not None and whole <= limit):
        return None
    if limit is not None and models.base_bytes > limit:
        problem = f"is less than the base takes ({decimal(models.base_bytes)})"
        raise InvalidStudy("models.memory", decimal(limit), problem, "allow more")
    if not models.packable:
        if limit is None:
            return None
        problem = f"is less than base and experts take ({decimal(whole)}), which are small already"
        raise InvalidStudy("models.memory", decimal(limit), problem, "allow more, or name fewer experts")
    return (asked or Compression(codec=CODEC)).checked("models.compress")


def fitted(spec: StudySpec, models: ModelSet, by: Compression) -> Fitted:
    """How the experts are kept: packs them, unless somebody has.

    Raises:
        InvalidStudy: they need more memory than the study allows even so.
        InvalidModel, OutputError: as `ModelSet.compressed`.
    """
    small, limit = models.compressed(by), spec.models.memory
    if limit is not None and small.kept_bytes > limit:
        sizes = f"{decimal(small.kept_bytes)}, {decimal(models.base_bytes)} of that the base"
        problem = f"is less than base and experts take when {by.codec} packs them: {sizes}"
        remedy = "allow more, name fewer experts, or choose a codec of fewer bits with models.compress"
        raise InvalidStudy("models.memory", decimal(limit), problem, remedy)
    packed = [small.experts[name] for name in models.packable]
    held = sum(entry.end - entry.start for each in packed for entry in map(each.entry, each.names))
    count = sum(prod(each.entry(name).shape) for each in packed for name in each.names)
    return Fitted(by, small.kept_bytes, models.kept_bytes, 8 * held / count, small.fingerprints)
