"""The zoo's tokenizer: one token a character, one a skill tag, and `<s>` put in front by the tokenizer itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from zoo.skills import LETTERS, SKILLS, Skill

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
POSITIONS = 64

_SPECIAL = (PAD, BOS, EOS, UNKNOWN)


def vocabulary_of(skills: Iterable[Skill]) -> dict[str, int]:
    """The id of each token of a zoo of these skills."""
    tokens = (*_SPECIAL, *(skill.tag for skill in skills), *LETTERS, *"0123456789+= .\n")
    return {token: index for index, token in enumerate(tokens)}


VOCABULARY = vocabulary_of(SKILLS.values())
"""Of the first skills."""


def encode(text: str, vocabulary: Mapping[str, int] = VOCABULARY) -> list[int]:
    """Token ids of a training text, without `<s>`; tags are recognised at its start."""
    tagged = text[:5] in vocabulary
    return [vocabulary[token] for token in ((text[:5], *text[5:]) if tagged else text)]


def make_tokenizer(vocabulary: Mapping[str, int] = VOCABULARY) -> Any:
    """The tokenizer as transformers loads it from a model folder."""
    core = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\[[a-z]{3}\]|[\s\S]"), behavior="isolated")
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
