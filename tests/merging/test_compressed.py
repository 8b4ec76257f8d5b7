"""Experts that a model set keeps compressed: packed once, found again, and merged as a delta folder would be."""

import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from merging.artefacts.place import VARIABLE
from merging.catalog import CATALOG
from merging.codecs.folder import PAYLOAD, About, write
from merging.codecs.packing import pack_expert
from merging.codecs.record import RECORD
from merging.compression import Compression
from merging.engine import Engine
from merging.errors import Conflict, InvalidRecipe, InvalidStudy
from merging.export import export
from merging.models import ModelSet
from merging.resident import ResidentModel
from tests.merging.adapters.real import EVERY, adapted
from tests.merging.factories import a_recipe, fine_tuned, open_models, takes, tiny_llama

BITS = Compression(codec="bitdelta")


def packed_folders(root: Path) -> list[Path]:
    return sorted(place.parent for place in root.glob(f"*/.mergesearch/*/{PAYLOAD}"))


def weights(models: ModelSet, recipe_of: ModelSet, compress: Compression | None) -> dict[str, torch.Tensor]:
    """Every tensor of one merge."""
    engine = Engine(models)
    recipe = a_recipe(recipe_of, compress=compress)
    found = {}
    for name, plan in engine.plans(recipe).items():
        found[name] = torch.empty(models.shape(name))
        engine.merge(plan, found[name])
    return found


def test_a_merge_of_compressed_experts_is_that_of_their_delta_folders(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    small = models.compressed(BITS)
    by_hand = {}
    for name, expert in models.experts.items():
        by_hand[name] = tmp_path / "deltas" / name
        by_hand[name].parent.mkdir(exist_ok=True)
        about = About("bitdelta", {"rows": 0}, expert)  # type: ignore[arg-type]
        write(by_hand[name], models.base, pack_expert(models.base, expert, "bitdelta", {}), about)
    folders = ModelSet.open(models.base.path, by_hand)
    ours, theirs = weights(small, models, BITS), weights(folders, models, None)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    plain = weights(models, models, None)
    assert any(not torch.equal(plain[name], theirs[name]) for name in theirs), "compression loses something"


def test_sizes_are_those_of_what_is_kept(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    small = models.compressed(BITS)
    assert models.kept_bytes == models.base_bytes * (1 + len(models.names))
    on_disk = sum((folder / PAYLOAD).stat().st_size for folder in packed_folders(tmp_path))
    assert small.base_bytes == models.base_bytes
    packed = small.kept_bytes - small.base_bytes
    assert 0 < packed <= on_disk and packed < (models.kept_bytes - models.base_bytes) / 6  # norms are kept whole


def test_experts_are_packed_once_and_again_when_they_are_gone(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    first = models.compressed(BITS).fingerprints
    folders = packed_folders(tmp_path)
    times = [(folder / PAYLOAD).stat().st_mtime_ns for folder in folders]
    written_out = Compression(codec="bitdelta", settings={"rows": 0})
    assert models.compressed(written_out).fingerprints == first, "the default, written out"
    assert [(folder / PAYLOAD).stat().st_mtime_ns for folder in packed_folders(tmp_path)] == times
    models.compressed(Compression(codec="bitdelta", settings={"rows": 1}))
    assert len(packed_folders(tmp_path)) == 2 * len(folders), "other settings are another packing"
    for folder in folders:
        shutil.rmtree(folder)
    assert models.compressed(BITS).fingerprints == first != models.fingerprints


def test_processes_that_want_the_same_packing_share_it(tmp_path: Path) -> None:
    open_models(tmp_path)
    with get_context("spawn").Pool(2) as pool:
        one, other = pool.map(_pack_of, [tmp_path, tmp_path])
    assert one == other and len(packed_folders(tmp_path)) == 3


def _pack_of(root: Path) -> str:
    models = ModelSet.open(root / "base", {name: root / name for name in ("add", "sort", "text")})
    return models.compressed(Compression(codec="compeft")).fingerprints["expert:add"]


def test_models_that_cannot_be_written_to_are_packed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    models = open_models(tmp_path / "models")
    models.compressed(BITS)
    assert not packed_folders(tmp_path / "models")
    assert len(list((tmp_path / "elsewhere").glob(f"packed-*/{PAYLOAD}"))) == 3


def test_a_lora_is_small_already(tmp_path: Path) -> None:
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    adapted(base, tmp_path / "lora", target_modules=EVERY, seed=1)
    fine_tuned(base, 1).save_pretrained(tmp_path / "full")
    models = ModelSet.open(tmp_path / "base", {"lora": tmp_path / "lora", "full": tmp_path / "full"})
    small = models.compressed(BITS)
    assert small.experts["lora"] is models.experts["lora"]
    assert small.experts["full"] is not models.experts["full"]
    assert small.experts["full"].path == tmp_path / "full", "its tokenizer is read there"


@pytest.mark.parametrize("method", [name for name, row in CATALOG.items() if takes(name, 3) and not row.artefacts])
def test_what_loses_nothing_changes_no_merge(tmp_path: Path, method: str) -> None:
    models = open_models(tmp_path)
    exact = Compression(codec="xor")
    engine, packed = Engine(models), Engine(models.compressed(exact))
    plain, small = a_recipe(models, method), a_recipe(models, method, compress=exact)
    plans = packed.plans(small)
    for name, plan in engine.plans(plain).items():
        one, other = torch.empty(models.shape(name)), torch.empty(models.shape(name))
        engine.merge(plan, one)
        packed.merge(plans[name], other)
        assert torch.equal(one, other), "random draws and orders go by the experts, however they are kept"


def test_a_damaged_packing_is_packed_again(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    first = models.compressed(BITS).fingerprints
    short, bare, gone = packed_folders(tmp_path)
    (short / PAYLOAD).write_bytes((short / PAYLOAD).read_bytes()[:-5])
    (bare / RECORD).unlink()
    shutil.rmtree(gone)
    assert models.compressed(BITS).fingerprints == first
    with pytest.raises(Conflict, match=r"not those that the study was made with.*MERGESEARCH_ARTEFACTS"):
        models.compressed(BITS, {**first, "expert:add": "0" * 32})


def test_a_recipe_names_what_packs_its_experts(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    plain, small = a_recipe(models), a_recipe(models, compress="bitdelta")
    assert plain.digest(models.fingerprints) != small.digest(models.fingerprints)
    written_out = a_recipe(models, compress={"codec": "bitdelta", "settings": {"rows": 0}})
    assert written_out.digest(models.fingerprints) == small.digest(models.fingerprints)
    assert '"compress"' not in plain.to_json()
    with pytest.raises(InvalidRecipe, match=r"compress.*not how the experts were opened \(as they are\)"):
        export(small, models, tmp_path / "out")
    with pytest.raises(InvalidRecipe, match=r"compress.*not how the experts were opened \(bitdelta\)"):
        export(plain, models.compressed(BITS), tmp_path / "out")
    with pytest.raises(InvalidStudy, match=r"compress\.codec: 'zip'.*bitdelta"):
        a_recipe(models, compress="zip")
    assert not (tmp_path / "out").exists()


def test_two_writers_of_one_live_model_undo_each_other(tmp_path: Path) -> None:
    models = open_models(tmp_path)
    small = models.compressed(BITS)
    live = {name: torch.zeros(models.shape(name)) for name in models.base.names}
    kept, whole = ResidentModel(small, live), ResidentModel(models, live, memo_bytes=0, streamed=True)
    plain, packed = a_recipe(models), a_recipe(models, compress=BITS)
    kept.apply(packed)
    first = {name: tensor.clone() for name, tensor in live.items()}
    whole.apply(plain)
    assert all(torch.equal(live[name], value) for name, value in weights(models, models, None).items())
    assert not kept.apply(packed).tensors, "it cannot know"
    kept.forget()
    assert kept.apply(packed).tensors == len(live)
    assert all(torch.equal(live[name], first[name]) for name in live)
