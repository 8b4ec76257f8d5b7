"""The service's settings, from the environment: every name begins with MERGESEARCH_."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from merging.errors import InvalidInput

PREFIX = "MERGESEARCH_"
_SCHEMES = {  # of what follows a `+`, the driver, SQLAlchemy will tell
    "database_url": (("postgresql", "sqlite"), "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"),
    "redis_url": (("redis", "rediss"), "redis://:PASSWORD@HOST:6379/0"),
}
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
EXAMPLE_PASSWORD = "change-me"  # what stands in .env.example; refused where others could reach it


class ServiceSettings(BaseSettings):
    """What the processes of a service must agree on.

    Attributes:
        database_url: of PostgreSQL.
        redis_url: of Celery's broker.
        roots: folders below which studies may name models and task folders (separated as PATH is).
        judge_hosts: whom studies may name as judges or proposers: `host` or `host:port` (without a port: the scheme's
            own), separated by commas.
        exports: the folder that exports are written to; `serve` and `controller` share it.
        host, port: where `serve` listens.
        max_body_bytes, requests_per_minute: what one request may hold, and how many one key may send.
        submit_wait_seconds: how long a submission waits for its check before it is answered with 202.
        lease_seconds: how long a worker may be silent before its work goes to another.
        controller_lease_seconds: the same for a controller and its studies.
        drain_seconds: how long a worker that is told to leave goes on with what it does.
        metrics_open: whether /metrics needs no key.
        log_format: one JSON object a line, or text.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    database_url: str = Field(min_length=1)
    redis_url: str = "redis://127.0.0.1:6379/0"
    roots: Annotated[tuple[Path, ...], NoDecode] = ()
    judge_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    exports: Path = Path("mergesearch-exports")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    requests_per_minute: Annotated[int, Field(ge=1)] = 600
    submit_wait_seconds: Annotated[float, Field(ge=0)] = 60.0
    lease_seconds: Annotated[float, Field(ge=1)] = 60.0
    controller_lease_seconds: Annotated[float, Field(ge=1)] = 10.0
    drain_seconds: Annotated[float, Field(ge=0)] = 25.0
    metrics_open: bool = False
    log_format: Literal["text", "json"] = "text"

    @field_validator("roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("judge_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        hosts = value.split(",") if isinstance(value, str) else value
        if not isinstance(hosts, list | tuple):
            return value
        found = tuple(str(host).strip().lower() for host in hosts if str(host).strip())
        for host in found:
            # an address or a port that cannot be raises ValueError by itself
            if not _HOST.fullmatch(host) or urlsplit(f"//{host}").port == 0:
                raise ValueError(f"{host!r} is no host or host:port")
        return found

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def load_settings(**values: object) -> ServiceSettings:
    """The settings from the environment; `values` (options of a command) win over it.

    Raises:
        InvalidInput: one is missing or cannot be; the message names the variable.
    """
    given = {key: value for key, value in values.items() if value is not None}
    try:
        settings = ServiceSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + "_".join(map(str, first["loc"][:1])).upper()
        if first["type"] == "missing":
            remedy = "set it, e.g. to postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
            raise InvalidInput(name, None, "is not set", remedy) from error
        raise InvalidInput(name, first["input"], f"cannot be ({first['msg']})", "mend the variable") from error
    _require_urls(settings)
    refuse_examples(settings)
    return settings


def _require_urls(settings: ServiceSettings) -> None:
    """See that URLs are of servers that we know. They hold passwords, so none is shown."""
    for name, (schemes, example) in _SCHEMES.items():
        try:
            scheme = urlsplit(getattr(settings, name)).scheme.partition("+")[0]
        except ValueError:
            scheme = ""
        if scheme not in schemes:
            raise InvalidInput(PREFIX + name.upper(), None, "is no URL of such a server", f"write {example}")


def refuse_examples(settings: ServiceSettings) -> None:
    """See that no password is the one that stands in the example, unless only this machine can reach us.

    Raises:
        InvalidInput: one is.
    """
    if settings.is_loopback:
        return
    for name in ("database_url", "redis_url"):
        if urlsplit(getattr(settings, name)).password == EXAMPLE_PASSWORD:
            raise InvalidInput(
                PREFIX + name.upper(),
                None,
                f"holds the example password while MERGESEARCH_HOST={settings.host} lets others in",
                "set passwords of your own (openssl rand -hex 16)",
            )
