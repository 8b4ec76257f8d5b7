"""Each fault that is planted is found, named and given a remedy; sound models are left in peace."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch

from merging.diagnosis.measure import diagnose
from merging.diagnosis.opening import BASE, token_digest
from merging.diagnosis.warnings import Code
from tests.merging.diagnosis.planted import WIDTH, WORDS, base_tensors, diagnosed, remarks, tuned
from tests.merging.factories import write_tensors

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    """The base that every test begins with."""
    return base_tensors()


def test_sound_fine_tunes_are_left_in_peace(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    found = remarks(diagnosed(tmp_path, base, one=tuned(base, 1), two=tuned(base, 2)))
    assert list(found) == [("fits", ("one", "two"))]


def test_a_fine_tune_of_another_base_is_found(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    found = remarks(diagnosed(tmp_path, base, own=tuned(base, 1), other=tuned(base_tensors(7), 2)))
    assert [key for key, remark in found.items() if remark.level != "ok"] == [("other_base", ("other",))]
    assert "1.41 times as long" in found["other_base", ("other",)].problem


def test_a_common_ancestor_nearer_than_the_base_is_found(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    chat = tuned(base, 3, 5e-3)
    found = remarks(diagnosed(tmp_path, base, one=tuned(chat, 1), two=tuned(chat, 2), three=tuned(base, 4, 5e-3)))
    assert [models for code, models in found if code == "common_ancestor"] == [("one", "two")]


def test_two_experts_of_a_hidden_base_are_said_to_be_far(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    hidden = base_tensors(7)
    found = remarks(diagnosed(tmp_path, base, one=tuned(hidden, 1), two=tuned(hidden, 2)))
    assert "not where they come from" in found["common_ancestor", ("one", "two")].problem


def test_large_deltas_and_uneven_ones_are_found(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    found = remarks(diagnosed(tmp_path, base, small=tuned(base, 1, 1e-3), large=tuned(base, 2, 1.5e-2)))
    assert ("large_deltas", ("large",)) in found and ("large_deltas", ("small",)) not in found
    assert found["uneven_norms", ("large", "small")].level == "warning"


def test_experts_that_pull_against_each_other_are_found(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    there = tuned(base, 1)
    back = {name: 2 * tensor - there[name] for name, tensor in base.items()}
    found = remarks(diagnosed(tmp_path, base, there=there, back=back))
    assert "100% sign conflict" in found["opposed", ("there", "back")].problem


def test_copies_of_the_base_and_of_each_other_are_found(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    one = tuned(base, 1)
    almost = one | {EMBEDDING: one[EMBEDDING].clone()}
    almost[EMBEDDING][0, 0] += 1e-7
    found = remarks(diagnosed(tmp_path, base, a=one, b=dict(one), c=almost, d=dict(base)))
    assert ("is_base", ("d",)) in found
    assert [models for code, models in found if code == "identical"] == [("a", "b")]
    assert ("common_ancestor", ("a", "c")) in found  # all but one number in common is not identical


def test_frozen_tensors_are_told(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    found = remarks(diagnosed(tmp_path, base, one=tuned(base, 1) | {EMBEDDING: base[EMBEDDING]}))
    remark = found["frozen", ("one",)]
    assert remark.level == "ok" and f"1 of {len(base)} tensors" in remark.problem


def test_everything_that_does_not_fit_is_told_at_once(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    one = tuned(base, 1)
    one[EMBEDDING] = torch.randn(WORDS + 4, WIDTH)
    one["model.layers.0.mlp.up_proj.weight"] = torch.randn(WIDTH, WIDTH)
    one["model.layers.1.mlp.up_proj.weight"] = torch.randn(WIDTH, WIDTH)
    del one["model.norm.weight"]
    one["extra.weight"] = torch.ones(1)
    one["model.layers.0.input_layernorm.weight"] = torch.ones(WIDTH, dtype=torch.int64)
    diagnosis = diagnosed(tmp_path, base, one=one, two=tuned(base, 2))
    found = remarks(diagnosis)
    assert {code for (code, _), r in found.items() if r.level == "bad"} == {
        "vocabulary", "shape", "missing", "extra", "numbers"
    }  # fmt: skip
    assert "1 more such tensor)" in found["shape", ("one",)].problem
    assert "save its tokenizer" in found["vocabulary", ("one",)].problem
    assert ("fits", ("two",)) in found and len(diagnosis.tensors) == len(base)  # what does fit is measured all the same
    assert [m.tensors for m in diagnosis.misfits if m.kind == "shape"] == [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight")
    ]


def test_models_that_cannot_be_read_are_all_told(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    good = write_tensors(tmp_path / "good", base)
    found = diagnose(good, {"gone": tmp_path / "gone", "good": write_tensors(tmp_path / "copy", base)})
    assert "does not exist" in remarks(found)["unreadable", ("gone",)].text and found.experts == ("good",)
    nothing = diagnose(tmp_path / "gone", {"gone": tmp_path / "gone", "good": good})
    assert {key for key in remarks(nothing)} == {("unreadable", (BASE,)), ("unreadable", ("gone",))}


def test_not_a_number_is_bad(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    one = tuned(base, 1)
    one["model.norm.weight"][3] = float("nan")
    found = remarks(diagnosed(tmp_path, base, one=one))
    remark = found["not_finite", ("one",)]
    assert remark.level == "bad" and "model.norm.weight" in remark.problem
    found = remarks(diagnosed(tmp_path / "again", one, two=tuned(base, 2)))
    assert [models for code, models in found if code == "not_finite"] == [(BASE,)]


def test_dtypes_ties_and_tokens_that_differ_are_told(tmp_path: Path, base: dict[str, torch.Tensor]) -> None:
    one = {name: tensor.bfloat16() for name, tensor in tuned(base, 1).items()}
    own, other = write_tensors(tmp_path / "base", base), write_tensors(tmp_path / "one", one)
    (other / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    for folder, words in ((own, {"a": 0, "b": 1}), (other, {"a": 1, "b": 0})):
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    found = remarks(diagnose(own, {"one": other}))
    assert {code for code, _ in found} >= {"dtype", "ties", "tokenizer"}
    assert "bfloat16 where the base is float32" in found["dtype", ("one",)].problem


def test_only_tokens_and_their_ids_make_a_tokenizer_another(tmp_path: Path) -> None:
    def digest(text: str) -> str | None:
        (tmp_path / "tokenizer.json").write_text(text)
        return token_digest(tmp_path)

    assert token_digest(tmp_path) is None
    plain = digest('{"model": {"vocab": {"a": 0, "b": 1}}}')
    assert plain == digest('{"padding": 3, "model": {"vocab": {"b": 1, "a": 0}, "merges": []}}')
    assert plain != digest('{"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "c", "id": 2}]}')
    assert digest("[") is None and digest("[]") is None


def test_every_finding_has_a_row_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "diagnosis.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (bad|warning|ok) \|", page, re.MULTILINE)
    assert sorted(code for codes, _ in rows for code in re.findall(r"\w+", codes)) == sorted(get_args(Code))
