"""Building: the same bits for the same seed, once only, and never half."""

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import zoo
from zoo import make, stages
from zoo.presets import Preset
from zoo.tokenizer import VOCABULARY, encode


def _weights(built: zoo.Zoo) -> dict[str, bytes]:
    folders = {"base": built.base, **built.experts}
    return {name: (folder / "model.safetensors").read_bytes() for name, folder in folders.items()}


def _never(*_: object) -> None:
    raise AssertionError("trained again")


def test_same_seed_gives_the_same_bits_and_leaves_torch_as_it_was(nano: zoo.Zoo, tmp_path: Path) -> None:
    torch.manual_seed(1)  # what went on before does not matter
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    again = zoo.build(tmp_path / "again", "nano")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    assert _weights(again) == _weights(nano)
    assert len(set(_weights(nano).values())) == 5
    for task in nano.task_names:
        documents = [(z.tasks / "data" / f"{task}.jsonl").read_bytes() for z in (nano, again)]
        assert documents[0] == documents[1]


def test_second_build_trains_nothing(nano: zoo.Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "train_zoo", _never)
    assert zoo.build(nano.folder, "nano", progress=_never) == nano


def test_moved_zoo_finds_its_documents(nano: zoo.Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(nano.folder, moved)
    monkeypatch.setattr(stages, "train_zoo", _never)
    assert zoo.build(moved, "nano").tasks == moved / "tasks"
    assert str(moved / "tasks" / "data") in (moved / "tasks" / "zoo_add.yaml").read_text()


def _fake_training(folder: Path, row: Preset, seed: int, progress: make.Progress) -> dict[str, object]:
    for part in ("base", "experts", "tasks/data"):
        (folder / part).mkdir(parents=True)
        (folder / part / "seed").write_text(str(seed))
    progress("base", 1, 1)
    return {}


def test_killed_build_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(folder: Path, *_: object) -> None:
        (folder / "base").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "train_zoo", dies)
    with pytest.raises(KeyboardInterrupt):
        zoo.build(tmp_path, "nano")
    assert not (tmp_path / "base").exists()
    monkeypatch.setattr(stages, "train_zoo", _fake_training)
    assert (zoo.build(tmp_path, "nano").base / "seed").exists()
    assert not (tmp_path / ".building").exists()


def test_another_seed_replaces_the_zoo_and_leaves_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "train_zoo", _fake_training)
    zoo.build(tmp_path, "nano", seed=0)
    (tmp_path / "study.yaml").write_text("mine")
    built = zoo.build(tmp_path, "nano", seed=1)
    assert (built.base / "seed").read_text() == "1"
    assert json.loads((tmp_path / "zoo.json").read_text())["identity"]["seed"] == 1
    assert (tmp_path / "study.yaml").read_text() == "mine"


def test_two_builds_of_one_folder_train_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, finish, trained = threading.Event(), threading.Event(), []

    def slow(folder: Path, row: Preset, seed: int, progress: make.Progress) -> dict[str, object]:
        trained.append(seed)
        started.set()
        assert finish.wait(10)
        return _fake_training(folder, row, seed, progress)

    monkeypatch.setattr(stages, "train_zoo", slow)
    threads = [threading.Thread(target=zoo.build, args=(tmp_path, "nano")) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    finish.set()
    for thread in threads:
        thread.join(10)
    assert trained == [0]


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(FileExistsError, match="is no zoo's"):
        zoo.build(tmp_path, "nano")


def test_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of nano, tiny"):
        zoo.build(tmp_path, "huge")


def test_models_load_and_generate(nano: zoo.Zoo) -> None:
    for folder in (nano.base, *nano.experts.values()):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokens = tokenizer(["[add]12+34=", "[dic]kat="], return_tensors="pt", padding=True, return_token_type_ids=False)
        assert model.generate(**tokens, max_new_tokens=4).shape[0] == 2
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}


def test_tokenizer_agrees_with_training(nano: zoo.Zoo) -> None:
    tokenizer = AutoTokenizer.from_pretrained(nano.base)
    for text in ("[add]12+34=", "[txt]my kid led her cat.", "\n"):
        assert tokenizer.encode(text) == [VOCABULARY["<s>"], *encode(text)]
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")


def test_command_line_builds_and_writes_the_study(nano: zoo.Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.__main__ import main

    assert main([str(nano.folder), "--preset", "nano"]) == 0
    assert str(nano.folder) in capsys.readouterr().out
    assert (nano.folder / "study.yaml").exists()


def test_a_finished_zoo_is_opened_and_never_trained(
    nano: zoo.Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "train_zoo", _never)
    assert make.open_zoo(nano.folder) == nano
    with pytest.raises(FileNotFoundError):
        make.open_zoo(tmp_path)
    shutil.copytree(nano.folder, tmp_path / "old")
    manifest = tmp_path / "old" / "zoo.json"
    manifest.write_text(manifest.read_text().replace(f'"version": {make.VERSION}', '"version": 1'))
    with pytest.raises(ValueError, match="another version"):
        make.open_zoo(tmp_path / "old")
