"""HTTP to one service: the key on every request, refusals as errors, and patience where waiting helps."""

import ipaddress
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from api.client.problems import ServiceError, error_of, not_ours, unreachable
from merging.errors import InvalidInput, MergesearchError

Result = TypeVar("Result")
_MOST_WAITS, _LONGEST_WAIT = 5, 60.0  # for a service that says it is asked too often
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)


class Patience:
    """How long in all a service may be away before we give up; a sign of life renews it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """The service is well again."""
        self._since: float | None = None
        self._pause = _FIRST_PAUSE

    def bear(self, error: ServiceError) -> None:
        """Wait a little, longer each time.

        Raises:
            ServiceError: the one given, if waiting does not cure it or has lasted too long.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        pause = max(self._pause, error.wait or 0.0)
        if not error.passing or now + pause - self._since > self._seconds:
            raise error
        time.sleep(pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


class Wire:
    """A service.

    Args:
        server: its URL, without `/v1`.
        key: an API key.
        patience: seconds that it may be away while something is waited for.

    Raises:
        InvalidInput: the URL or the key cannot be one.
    """

    def __init__(self, server: str, key: str, patience: float) -> None:
        self.server, host = _server(server)
        self._patience = patience
        self._http = httpx.Client(
            base_url=f"{self.server}/v1",
            headers={"Authorization": f"Bearer {_key(key)}", "User-Agent": "mergesearch"},
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=not _is_loopback(host),  # what is on this machine is not asked for through a proxy
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def patience(self) -> Patience:
        """New patience with this service."""
        return Patience(self._patience)

    def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = _ANSWER_SECONDS,
    ) -> Any:
        """The JSON that the service answers. May be sent twice: only for requests that this does not hurt.

        Raises:
            MergesearchError: it refuses or does not answer.
        """
        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        request = self._http.build_request(
            method, path, params=params, json=content, headers=dict(headers or {}), timeout=timeout
        )
        waits, is_second = 0, False
        while True:
            try:
                with self._translated():
                    response = self._http.send(request)
                return self._content(response)
            except ServiceError as error:
                if isinstance(error.__cause__, _LOST) and not is_second:
                    is_second = True  # a kept connection that the service has closed just now
                elif error.status == 429 and waits < _MOST_WAITS and (error.wait or 0.0) <= _LONGEST_WAIT:
                    waits += 1
                    time.sleep(error.wait or 1.0)
                else:
                    raise

    def ask_patiently(self, path: str) -> Any:
        """GET, again and again while the service is away, as long as patience lasts."""
        return self.patiently(lambda: self.ask("GET", path))

    def patiently(self, call: Callable[[], Result]) -> Result:
        """What `call` gives, called again while that may help."""
        patience = self.patience()
        while True:
            try:
                return call()
            except ServiceError as error:
                patience.bear(error)

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, headers: Mapping[str, str], silence: float
    ) -> Iterator[httpx.Response]:
        """An answer that is read while it comes.

        Args:
            silence: seconds without a byte after which the connection counts as broken.

        Raises:
            MergesearchError: the service refuses, or the connection breaks inside the block.
        """
        timeout = httpx.Timeout(silence, connect=_CONNECT_SECONDS)
        with (
            self._translated(),
            self._http.stream("GET", path, params=params, headers=dict(headers), timeout=timeout) as response,
        ):
            if response.status_code >= 300:
                raise self._refusal(response, response.read())
            yield response

    def _content(self, response: httpx.Response) -> Any:
        if response.status_code >= 300:
            raise self._refusal(response, response.content)
        try:
            return response.json()
        except ValueError as error:
            raise not_ours(self.server, response.status_code) from error

    def _refusal(self, response: httpx.Response, body: bytes) -> MergesearchError:
        return error_of(self.server, response.status_code, response.headers, body)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            refused = "refused" in str(error).lower()  # the plain case needs no more words
            raise unreachable(self.server, "" if refused else str(error)) from error
        except httpx.TimeoutException as error:
            said = f"the service at {self.server} does not answer in time; try again, or look at its log"
            raise ServiceError(said, passing=True) from error
        except httpx.HTTPError as error:
            said = f"the connection to {self.server} broke ({error}); try again"
            raise ServiceError(said, passing=True) from error


def _server(given: str) -> tuple[str, str]:
    """The URL as we use it, and its host.

    Raises:
        InvalidInput: it is none.
    """
    url = given.strip().rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.port is None or parts.port > 0 else None
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        host = None
    if host is None or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise InvalidInput("server", given, "is no URL of a service", "write it like http://127.0.0.1:8000")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("server", None, "holds a user or password", "put the API key into MERGESEARCH_KEY instead")
    return url, host


def _key(given: str) -> str:
    key = given.strip()
    if not key:
        remedy = "set it to an API key; `mergesearch keys create` on the server makes one"
        raise InvalidInput("MERGESEARCH_KEY", None, "is not set", remedy)
    if not re.fullmatch(r"[!-~]+", key):
        raise InvalidInput("MERGESEARCH_KEY", None, "is no API key", "set it to one; they look like ms_1a2b3c4d_…")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
