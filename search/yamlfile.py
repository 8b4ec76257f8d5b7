"""YAML as people mean it: no objects, no key given twice, and `1e-5` is a number."""

import re
from pathlib import Path
from typing import Any

import yaml

# YAML 1.1, which PyYAML reads, wants a point and a sign in 1.0e-5; YAML 1.2, JSON and people do not.
_EXPONENT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def understand_exponents(loader: Any) -> None:
    """Lets a loader class read `1e-5` as a number."""
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


class Loader(yaml.SafeLoader):
    """YAML without objects, and without a key given twice (of which YAML would keep the last without a word)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping.

        Raises:
            ConstructorError: a key is given twice.
        """
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


understand_exponents(Loader)


def read_yaml(path: Path) -> Any:
    """What a YAML or JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not YAML; the message says where.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
