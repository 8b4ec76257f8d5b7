"""`mergesearch compress`, and the forms other than a full checkpoint that a merge is exported in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.filesize import decimal

from api.forms import FORMS, FULL, LORA, Form, check_form, parsed
from evaluation.live import class_prefix
from merging.deltaexport import AdapterSettings, export_adapter, export_compressed
from merging.errors import InvalidStudy
from merging.export import export
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe


def compress_expert(expert: Path, base: Path, to: Path, codec: str, settings: Sequence[str]) -> str:
    """Write an expert in a small form, and say how small it is.

    Args:
        settings: `name=value` each.

    Raises:
        InvalidInput: a folder, the codec or a setting cannot work; nothing is left behind.
    """
    models = ModelSet.open(base, {"expert": expert}, base_key="--base", expert_keys=["EXPERT"])
    whole = GroupMerge(layers=(0, models.layout.layer_count), method="linear", weights={"expert": 1.0})
    recipe = Recipe(
        schema_=SCHEMA, base=str(base.resolve()), experts={"expert": str(expert.resolve())}, groups=(whole,)
    )
    if codec == FULL:
        remedy = f"use one of {', '.join(FORMS[1:])}"
        raise InvalidStudy("--codec", codec, "is no smaller form", remedy)
    return write_as(codec, recipe, models, to, parsed(settings))


def write_as(
    form: str,
    recipe: Recipe,
    models: ModelSet,
    to: Path,
    settings: Mapping[str, float],
    extra: Mapping[str, bytes] | None = None,
) -> str:
    """Write a merge in one of `api.forms.FORMS`, and say what was written.

    Raises:
        InvalidInput: the form or a setting is unknown, or the merge cannot be written so; nothing is left behind.
    """
    check_form(Form(form, settings))
    to = to.absolute()
    if form == FULL:
        export(recipe, models, to, extra)
        return f"exported to {to}"
    if form == LORA:
        size = _lora(settings)
        size = replace(size, prefix=class_prefix(models.base.path, models.base.names))
        found = export_adapter(recipe, models, to, size, extra)
        ranks = [row.rank for row in found.kept.values() if row.rank]
        most = f"ranks up to {max(ranks)}" if ranks else "no factors"
        return f"LoRA in {to}: {most}, {len(found.whole)} tensors whole, {found.share:.4%} of the delta's energy"
    record = export_compressed(recipe, models, to, (form, dict(settings)), extra)
    full = sum(entry.end - entry.start for entry in map(models.base.entry, models.base.names))
    return (
        f"{form} in {to}: {record.bits_per_parameter:.3g} bits a parameter, {decimal(record.bytes_)} "
        f"(the base: {decimal(full)})"
    )


def _lora(settings: Mapping[str, float]) -> AdapterSettings:
    rank = settings.get("rank")
    whole = None if rank is None else int(rank)
    return AdapterSettings(settings.get("energy", AdapterSettings.energy), whole)
