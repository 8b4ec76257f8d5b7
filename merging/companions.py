"""The files that make a model beside its weights: config, tokenizer, chat template, licence."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from merging.folder import write_file

# Listed, so that no pickle and no optimiser state comes along.
COMPANIONS = (
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "*.tiktoken",
    "*.spm",
    "*.bpe.model",
    "spiece.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
)


def companions(base: Path) -> Iterator[Path]:
    """The companion files in a model's folder, each once, in a fixed order. config.json is not among them."""
    found = {file for pattern in COMPANIONS for file in base.glob(pattern) if file.is_file()}
    return iter(sorted(found))


def copy_companions(base: Path, folder: Path) -> None:
    """Writes a copy of each companion into a folder, durably."""
    for source in companions(base):
        target = folder / source.relative_to(base)
        target.parent.mkdir(exist_ok=True)
        write_file(target, source.read_bytes())


def companions_digest(base: Path) -> str:
    """Digest of config.json and the companions: with the weights' fingerprint it says what a model computes."""
    state = blake2b(digest_size=16)
    for file in (base / "config.json", *companions(base)):
        if not file.name.startswith("LICENSE"):
            content = file.read_bytes()
            state.update(f"{file.relative_to(base)}:{len(content)}\n".encode() + content)
    return state.hexdigest()
