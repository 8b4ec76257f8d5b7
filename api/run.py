"""`mergesearch run`: a study file to verdict and export, with what a person sees of it."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console

from api.conclusion import conclusion
from api.embedded import run_study
from api.kept import setup_lines
from api.output import print_json, screen
from api.places import require_writable
from api.prepared import Fingerprinted, prepare
from api.progress import RunProgress
from api.report import verdict_tables
from api.winner import export_winner, is_own_export
from db.store import Store, find_home, open_home
from evaluation.evaluators.endpoint import require_keys
from evaluation.quiet import quiet_libraries
from evaluation.vllm.installed import require_backend
from merging.errors import InvalidInput, OutputError
from search.strategies.proposer.settings import require_key
from search.study import StudySpec, load_study
from search.verdict import Verdict


def run_file(
    path: Path, to: Path | None, *, export: bool, devices: tuple[str, ...], home: Path, as_json: bool
) -> Verdict:
    """Run the study in a file. See `api.cli.run` for the arguments.

    Raises:
        InvalidInput: something cannot work; nothing was created.
        MergesearchError: as `run_study`.
    """
    console = Console(stderr=True)
    spec = load_study(path)
    require_devices(devices)
    require_backend(spec.evaluation)
    require_keys(spec.evaluation)
    require_key(spec.search.strategy, spec.search.options)
    home = home.absolute()
    place = (to.absolute() if to else home / "exports" / spec.name) if export else None
    require_writable("home", home, "choose another folder with --home")
    store = find_home(home)
    if place is not None:
        _require_free(place, spec, home, store)
    cache = Fingerprinted(store.fingerprints if store else None)
    with _waiting(console, "checking models and tasks"):
        quiet_libraries()
        prepared = prepare(spec, cache)
    for line in setup_lines(prepared.setup):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    store = store or open_home(home)
    cache.save(store.fingerprints)
    progress = RunProgress(store, console)
    with progress.shown():
        workers = devices or default_devices(spec.search.parallel)
        verdict = run_study(prepared, store, home, workers, progress.watcher)
    if place is not None:
        with _waiting(console, "exporting the winner"):
            place = export_winner(store, store.studies.get(spec.name), place)
    _show(verdict, place, as_json=as_json)
    return verdict


def default_devices(parallel: int) -> tuple[str, ...]:
    """A worker on every GPU, at most `parallel`; without a GPU, `parallel` on the CPU."""
    import torch

    count = torch.cuda.device_count()
    return tuple(f"cuda:{i}" for i in range(min(count, parallel))) or ("cpu",) * parallel


def require_devices(names: tuple[str, ...]) -> None:
    """Sees that the devices are there.

    Raises:
        InvalidInput: one is not.
    """
    if not names:
        return
    import torch

    here = ("cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())))
    for name in names:
        if name not in here:
            raise InvalidInput("device", name, "is no device of this machine", f"use {' or '.join(here)}")


def _waiting(console: Console, what: str) -> AbstractContextManager[object]:
    return console.status(what) if console.is_terminal else nullcontext()


def _require_free(place: Path, spec: StudySpec, home: Path, store: Store | None) -> None:
    """Refuse a place that is taken before an hour is spent, unless an export of this very study lies there."""
    if place in (home, *(home / name for name in ("exports", "locks", "logs"))):
        raise OutputError("to", str(place), "is kept for other things", "name a new folder with --to")
    if place.exists():
        study = store.studies.find(spec.name) if store else None
        if store is None or study is None or not is_own_export(store, study, place):
            raise OutputError("to", str(place), "exists", "name a new folder with --to, or remove it")
    require_writable("to", place, "name another folder with --to")


def _show(verdict: Verdict, place: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json(verdict.model_dump(mode="json", by_alias=True) | {"exported_to": str(place) if place else None})
        return
    console = screen()
    console.print(*verdict_tables(verdict), conclusion(verdict), highlight=False)
    if place is not None:
        console.print(f"The winner is in {place}", highlight=False, soft_wrap=True)
