"""Whether a study keeps its experts compressed, decided from its file and the models' sizes."""

from pathlib import Path
from typing import Any

import pytest

from api.fitting import compression, fitted
from merging.errors import InvalidStudy
from merging.models import ModelSet
from search.study import parse_study
from tests.merging.adapters.real import EVERY, adapted
from tests.merging.factories import fine_tuned, open_models, tiny_llama
from tests.search.factories import study_content


def spec(**models: Any) -> Any:
    return parse_study(study_content(models=models))


def test_memory_decides_and_without_it_compress_does(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    size = models.kept_bytes
    assert compression(spec(), models) is None
    assert compression(spec(memory=size), models) is None
    assert compression(spec(memory=size, compress="sparse"), models) is None
    needed, asked = compression(spec(memory=size - 1), models), compression(spec(compress="sparse"), models)
    assert needed is not None and needed.codec == "bitdelta" and asked is not None and asked.codec == "sparse"
    assert not list(tmp_path.rglob("packed-*")), "deciding packs nothing"


def test_what_cannot_fit_is_refused_before_anything_is_packed(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    with pytest.raises(InvalidStudy, match=r"models\.memory: '1\.0 kB' is less than the base takes"):
        compression(spec(memory=1000), models)
    assert not list(tmp_path.rglob("packed-*"))


def test_what_does_not_fit_packed_is_refused_with_the_sizes(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    tight = spec(memory=models.base_bytes + 1)
    by = compression(tight, models)
    assert by is not None
    with pytest.raises(InvalidStudy, match=r"models\.memory.*bitdelta packs them.*of that the base; allow more"):
        fitted(tight, models, by)


def test_experts_that_are_small_already_are_not_packed(tmp_path: Path) -> None:
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    adapted(base, tmp_path / "lora", target_modules=EVERY, seed=1)
    fine_tuned(base, 1).save_pretrained(tmp_path / "full")
    small = ModelSet.open(tmp_path / "base", {"lora": tmp_path / "lora"})
    assert compression(spec(compress="bitdelta"), small) is None
    with pytest.raises(InvalidStudy, match=r"models\.memory.*small already"):
        compression(spec(memory=small.kept_bytes - 1), small)
    mixed = ModelSet.open(tmp_path / "base", {"lora": tmp_path / "lora", "full": tmp_path / "full"})
    by = compression(spec(compress="bitdelta"), mixed)
    assert by is not None
    found = fitted(spec(compress="bitdelta"), mixed, by)
    alone = ModelSet.open(tmp_path / "base", {"full": tmp_path / "full"})
    assert found.bits_per_parameter == fitted(spec(compress="bitdelta"), alone, by).bits_per_parameter < 8
