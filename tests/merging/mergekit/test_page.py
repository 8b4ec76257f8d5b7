"""docs/mergekit.md agrees with the code, and reading needs no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from merging.mergekit import read
from merging.mergekit.names import METHODS
from tests.merging.mergekit.llama import llama_layout

PAGE = (Path(__file__).parents[3] / "docs" / "mergekit.md").read_text()
ROWS = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \| `\w+` \| .*$", PAGE, re.MULTILINE)}
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_method_has_a_row_with_its_counterpart_and_all_its_parameters() -> None:
    assert set(ROWS) == set(METHODS)
    for name, row in METHODS.items():
        _, _, ours, parameters, *_ = ROWS[name].split("|")
        assert ours.strip() == f"`{row.ours}`"
        assert set(re.findall(r"`(\w+)`", parameters)) == {knob.name for knob in row.knobs}


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_read(example: str) -> None:
    assert read(yaml.safe_load(example), Path("/models"), llama_layout).groups


def test_reading_and_writing_load_no_torch() -> None:
    code = "import sys, merging.mergekit; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
