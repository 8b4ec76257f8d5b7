"""Where artefacts lie: whole or not at all, found again, made once, and read by merges."""

import gc
import json
import threading
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from merging.artefacts.place import VARIABLE, lock_of, locked
from merging.artefacts.request import Request
from merging.artefacts.shelf import MANIFEST, MOST_OF_RECIPES, TENSORS, Artefact, MissingArtefact, Shelf, finish
from merging.engine import Engine
from merging.errors import InvalidModel, OutputError
from merging.export import export
from merging.recipe import GroupMerge
from merging.weightfiles import write_weights
from tests.merging.factories import SUITE, a_recipe, open_models, recipe_of

REQUEST = Request("fisher", "a", ("1",), "c", SUITE, (("documents", 8),))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("base", "a"):
        (tmp_path / name).mkdir()
    return Shelf({"": tmp_path / "base", "a": tmp_path / "a"})


def fill(folder: Path, value: float = 1.0) -> None:
    def ones(name: str, out: Tensor) -> None:
        out.fill_(value)

    write_weights(folder, [(TENSORS, [("w", torch.float32, (3,))])], ones, indexed=False)
    finish(folder, REQUEST, {"mean": 0.5})


def make(shelf: Shelf) -> Path:
    with shelf.making(REQUEST) as folder:
        assert folder is not None
        fill(folder)
    found = shelf.find(REQUEST)
    assert isinstance(found, Artefact)
    return found.folder


def test_it_lies_beside_its_model_and_is_found_again(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.find(REQUEST) is None
    place = make(shelf)
    assert place == tmp_path / "a" / ".mergesearch" / f"fisher-{REQUEST.digest}"
    found = Shelf({"": tmp_path / "base", "a": tmp_path / "a"}).require(REQUEST)
    tensor = found.tensor("w")
    assert tensor is not None and tensor.tolist() == [1.0] * 3 and found.tensor("other") is None
    assert found.figures["mean"] == 0.5
    assert json.loads((place / MANIFEST).read_text())["request"]["suite"] == SUITE


def test_the_environment_may_name_another_place(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    assert make(shelf).parent == tmp_path / "elsewhere" and not (tmp_path / "a" / ".mergesearch").exists()


def test_a_folder_that_cannot_be_written_is_passed_over(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "a" / ".mergesearch").write_text("in the way")
    assert make(shelf).parent == tmp_path / "cache" / "mergesearch" / "artefacts"


def test_what_fails_leaves_nothing(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), shelf.making(REQUEST) as folder:
        assert folder is not None
        fill(folder)
        raise KeyboardInterrupt
    left = [path for path in (tmp_path / "a" / ".mergesearch").iterdir() if path.suffix != ".lock"]
    assert left == [] and shelf.find(REQUEST) is None
    make(shelf)


def test_two_that_want_the_same_make_it_once(shelf: Shelf) -> None:
    given: list[Path | None] = []

    def other() -> None:
        with shelf.making(REQUEST) as folder:
            given.append(folder)

    with shelf.making(REQUEST) as folder:
        assert folder is not None
        thread = threading.Thread(target=other)
        thread.start()
        fill(folder)
    thread.join(30)
    assert given == [None]  # it waited, and found it made


def test_who_waits_may_stop_waiting(shelf: Shelf) -> None:
    looks: list[int] = []

    def waiting() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt

    with shelf.making(REQUEST) as folder:
        assert folder is not None
        with pytest.raises(KeyboardInterrupt), shelf.making(REQUEST, waiting):
            raise AssertionError("it was held")
        fill(folder)
    assert len(looks) == 2 and shelf.find(REQUEST) is not None
    with shelf.making(REQUEST, waiting) as folder:
        assert folder is None and len(looks) == 2, "nobody held it"


def test_of_what_belongs_to_recipes_the_last_used_stay_and_one_is_open(shelf: Shelf, tmp_path: Path) -> None:
    def request(number: int) -> Request:
        return Request("merged inputs", "", (str(number),), "c", SUITE, ())

    def make_one(number: int) -> None:
        with shelf.making(request(number)) as folder:
            assert folder is not None
            fill(folder)

    first, *others = range(MOST_OF_RECIPES + 1)
    for number in (first, *others[:-1]):
        make_one(number)
        held = weakref.ref(shelf.require(request(number)))
    fresh = Shelf({"": tmp_path / "base", "a": tmp_path / "a"})
    assert fresh.find(request(first)) is not None, "used again, it is the latest"
    make_one(others[-1])
    places = (tmp_path / "base" / ".mergesearch").glob(f"*/{MANIFEST}")
    kept = {f"merged-inputs-{request(number).digest}" for number in (first, *others[1:])}
    assert {place.parent.name for place in places} == kept
    assert shelf.find(request(others[-1])) is not None
    gc.collect()
    assert held() is None, "files that are removed are mapped by nobody"


def test_a_lock_that_was_removed_is_no_lock(shelf: Shelf, tmp_path: Path) -> None:
    place, inside = tmp_path / "a" / "thing", list[str]()
    waits = threading.Event()

    def other() -> None:
        with locked(place, waits.set):
            inside.append("other")

    with locked(place):
        thread = threading.Thread(target=other)
        thread.start()
        assert waits.wait(30)
        lock_of(place).unlink()
        with locked(place):  # of a new file
            assert not inside
    thread.join(30)
    assert inside == ["other"] and lock_of(place).exists()


def test_no_place_at_all_is_one_clear_error(shelf: Shelf, tmp_path: Path) -> None:
    for place in (tmp_path / "a" / ".mergesearch", tmp_path / "cache"):
        place.write_text("in the way")
    said = r"artefacts: .* cannot be written .*; let MERGESEARCH_ARTEFACTS name"
    with pytest.raises(OutputError, match=said), shelf.making(REQUEST):
        pass


@pytest.mark.parametrize("file", [MANIFEST, TENSORS])
def test_a_damaged_one_says_what_to_do(shelf: Shelf, tmp_path: Path, file: str) -> None:
    place = make(shelf)
    (place / file).write_bytes(b"{}")
    with pytest.raises(InvalidModel, match="artefact: "):
        Shelf({"a": tmp_path / "a"}).find(REQUEST)


def test_a_merge_without_its_artefact_names_the_remedy(tmp_path: Path) -> None:
    models = open_models(tmp_path, experts=2)
    group = GroupMerge(layers=(0, 4), method="fisher", weights={"add": 1.0, "sort": 1.0})
    with pytest.raises(MissingArtefact, match=r"suite: '5+' .* of expert add .* run `mergesearch measure`"):
        Engine(models).plans(recipe_of(models, (group,), suite=SUITE))
    with pytest.raises(MissingArtefact):
        export(recipe_of(models, (group,), suite=SUITE), models, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["fisher", "regmean", "regmean_pp"])
def test_another_suite_is_another_merge(tmp_path: Path, method: str) -> None:
    models = open_models(tmp_path, experts=2)
    plan = Engine(models).plans(a_recipe(models, method))["model.layers.0.mlp.up_proj.weight"]
    again = Engine(models).plans(a_recipe(models, method))["model.layers.0.mlp.up_proj.weight"]
    assert plan.effect == again.effect
    assert plan.merge.readings is not None and len(plan.merge.readings.digests) >= 1
