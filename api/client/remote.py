"""A service as the command line uses it."""

import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from api.client import download, events
from api.client.problems import error_of_problem
from api.client.wire import Wire
from api.forms import Form
from merging.errors import InvalidInput, NotFound

Change = Literal["pause", "resume", "cancel"]
Found = dict[str, Any]  # what the service says of a thing; `api/rest/views.py` has the keys
KEY = "MERGESEARCH_KEY"
PATIENCE_SECONDS = 300.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUBMIT_SECONDS = 300.0  # the service answers sooner, with 202 if need be
_PAGE = 100
_FIRST_LOOK, _LONGEST_LOOK = 0.1, 3.0


class Remote:
    """One service. A context manager, which closes its connections.

    Whatever it refuses is raised: InvalidInput, NotFound, Conflict as the embedded commands do, and ServiceError
    where the service is away, fails, or does not accept the key.

    Args:
        server: its URL.
        key: an API key.
        patience: seconds that the service may be away while something is waited for, followed or downloaded.
    """

    def __init__(self, server: str, key: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self._wire = Wire(server, key, patience)

    def __enter__(self) -> "Remote":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._wire.close()

    def submit(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Found:
        """Submit a study and wait until it was checked in full; the study.

        Args:
            spec: the study file's content.
            idempotency_key: names the request, which is done once however often it is sent; None: a new name.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        try:
            found = self._wire.ask("POST", "/studies", content=dict(spec), headers=headers, seconds=_SUBMIT_SECONDS)
        except ValueError as error:  # JSON has no infinity
            raise InvalidInput("study", None, f"cannot be sent ({error})", "write plain numbers") from error
        if "spec" in found:
            return cast(Found, found)
        done = self._settled(f"/submissions/{found['id']}", found)
        return self.study(done["study"])

    def study(self, name: str) -> Found:
        """A study, with what is being done for it now."""
        return cast(Found, self._wire.ask("GET", _path(name)))

    def studies(self) -> list[Found]:
        """Every study in short, oldest first."""
        return list(self._all("/studies"))

    def trials(self, name: str) -> list[Found]:
        """A study's trials in short, by number."""
        return list(self._all(f"{_path(name)}/trials"))

    def trial(self, name: str, number: int) -> Found:
        """A trial with its recipe and scores."""
        return cast(Found, self._wire.ask("GET", f"{_path(name)}/trials/{number}"))

    def best(self, name: str) -> Found:
        """The best trial of a study that has a complete one; of several objectives with their front."""
        return cast(Found, self._wire.ask("GET", f"{_path(name)}/best"))

    def verdict(self, name: str) -> Found:
        """The verdict on a finished study."""
        return cast(Found, self._wire.ask("GET", f"{_path(name)}/verdict"))

    def change(self, name: str, what: Change) -> Found:
        """Pause, resume or cancel a study; the study then."""
        return cast(Found, self._wire.ask("POST", f"{_path(name)}/{what}"))

    def events(self, name: str, after: int = 0, *, progress: bool = False) -> Iterator[events.StudyEvent]:
        """What happened in a study after event number `after` and what happens, until it is over.

        Args:
            progress: whether to be told also how far running evaluations are.
        """
        return events.follow(self._wire, _path(name), after, progress=progress)

    def export(
        self,
        name: str,
        trial: int | None,
        to: Path,
        tell: download.Tell = lambda file, have: None,
        form: Form | None = None,
    ) -> tuple[Found, tuple[download.RemoteFile, ...]]:
        """Have a trial written, and download that to the new folder `to`.

        Args:
            trial: its number; None: the winner.
            tell: is told how far the download is.
            form: what it is written as; by default a full checkpoint.

        Returns:
            The export and its files.

        Raises:
            OutputError: the folder exists or cannot be written. Nothing is left behind, whatever is raised.
        """
        download.require_place(to)
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        wanted: dict[str, Any] = {} if trial is None else {"trial": trial}
        if form is not None and form != Form():  # of which services of earlier versions know nothing
            wanted |= {"as": form.name, "settings": dict(form.settings)}
        found = self._wire.ask("POST", f"{_path(name)}/exports", content=wanted, headers=headers)
        done = self._settled(f"/exports/{found['id']}", found)
        files = download.listed(done)
        download.download(self._wire, files, to, tell)
        return done, files

    def _settled(self, path: str, job: Found) -> Found:
        """The submission or export once it is over.

        Raises:
            MergesearchError: it failed.
        """
        look = _FIRST_LOOK
        while job["state"] not in ("done", "failed"):
            time.sleep(look)
            look = min(2 * look, _LONGEST_LOOK)
            job = self._wire.ask_patiently(path)
        if job["state"] == "failed":
            raise error_of_problem(job["problem"] or {})
        return job

    def _all(self, path: str) -> Iterator[Found]:
        """A list's items, part after part."""
        cursor = None
        while True:
            params = {"limit": _PAGE} | ({"cursor": cursor} if cursor else {})
            part = self._wire.ask("GET", path, params=params)
            yield from part["items"]
            cursor = part["next"]
            if not cursor:
                return


def connect(server: str) -> Remote:
    """The service at that URL, with the key from the environment: options are seen by everybody on a machine.

    Raises:
        InvalidInput: the URL or the key cannot be one.
    """
    return Remote(server, os.environ.get(KEY, ""))


def _path(name: str) -> str:
    """Raises NotFound if no study can have that name: it might name another path."""
    if not _NAME.fullmatch(name):
        raise NotFound(f"no study is named {name!r}; `mergesearch status` lists them")
    return f"/studies/{name}"
