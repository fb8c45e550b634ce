"""Many seeds of a scenario, on several processes: which failed, and how to see each again (docs/netsim.md §2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

import msgspec

from netsim.scenario import Scenario
from netsim.world import Outcome, World
from wattswarm.kernel.refusal import Problem, Refused

jobs_max = 64


def run_one(scenario: Scenario, seed: int) -> Outcome:
    """One seed, in this process."""
    return World(scenario, seed).run()


@contextmanager
def workers(jobs: int) -> Iterator[Executor | None]:
    """Processes for as many runs at a time; None for one, which is this process."""
    assert 1 <= jobs <= jobs_max
    if jobs == 1:
        yield None
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def sweep(scenario: Scenario, seeds: Iterable[int], pool: Executor | None) -> Iterator[Outcome]:
    """Every seed's outcome, as they come. A pool begins with them when it has done what it was given before."""
    if pool is None:
        return (run_one(scenario, seed) for seed in seeds)
    futures = [pool.submit(run_one, scenario, seed) for seed in seeds]
    return (future.result() for future in as_completed(futures))


def again(name: str, seed: int, nodes: int | None = None) -> str:
    """The command that shows a run again."""
    return f"wattswarm-netsim run {name} --seed {seed}" + (f" --nodes {nodes}" if nodes else "")


def is_cluster(outcome: Outcome) -> bool:
    """Whether it is of real daemons (netsim/cluster)."""
    return bool(outcome.figures.get("cluster"))


def seeds_of(text: str) -> range:
    """``A..B``, both ends counted, or one number. Raises ``Refused``."""
    first, dots, last = text.partition("..")
    with suppress(ValueError):
        found = range(int(first), int(last if dots else first) + 1)
        if found and found.start >= 0:
            return found
    raise Refused("seeds", "these are no seeds", (Problem("seeds", text, "A..B with 0 ≤ A ≤ B, or one number"),))


class Recorded(msgspec.Struct, frozen=True):
    """A run as a file: what made it, what became of it, and the command that makes it again."""

    scenario: Scenario
    outcome: Outcome
    again: str = ""


def record(scenario: Scenario, outcome: Outcome, path: Path, again: str = "") -> None:
    """Write a run down."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(Recorded(scenario, outcome, again))))


def read_record(path: Path) -> Recorded:
    """A run that was written down. Raises ``Refused``."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Recorded)
    except FileNotFoundError:
        raise Refused("record", f"{path} is no recorded run: there is no such file") from None
    except (OSError, msgspec.DecodeError) as error:
        raise Refused("record", f"{path} is no recorded run: {error}") from None
