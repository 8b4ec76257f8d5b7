"""Aligns the vocabularies of opened checkpoints, and refuses what cannot be written out in the end."""

from collections.abc import Mapping

from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel
from merging.expert import Expert
from merging.vocabulary.alignment import Alignment, make_alignment
from merging.vocabulary.choice import BASE, check_choice
from merging.vocabulary.files import output_files
from merging.vocabulary.reading import has_tokens, token_files
from merging.vocabulary.rows import is_embedding, is_vocabulary, vocabulary_axis
from merging.vocabulary.tokens import Vocabulary


def align(
    base: Checkpoint, experts: Mapping[str, Expert], tokenizer: str = BASE, key: str = "tokenizer"
) -> Alignment | None:
    """How the rows of these models come together; None if every row means the same in all of them already.

    Models whose rows are as many and whose vocabulary files are equal are not looked into. An expert without
    vocabulary files has the base's vocabulary.

    Args:
        tokenizer: whose vocabulary the output has: `base`, `union`, or an expert's name.
        key: where that choice is named, for messages.

    Raises:
        InvalidRecipe: there is no such expert, or a union leaves the chat template open.
        InvalidModel: a vocabulary cannot be read, does not fit its model's rows, or cannot be joined.
    """
    check_choice(tokenizer, tuple(experts), key)
    found = None
    if any(_differs(each, base) for each in experts.values()):
        ancestor = Vocabulary.read(base.path, base.key, embedding_rows(base))
        vocabularies = {name: _vocabulary(each, ancestor) for name, each in experts.items()}
        found = make_alignment(tokenizer, ancestor, vocabularies, key)
    if found is not None:
        for each in (base, *experts.values()):
            _check_rows(each)
    if tokenizer != BASE:  # for what it raises: better before a search than after it
        output_files(tokenizer, base.path, {name: each.path for name, each in experts.items()}, found, key)
    return found


def embedding_rows(model: Expert) -> int:
    """Rows of the input embedding; of several, the one that config.json calls the vocabulary's, else the outermost.

    Raises:
        InvalidModel: no tensor is called like an embedding.
    """
    names = sorted((name for name in model.names if is_embedding(name)), key=lambda name: (name.count("."), name))
    sizes = [model.entry(name).shape[0] for name in names]
    if not sizes:
        problem = "has no embedding under a known name, so its vocabulary cannot be aligned"
        raise InvalidModel(model.key, str(model.path), problem, "use models with the base's very vocabulary")
    text = model.config.get("text_config")
    declared = [part.get("vocab_size") for part in (model.config, text) if isinstance(part, dict)]
    return next((size for size in sizes if size in declared), sizes[0])


def _differs(expert: Expert, base: Checkpoint) -> bool:
    """Whether the two may have different vocabularies."""
    common = sorted(name for name in {*expert.names} & {*base.names} if is_vocabulary(name))
    if any(expert.entry(name).shape != base.entry(name).shape for name in common):
        return True
    return has_tokens(expert.path) and token_files(expert.path) != token_files(base.path)


def _vocabulary(expert: Expert, base: Vocabulary) -> Vocabulary:
    rows = embedding_rows(expert)
    if has_tokens(expert.path):
        return Vocabulary.read(expert.path, expert.key, rows)
    if rows != base.rows:
        problem = f"has {rows} embedding rows where the base has {base.rows}, and no tokenizer that names them"
        raise InvalidModel(expert.key, str(expert.path), problem, "save its tokenizer into the folder")
    return Vocabulary(base.ids, base.added, rows, expert.path, expert.key)


def _check_rows(model: Expert) -> None:
    """Raises InvalidModel if a tensor called like the vocabulary's has another number of rows than the embedding."""
    rows = embedding_rows(model)
    for name in model.names:
        shape = model.entry(name).shape
        if is_vocabulary(name) and vocabulary_axis(name, shape, rows) is None:
            problem = f"has {name} of shape {list(shape)} beside an embedding of {rows} rows; only one can be aligned"
            raise InvalidModel(model.key, str(model.path), problem, "use models with the base's very vocabulary")
