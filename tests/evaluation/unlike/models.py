"""Small random decoders with a tokenizer of letters, as folders; and texts for them."""

from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers import models as kinds
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from evaluation.unlike.pair import Pair, open_pair
from merging.checkpoint import Checkpoint
from tests.merging.permuting.decoders import VOCABULARY

LETTERS = "abcdefghijklmnopqrstuvwxyz "


def draw_texts(count: int, seed: int = 0, longest: int = 60) -> tuple[str, ...]:
    """Random texts of 2 letters and more."""
    rng = Random(seed)
    return tuple("".join(rng.choices(LETTERS, k=rng.randint(2, longest))) for _ in range(count))


def write(model: Any, folder: Path, letters: str = LETTERS, first: int = 1) -> Path:
    """The model, with a tokenizer that gives the letters ids from `first` on."""
    vocabulary = {letter: first + i for i, letter in enumerate(letters)} | {"?": 0}
    core = Tokenizer(kinds.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?").save_pretrained(folder)
    assert first + len(letters) <= VOCABULARY or first > VOCABULARY
    return folder


def pair_of(root: Path, ours: Any, theirs: Any) -> Pair:
    """Both models written under `root`, and opened."""
    folders = write(ours, root / "ours"), write(theirs, root / "theirs")
    return open_pair(Checkpoint(folders[0], "FRONT"), Checkpoint(folders[1], "BACK"), "cpu")
