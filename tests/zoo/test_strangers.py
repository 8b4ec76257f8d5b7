"""An expert from another start: of the zoo's shape and skill, with weights that have nothing to do with the zoo's."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo.strangers import train_stranger


@pytest.fixture(scope="module")
def folder(nano: zoo.Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo of its own: the shared one stays as it is."""
    made: Path = tmp_path_factory.mktemp("strangers") / "zoo"
    shutil.copytree(nano.folder, made)
    return made


def test_it_has_the_zoo_s_shape_and_other_weights(folder: Path) -> None:
    told: list[str] = []
    made = train_stranger(folder, "srt", progress=lambda stage, step, steps: told.append(stage))
    assert made == folder / "strangers" / "srt-1" and set(told) == {"base of start 1", "stranger srt"}
    own, other = (load_file(path / "model.safetensors") for path in (folder / "experts" / "srt", made))
    assert {name: t.shape for name, t in own.items()} == {name: t.shape for name, t in other.items()}
    name = "model.layers.1.mlp.up_proj.weight"
    cosine = torch.nn.functional.cosine_similarity(own[name].flatten(), other[name].flatten(), dim=0)
    assert abs(float(cosine)) < 0.2
    assert (made / "tokenizer.json").exists() and not (folder / ".strangers").exists()
    told.clear()
    assert train_stranger(folder, "srt", progress=lambda stage, step, steps: told.append(stage)) == made and not told


def test_the_zoo_s_own_start_and_a_folder_without_a_zoo_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start 0 is the zoo's own"):
        train_stranger(folder, "srt", 0)
    with pytest.raises(FileNotFoundError):
        train_stranger(tmp_path, "srt")
