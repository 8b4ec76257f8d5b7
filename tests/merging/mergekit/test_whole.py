"""Whole configurations: every tensor that mergekit writes against ours, from the same file.

Computed in float32, results differ by the order of sums at most: experts are summed in the order of their names here
and of the file there. Random draws (DARE, DELLA) are other draws: there shares and sums are compared.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from merging.export import export
from merging.mergekit import read, write
from merging.models import ModelSet
from merging.recipe import Override, Recipe
from tests.merging.mergekit.llama import llama_layout, write_family
from tests.merging.mergekit.test_resolution import CONFIGS, EXPERTS, Content, absolute, whole

pytest.importorskip("mergekit.merge", reason="mergekit is not installed", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # those of mergekit

NEAR = 4e-7  # three to four steps of float32
HALVES = ({"weight": 0.4}, {"weight": 0.3}, {"weight": 0.35})
PLAIN: dict[str, tuple[Content, float]] = {  # configuration, largest difference relative to a tensor's largest element
    "linear": (whole("linear", *HALVES) | {"base_model": None}, NEAR),
    "linear, a plain sum": (whole("linear", *HALVES, parameters={"normalize": False}) | {"base_model": None}, NEAR),
    "task_arithmetic": (whole("task_arithmetic", *HALVES, parameters={"lambda": 0.7}), NEAR),
    "task_arithmetic, normalized": (whole("task_arithmetic", *HALVES, parameters={"normalize": True}), NEAR),
    "ties": (whole("ties", *HALVES, parameters={"density": 0.4, "lambda": 1.3}), 0.0),
    "ties, not normalized": (whole("ties", *HALVES, parameters={"density": 0.4, "normalize": False}), 0.0),
    "breadcrumbs": (whole("breadcrumbs", *HALVES, parameters={"density": 0.6, "gamma": 0.1}), 0.0),
    "breadcrumbs, more than there is": (whole("breadcrumbs", *HALVES, parameters={"density": 0.95, "gamma": 0.2}), 0.0),
    "breadcrumbs_ties": (whole("breadcrumbs_ties", *HALVES, parameters={"density": 0.6, "gamma": 0.1}), 0.0),
    "dare_linear that keeps all": (whole("dare_linear", *HALVES), 0.0),
    "dare_ties that keeps all": (whole("dare_ties", *HALVES, parameters={"normalize": True}), 0.0),
    "della that keeps all": (whole("della", *HALVES), 0.0),
    "slerp": (whole("slerp", {}, parameters={"t": 0.3}), NEAR),
    "nuslerp": (whole("nuslerp", *HALVES[:2]), NEAR),
    "nuslerp by row": (whole("nuslerp", *HALVES[:2], parameters={"nuslerp_flatten": False}), NEAR),
    "nuslerp by column": (
        whole("nuslerp", *HALVES[:2], parameters={"nuslerp_flatten": False, "nuslerp_row_wise": True}),
        NEAR,
    ),
    "nuslerp without a base": (whole("nuslerp", *HALVES[:2]) | {"base_model": None}, NEAR),
    "multislerp": (whole("multislerp", *HALVES), NEAR),
    "multislerp without a base": (whole("multislerp", *HALVES) | {"base_model": None}, NEAR),
    "karcher": (whole("karcher", {}, {}, {}), NEAR),
    "model_stock": (whole("model_stock", {}, {}, {}), NEAR),
    "model_stock by row": (whole("model_stock", {}, {}, {}, parameters={"filter_wise": True}), NEAR),
    "sce": (whole("sce", {}, {}, {}, parameters={"select_topk": 0.5}), NEAR),
    "nearswap": (whole("nearswap", {}, parameters={"t": 0.02}), NEAR),
    "arcee_fusion": (whole("arcee_fusion", {}), NEAR),
    "ram": (whole("ram", {}, {}, {}, parameters={"epsilon": 0.05}), NEAR),
    "ramplus_tl": (whole("ramplus_tl", {}, {}, {}, parameters={"epsilon": 0.05, "r": 0.3}), NEAR),
}
DRAWN = ("the scopes of slice and file", "bands of probability")
RESOLVED = {name: (content, NEAR) for name, content in CONFIGS.items() if name not in DRAWN}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models on disk, in folders that mergekit has not opened: it never drops a file it has read."""
    root = tmp_path_factory.mktemp("whole")
    write_family(root, EXPERTS)
    return root


def theirs(content: Content, root: Path, to: Path) -> dict[str, Tensor]:
    """What mergekit writes."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=1)
    run_merge(MergeConfiguration.model_validate(absolute(content, root)), str(to), options)
    return gathered(to)


def ours(content: Content, root: Path, to: Path) -> dict[str, Tensor]:
    """What we write."""
    return built(read(content, root, llama_layout), to)


def built(recipe: Recipe, to: Path) -> dict[str, Tensor]:
    """What we write for a recipe."""
    experts = {name: Path(place) for name, place in recipe.experts.items()}
    models = ModelSet.open(Path(recipe.base), experts, tokenizer=recipe.tokenizer)
    export(recipe, models, to)
    return gathered(to)


def gathered(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.mark.parametrize("name", [*PLAIN, *RESOLVED])
def test_every_tensor_is_the_same(name: str, family: Path, tmp_path: Path) -> None:
    content, tolerance = (PLAIN | RESOLVED)[name]
    content = {key: value for key, value in content.items() if value is not None} | {"dtype": "float32"}
    expected, found = theirs(content, family, tmp_path / "theirs"), ours(content, family, tmp_path / "ours")
    assert set(found) == set(expected)
    for tensor, value in expected.items():
        assert found[tensor].dtype == value.dtype == torch.float32
        distance = ((found[tensor] - value).abs().max() / value.abs().max()).item()
        assert distance <= tolerance, (tensor, distance)


def test_the_config_counts_the_layers_of_the_result(family: Path, tmp_path: Path) -> None:
    content = CONFIGS["stacked layers of several models"]
    ours(content, family, tmp_path / "ours")
    theirs(content, family, tmp_path / "theirs")
    found, expected = (json.loads((tmp_path / who / "config.json").read_text()) for who in ("ours", "theirs"))
    assert found["num_hidden_layers"] == expected["num_hidden_layers"] == 17


def test_mergekit_builds_what_we_write_for_it(family: Path, tmp_path: Path) -> None:
    content = CONFIGS["gradients and filters"] | {"dtype": "float32"}
    recipe = read(content, family, llama_layout)
    exception = Override(contains="v_proj", layers=(2, 5), method="ties", weights=dict.fromkeys(EXPERTS, 1.0))
    recipe = recipe.model_copy(update={"overrides": (exception, *recipe.overrides)})
    expected = theirs(write(recipe, llama_layout), family, tmp_path / "theirs")
    found = built(recipe, tmp_path / "ours")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models stored in bfloat16."""
    root = tmp_path_factory.mktemp("rounded")
    write_family(root, EXPERTS, torch.bfloat16)
    return root


TIES = whole(
    "ties", *HALVES, parameters={"int8_mask": True}
)  # trimmed bfloat16 deltas: mergekit sorts equal ones at random


def test_what_is_computed_in_float32_and_stored_in_bfloat16_has_the_same_bits(rounded: Path, tmp_path: Path) -> None:
    content = TIES | {"dtype": "float32", "out_dtype": "bfloat16"}
    expected, found = theirs(content, rounded, tmp_path / "theirs"), ours(content, rounded, tmp_path / "ours")
    assert all(found[name].dtype == torch.bfloat16 and torch.equal(found[name], expected[name]) for name in expected)


def test_mergekit_computes_in_bfloat16_where_it_is_told_no_more_and_we_never_do(rounded: Path, tmp_path: Path) -> None:
    exact = theirs(TIES | {"dtype": "float32"}, rounded, tmp_path / "exact")
    expected = theirs(TIES | {"dtype": "bfloat16"}, rounded, tmp_path / "theirs")
    found = ours(TIES | {"dtype": "bfloat16"}, rounded, tmp_path / "ours")
    name = "model.layers.3.mlp.up_proj.weight"
    assert torch.equal(found[name], exact[name].bfloat16()) and not torch.equal(expected[name], found[name])
    assert (found[name].float() - expected[name].float()).abs().max() < 0.1


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
@pytest.mark.parametrize("rescale", [True, False])
def test_draws_have_the_same_distribution(method: str, rescale: bool, family: Path, tmp_path: Path) -> None:
    parameters = {"density": 0.4, "rescale": rescale, "normalize": False}
    content = whole(method, {"weight": 1.0}, parameters=parameters) | {"dtype": "float32"}
    expected, found = theirs(content, family, tmp_path / "theirs"), ours(content, family, tmp_path / "ours")
    base, tuned = gathered(family / "base"), gathered(family / "alpha")
    kept, drawn, count = 0, 0, 0
    for name, origin in base.items():
        delta, own, other = tuned[name] - origin, found[name] - origin, expected[name] - origin
        kept, drawn, count = kept + int((own != 0).sum()), drawn + int((other != 0).sum()), count + own.numel()
        if rescale and own.any():
            torch.testing.assert_close(own.abs().sum(), delta.abs().sum(), rtol=1e-4, atol=0.0)
        if not rescale:
            torch.testing.assert_close(own, torch.where(own != 0, delta, 0.0), rtol=0.0, atol=1e-6)
    deviation = (0.4 * 0.6 / count) ** 0.5
    assert abs(kept / count - 0.4) < 4 * deviation and abs(drawn / count - 0.4) < 4 * deviation


WORDS = [f"w{i}" for i in range(80)]


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with tokenizers: alpha knows the base's words in another order, beta two more."""
    root = tmp_path_factory.mktemp("speakers")
    tokens = {"base": WORDS, "alpha": [WORDS[0], *reversed(WORDS[1:])], "beta": [*WORDS, "x", "y"]}
    write_family(root, EXPERTS[:2], tokens=tokens)
    return root


@pytest.mark.parametrize("source", ["base", "union", "beta"])
def test_rows_are_matched_by_their_tokens(source: str, speakers: Path, tmp_path: Path) -> None:
    content = whole("ties", *HALVES[:2], parameters={"density": 0.5}) | {"dtype": "float32"}
    place = source if source != "beta" else str(speakers / "beta")
    expected = theirs(content | {"tokenizer_source": place}, speakers, tmp_path / "theirs")
    found = ours(content | {"tokenizer_source": source}, speakers, tmp_path / "ours")
    tokens, words = (AutoTokenizer.from_pretrained(tmp_path / who).get_vocab() for who in ("theirs", "ours"))
    assert set(tokens) == set(words) and len(words) == (80 if source == "base" else 82)
    order = [tokens[token] for token in sorted(words, key=words.__getitem__)]
    for name, value in found.items():
        wide = name in ("model.embed_tokens.weight", "lm_head.weight")
        torch.testing.assert_close(value, expected[name][order] if wide else expected[name], rtol=0.0, atol=1e-6)
