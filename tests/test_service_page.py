"""docs/service.md agrees with the settings, the compose file and the API."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined

from api.service.settings import PREFIX, ServiceSettings
from merging.kernel.choice import VARIABLE as KERNEL

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "service.md").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
EXAMPLE = (ROOT / ".env.example").read_text()
FIELDS = ServiceSettings.model_fields


def shown(value: object) -> str:
    """A default as the page writes it."""
    if value is PydanticUndefined:
        return "required"
    if value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_row_with_its_default(name: str) -> None:
    assert f"| `{PREFIX}{name.upper()}` | {shown(FIELDS[name].default)} |" in PAGE


def test_no_variable_is_named_that_nothing_reads() -> None:
    read = {PREFIX + name.upper() for name in FIELDS} | {f"{PREFIX}SERVER", f"{PREFIX}KEY", KERNEL}
    assert set(re.findall(rf"{PREFIX}[A-Z_]+", PAGE + EXAMPLE)) <= read


def test_services_profiles_and_variables_of_compose_exist() -> None:
    for line in re.findall(r"^docker compose (.*)$", PAGE, re.MULTILINE):
        line = line.partition("#")[0]
        for service in re.findall(r"exec (?:-T )?(\w+)|(worker-\w+)", line):
            assert set(filter(None, service)) <= set(COMPOSE["services"])
    profiles = {p for service in COMPOSE["services"].values() for p in service.get("profiles", ())}
    assert set(re.findall(r"--profile (\w+)", PAGE)) <= profiles
    for name in ("MODELS", "CPU_THREADS", "BIND", "FORWARDED_ALLOW_IPS", "COMPOSE_PROFILES"):
        assert name in PAGE and re.search(rf"^(# )?{name}=", EXAMPLE, re.MULTILINE)


def test_the_limits_that_are_told_are_those_that_hold() -> None:
    (limit,) = re.findall(r"max_connections=(\d+)", " ".join(COMPOSE["services"]["postgres"]["command"]))
    assert f"The compose file allows {limit} together" in PAGE
