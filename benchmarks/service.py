"""What the service itself costs: trials that take no time through PostgreSQL, Redis, Celery and the controller.

    python -m benchmarks.service [--trials 1000] [--workers 1 2 4] [--rest 30]

Workers are real (`mergesearch worker --rehearsal`) and score by a formula. CPU is that of the whole run; the
controller's contains its clerks, which load torch before the clock starts.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from db.records import DocumentSet, Study
from db.store import Store, connect_store
from evaluation.result import Part
from search.searchspec import StrategyName
from search.space import make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal
from search.strategies.opening import Opening
from search.study import StudySpec, parse_study
from tests.server import wait_until
from tests.services import Postgres, Redis

SCRIPT = Path(sys.executable).parent / "mergesearch"
TICKS = os.sysconf("SC_CLK_TCK")
DOCUMENTS = 256
ASK_EXPERTS, ASK_LAYERS = 4, 32  # 128 parameters
TIMED = 20  # proposals
WARM_SECONDS = 20.0  # an idle clerk loads torch ten seconds after it began, once
console = Console(width=120)


def spec_of(name: str, strategy: str, trials: int, parallel: int, experts: int = 3, layers: int = 1) -> StudySpec:
    """A study of a formula."""
    return parse_study(
        {
            "schema": "mergesearch/study/v1",
            "name": name,
            "models": {"base": "base", "experts": [f"experts/e{i}" for i in range(experts)]},
            "space": {"methods": ["task_arithmetic"], "layers": layers},
            "search": {"strategy": strategy, "trials": trials, "parallel": parallel},
            "evaluation": {"tasks": [{"name": "t"}]},
        }
    )


def create(store: Store, spec: StudySpec, layers: int) -> Study:
    """The study's row, with the documents of one task."""
    prints = {"base": "f"} | {f"expert:{e.name}": f"f-{e.name}" for e in spec.models.experts}
    parts: dict[tuple[str, Part], DocumentSet] = {
        ("t", "search"): DocumentSet.whole(range(DOCUMENTS)),
        ("t", "holdout"): DocumentSet.whole(range(DOCUMENTS, 2 * DOCUMENTS)),
    }
    setup = {"fingerprints": prints, "layer_count": layers}
    return store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, parts)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its descendants that still run."""
    pids, found = {pid}, 0.0
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            stats[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS)
    grown = True
    while grown:
        more = {child for child, (parent, _) in stats.items() if parent in pids} - pids
        pids |= more
        grown = bool(more)
    for each in pids & set(stats):
        found += stats[each][1]
    return found


@contextmanager
def running(*arguments: str, url: str, broker: str) -> Iterator[int]:
    """A process of the service; its id."""
    variables = {"MERGESEARCH_DATABASE_URL": url, "MERGESEARCH_REDIS_URL": broker, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [SCRIPT, *arguments], env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def measure(workers: int, trials: int, rest: float, postgres: Postgres, redis: Redis) -> tuple[str, ...]:
    """One run; the row of the table."""
    url = postgres.database()
    subprocess.run([SCRIPT, "migrate"], env=os.environ | {"MERGESEARCH_DATABASE_URL": url}, check=True)
    store = connect_store(url)
    with ExitStack() as stack:
        controller = stack.enter_context(running("controller", url=url, broker=redis.url))
        scoring = [
            stack.enter_context(running("worker", "--rehearsal", url=url, broker=redis.url)) for _ in range(workers)
        ]
        wait_until(lambda: len(store.processes.alive("clerk")) == 2, "clerks", 120)
        wait_until(lambda: len(store.processes.alive("worker")) == workers, "workers", 120)
        time.sleep(WARM_SECONDS)
        before = cpu_seconds(controller)
        time.sleep(rest)  # nothing to do: that is what is measured
        resting = (cpu_seconds(controller) - before) / rest if rest else 0.0
        spec = spec_of("speed", "random", trials, 4 * workers)
        processes = {"controller": [controller], "workers": scoring, "postgres": [postgres.pid], "redis": [redis.pid]}
        cpu = {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}
        began = time.perf_counter()
        study = create(store, spec, layers=1)
        wait_until(lambda: store.studies.counts(study.id).get("complete", 0) >= trials, "trials", 1800)
        wall = time.perf_counter() - began
        spent = {name: sum(map(cpu_seconds, pids)) - cpu[name] for name, pids in processes.items()}
    store.close()
    each = [f"{1000 * seconds / trials:.1f}" for seconds in spent.values()]
    return str(workers), f"{trials / wall:.1f}", f"{1000 * wall / trials:.1f}", *each, f"{100 * resting:.2f} %"


def ask(strategy: StrategyName, told: int) -> tuple[str, ...]:
    """CPU time of a proposal after that many trials in a space of 128 parameters."""
    spec = spec_of("ask", strategy, told + 100, 1, ASK_EXPERTS, ASK_LAYERS)
    space = make_space(spec, ASK_LAYERS)
    begin = starts(space)
    found = make_strategy(strategy, Opening(space, 0, begin))
    for number, start in enumerate(begin):
        found.reserve(number, Proposal(start.params, start.recipe))
        found.observe(Observation(number, start.origin, start.params, start.recipe, -1.0))
    times = []
    for number in range(len(begin), told + TIMED):
        began = time.process_time()
        proposal = found.propose(number)
        times.append(time.process_time() - began)
        assert isinstance(proposal, Proposal), "one trial at a time is never waited for"
        value = -sum((v - 0.5) ** 2 for v in (proposal.params or {}).values() if isinstance(v, float))
        found.observe(Observation(number, strategy, proposal.params, proposal.recipe, value))
    times = sorted(times[-TIMED:])
    return strategy, str(told), f"{1000 * times[len(times) // 2]:.0f}", f"{1000 * times[-1]:.0f}"


def show(title: str, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rest", type=float, default=30.0, help="seconds for which the idle controller is watched")
    parser.add_argument("--asked", type=int, default=1000, help="trials told before a proposal is timed; 0: none is")
    chosen = parser.parse_args()
    if chosen.workers:
        with Postgres() as postgres, Redis() as redis:
            rows = [measure(n, chosen.trials, chosen.rest, postgres, redis) for n in chosen.workers]
        columns = [
            "workers",
            "trials/s",
            "wall ms/trial",
            *(f"{n} CPU ms" for n in ("controller", "workers", "postgres", "redis")),
        ]
        show(f"{chosen.trials} trials that take no time", [*columns, "controller at rest"], rows)
    if chosen.asked:
        asked: tuple[StrategyName, ...] = ("random", "tpe", "cmaes")
        rows = [ask(strategy, chosen.asked) for strategy in asked]
        columns = ["strategy", "trials told", "median CPU ms", f"slowest of {TIMED}"]
        show(f"a proposal of {ASK_EXPERTS * ASK_LAYERS} parameters", columns, rows)


if __name__ == "__main__":
    main()
