"""docker-compose.yml by itself: what it starts can be started, nothing has a default secret, nothing runs as root."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from api.cli import app
from api.rest.metrics import StoreCollector
from api.service.settings import EXAMPLE_PASSWORD, PREFIX, ServiceSettings, load_settings
from db.store import Store
from merging.errors import InvalidInput
from tests.server import HOST, free_port
from tests.services import need
from workers.keeper import LEAVE_SECONDS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
EXAMPLE = (ROOT / ".env.example").read_text()
SET = dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
OPTIONAL = set(re.findall(r"^# ([A-Z_]+)=", EXAMPLE, re.MULTILINE))
OWN = SET | {"POSTGRES_PASSWORD": "a1", "REDIS_PASSWORD": "b2"}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")
EACH = pytest.mark.parametrize("name", SERVICES)
EACH_OF_OURS = pytest.mark.parametrize("name", OURS)


def filled(value: str, variables: Mapping[str, str]) -> str:
    """The value as Docker Compose fills it in."""

    def fill(found: re.Match[str]) -> str:
        name, how, word = found.groups()
        assert how == "-" or name in variables, f"{name}: {word}"
        return variables.get(name) or word

    return VARIABLE.sub(fill, value).replace("$$", "$")


def environment(name: str, variables: Mapping[str, str]) -> dict[str, str]:
    """What a service's processes find in their environment."""
    return {
        key: filled(value, variables) if value is not None else variables[key]
        for key, value in SERVICES[name].get("environment", {}).items()
        if value is not None or key in variables
    }


def seconds(text: str) -> float:
    """`90s` as a number."""
    assert text.endswith("s")
    return float(text[:-1])


@EACH_OF_OURS
def test_a_service_runs_a_command_that_exists_with_options_that_exist(name: str) -> None:
    words = [filled(word, SET) for word in SERVICES[name]["command"]]
    group: Any = typer.main.get_command(app)
    command = group.commands[words[0]]
    command.make_context(words[0], words[1:])  # fails on an unknown option or a value that cannot be


@EACH
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["init"] and "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert name in OURS or service["user"] not in ("root", "0")
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)


@EACH
def test_a_service_is_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@EACH_OF_OURS
def test_nothing_of_ours_begins_before_the_database_is_migrated(name: str) -> None:
    before = {other: how["condition"] for other, how in SERVICES[name]["depends_on"].items()}
    if name == "migrate":
        assert before == {"postgres": "service_healthy"}
    else:
        assert before["migrate"] == "service_completed_successfully"


def test_what_needs_a_device_or_is_an_extra_has_a_profile() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"worker-cpu": ["cpu"], "worker-gpu": ["gpu"], "prometheus": ["monitoring"]}
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_ports_are_open_to_this_machine_only() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"api", "prometheus"}
    for (port,) in ports.values():
        assert filled(port, SET).startswith("127.0.0.1:")


def test_databases_are_on_a_network_that_leads_nowhere() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["inside"]


def test_the_api_reads_what_the_controller_writes() -> None:
    exports = {
        name: volume.get("read_only", False)
        for name, service in SERVICES.items()
        for volume in service.get("volumes", ())
        if isinstance(volume, dict) and volume["target"] == "/exports"
    }
    assert exports == {"api": True, "controller": False}


@EACH
def test_models_and_files_are_mounted_read_only_from_what_is_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        if isinstance(volume, dict):
            assert volume["type"] == "volume" or (volume["target"] == "/models" and volume["read_only"])
            assert volume["type"] == "bind" or volume["source"] in COMPOSE["volumes"]
            continue
        source, _, target = volume.partition(":")
        assert source in COMPOSE["volumes"] or ((ROOT / source).is_file() and target.endswith(":ro"))


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    named = {name for name, *_ in VARIABLE.findall(TEXT)}
    passed = {
        key
        for service in SERVICES.values()
        for mapping in (service.get("environment", {}), service.get("build", {}).get("args", {}))
        for key, value in mapping.items()
        if value is None
    }
    assert named | passed == (set(SET) | OPTIONAL) - {"COMPOSE_PROFILES"}
    assert {name for name, how, _ in VARIABLE.findall(TEXT) if how == "?"} == set(SET) - {"COMPOSE_PROFILES"}
    assert all(how for _, how, _ in VARIABLE.findall(TEXT)), "a variable has neither a default nor a complaint"


def test_no_secret_has_a_default() -> None:
    secrets = {name for name in SET if name.endswith("PASSWORD")}
    assert secrets == {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert {SET[name] for name in secrets} == {EXAMPLE_PASSWORD}
    assert all(how == "?" for name, how, _ in VARIABLE.findall(TEXT) if name in secrets)


@EACH_OF_OURS
@pytest.mark.parametrize("secret", ["POSTGRES_PASSWORD", "REDIS_PASSWORD"])
def test_the_example_password_is_refused_and_ones_own_is_not(
    name: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in environment(name, OWN).items():
        monkeypatch.setenv(key, value)
    assert load_settings().roots == (Path("/models"),)
    for key, value in environment(name, OWN | {secret: EXAMPLE_PASSWORD}).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(InvalidInput, match="example password"):
        load_settings()


@EACH_OF_OURS
def test_every_setting_of_the_service_can_be_set(name: str) -> None:
    given = {key for key in SERVICES[name]["environment"] if key.startswith(PREFIX)}
    assert given == {PREFIX + field.upper() for field in ServiceSettings.model_fields if field != "port"}


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_has_time_to_leave(name: str) -> None:
    drain = ServiceSettings.model_fields["drain_seconds"].default
    assert seconds(filled(SERVICES[name]["stop_grace_period"], SET)) > drain + LEAVE_SECONDS + 10


def test_postgres_refuses_the_example_password_before_it_keeps_it(tmp_path: Path) -> None:
    stub = tmp_path / "docker-entrypoint.sh"
    stub.write_text('#!/bin/sh\necho started "$@"\n')
    stub.chmod(0o755)
    line = [filled(word, SET) for word in (*SERVICES["postgres"]["entrypoint"], *SERVICES["postgres"]["command"])]
    path = f"{tmp_path}:{os.environ['PATH']}"
    for password, code, said in ((EXAMPLE_PASSWORD, 1, ""), ("a1", 0, "started postgres -c max_connections=200\n")):
        told = {"PATH": path, "POSTGRES_PASSWORD": password}
        done = subprocess.run(line, env=told, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, said)


def test_redis_starts_by_its_line_with_password_log_and_no_eviction(tmp_path: Path) -> None:
    need("redis")
    port = free_port()
    line = [filled(word, OWN) for word in SERVICES["redis"]["command"]]
    line[-1] = line[-1].replace("redis-server -", f"redis-server - --port {port} --bind {HOST}")
    told = {"PATH": os.environ["PATH"], "REDIS_PASSWORD": "b2"}
    with subprocess.Popen(line, cwd=tmp_path, env=told, stdout=subprocess.DEVNULL) as server:
        try:
            check = SERVICES["redis"]["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {port}")
            until = time.monotonic() + 30
            while subprocess.run(["sh", "-c", filled(check, OWN)], env=told, check=False).returncode:
                assert time.monotonic() < until and server.poll() is None
                time.sleep(0.05)
            wrong = told | {"REDIS_PASSWORD": "c3"}
            assert subprocess.run(
                ["sh", "-c", filled(check, OWN)], env=wrong, capture_output=True, check=False
            ).returncode
            asked = ["redis-cli", "-p", str(port), "config", "get", "maxmemory-policy", "appendonly"]
            told |= {"REDISCLI_AUTH": "b2"}
            answer = subprocess.run(asked, env=told, capture_output=True, text=True, check=True).stdout.split()
            assert {"noeviction", "yes"} <= set(answer)
            assert "b2" not in Path(f"/proc/{server.pid}/cmdline").read_text()
        finally:
            server.terminate()


def expressions() -> Iterator[str]:
    """The alerts' conditions."""
    for group in yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def test_alerts_ask_for_metrics_that_exist(store: Store) -> None:
    collected = StoreCollector(store, lambda: {}).collect()
    exist = {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in collected}
    asked = {name for expression in expressions() for name in re.findall(r"mergesearch_\w+", expression)}
    assert asked and asked <= exist


def test_prometheus_finds_the_api_and_its_key() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"api:{ServiceSettings.model_fields['port'].default}"]}]
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert secret in COMPOSE["secrets"] and json.dumps(COMPOSE["secrets"]).count("file") == 1
