"""A swarm whose daemons and databases are killed at moments that a seed draws, while tasks are submitted to it.

``python -m tests.killing STRIKES SEED…`` holds its claims for each seed, one after the other. A seed draws who is
struck, how, when and for how long; how far the swarm is by then is the machine's affair.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from netsim.cluster.ground import steady_ports
from netsim.cluster.host import kill_postgres
from sel import views
from sel.audit import verify
from sel.views import EventFilter, EventView
from tests.daemons import (
    Daemon,
    contract,
    eventually,
    first_line,
    on_node,
    patience_s,
    place,
    ready_s,
    states,
    submit,
    wattswarm,
)
from tests.swarms import becomes, founded, of_two, runtime
from wattswarm.kernel.refusal import Refused
from wattswarm.node import Node, now_ms
from wattswarm.tasks import waits_for

tasks_count = 50
expiry_ms = 120_000
"""Long enough for every task that can be decided, and soon enough to see the others end."""
trial_s = 200.0
"""How long a trial may take, from the first task to logs that are equal: some more than tasks may."""


# -- a host: a state directory, its daemon and its Postgres ----------------------------------------------------------


@dataclass
class Host:
    """One member's state directory and its daemon. It listens at one address all its life."""

    where: Path
    flags: Sequence[str]
    daemon: Daemon | None = None

    def start(self) -> None:
        """Begin, without waiting for it."""
        self.daemon = Daemon(self.where, *self.flags, wait=False)

    def serves(self) -> None:
        """Wait until the daemon says that it serves. One that found no database at its start is started again."""
        for _ in range(3):
            assert self.daemon is not None
            if first_line(self.daemon.process, ready_s).startswith("ready "):
                return
            assert "error: the database" in self.daemon.said().splitlines()[-1], self.daemon.said()
            self.kill_daemon()
            self.start()
        raise AssertionError(f"it does not become ready: {self.daemon and self.daemon.said()}")

    def kill_daemon(self) -> None:
        """SIGKILL. Its Postgres goes on alone."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon = None


# -- what a seed draws ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strike:
    """After ``pause_s`` the parts of ``victims`` die; whose daemon did begins again after ``away_s``.

    ``again_s``: so long after its beginning it is killed once more, if ever.
    """

    pause_s: float
    victims: tuple[int, ...]
    daemons: bool
    databases: bool
    away_s: float
    again_s: float | None


ways = ((True, False), (False, True), (True, True))
"""What dies: a daemon, its Postgres, or both, as with a host that loses its power."""


def drawn(seed: int, hosts: int, count: int) -> list[Strike]:
    """``count`` strikes, each at one host but for one at two; every way is met."""
    draw = random.Random(seed)
    order = [ways[number % len(ways)] for number in range(count)]
    draw.shuffle(order)
    double = draw.randrange(count)
    return [
        Strike(
            draw.uniform(0, 1),
            tuple(draw.sample(range(hosts), 2 if number == double else 1)),
            *way,
            draw.uniform(0, 2),
            draw.uniform(0, 1.5) if draw.random() < 0.25 else None,
        )
        for number, way in enumerate(order)
    ]


def lots(seed: int, hosts: int, count: int) -> list[tuple[int, list[dict[str, Any]]]]:
    """``count`` lots of tasks, each with the host that it is submitted at. Every fifth task needs one vote only."""
    draw = random.Random(f"tasks of {seed}")
    documents = []
    for number in range(tasks_count):
        document = contract(f"t-{number}") if number % 5 == 0 else of_two(f"t-{number}")
        document["budget"]["time_ms"] = document["budget"]["reuse_verify_time_ms"] = expiry_ms
        document["expiry_ms"] = now_ms() + expiry_ms
        documents.append(document)
    return [(draw.randrange(hosts), documents[number::count]) for number in range(count)]


# -- a trial ----------------------------------------------------------------------------------------------------------


@contextmanager
def hosts_of(size: int) -> Iterator[list[Host]]:
    """A swarm of ``size`` that serves; each knows the others' addresses. Ended by their ids afterwards."""
    with ExitStack() as stack:
        places = [stack.enter_context(place()) for _ in range(size)]
        founded(places)
        url = stack.enter_context(runtime())
        ports = steady_ports(size)
        hosts = []
        for where, port in zip(places, ports, strict=True):
            others = [word for other in ports if other != port for word in ("--bootstrap", f"127.0.0.1:{other}")]
            hosts.append(Host(where, ["--listen", f"127.0.0.1:{port}", *others]))
        stack.callback(_end, hosts)
        for host in hosts:
            host.start()
        for host in hosts:
            host.serves()
            wattswarm(host.where, "executors", "add", "rt", url)
        yield hosts


def _end(hosts: Sequence[Host]) -> None:
    for host in hosts:
        if host.daemon is not None:
            host.kill_daemon()


def strike(hosts: Sequence[Host], blow: Strike) -> None:
    """Kill, begin again what was killed, and wait until it serves: not more than the victims are ever away."""
    time.sleep(blow.pause_s)
    victims = [hosts[number] for number in blow.victims]
    _kill(victims, blow)
    if not blow.daemons:
        return
    time.sleep(blow.away_s)
    for victim in victims:
        victim.start()
    if blow.again_s is not None:
        time.sleep(blow.again_s)
        _kill(victims, blow)
        for victim in victims:
            victim.start()
    for victim in victims:
        victim.serves()


def _kill(victims: Sequence[Host], blow: Strike) -> None:
    for victim in victims:
        if blow.daemons:
            victim.kill_daemon()
        if blow.databases:
            kill_postgres(victim.where)


def trial(hosts: Sequence[Host], seed: int, strikes: int) -> list[Found]:
    """Submit all tasks between strikes; what the logs hold when every task has ended on all, and all hold the same."""
    deadline = time.monotonic() + trial_s
    for blow, (at, documents) in zip(drawn(seed, len(hosts), strikes), lots(seed, len(hosts), strikes), strict=True):
        submit(hosts[at].where, *documents)
        strike(hosts, blow)
    for host in hosts:
        eventually(
            partial(_all_ended, host.where),
            lambda: "\n".join(_told(each) for each in hosts),
            deadline - time.monotonic(),
        )
    logs: list[Found] = []

    def level() -> int:
        logs[:] = [found(host.where) for host in hosts]
        return len({log.totals for log in logs})

    becomes(level, 1, max(patience_s, deadline - time.monotonic()))
    return logs


def _going_on(where: Path) -> set[str]:
    told = states(where)
    return {f"t-{number}" for number in range(tasks_count) if told.get(f"t-{number}", "OPEN") == "OPEN"}


def _all_ended(where: Path) -> bool:
    return not _going_on(where)


def _told(host: Host) -> str:
    """What a host's open tasks wait for, and what it says of itself."""
    open_ones = sorted(_going_on(host.where))

    async def work(node: Node) -> list[str]:
        found = []
        for label in open_ones:
            with suppress(Refused):  # it is not here
                record = await node.log.task(await node.log.resolve(label))
                found.append(f"{label} {waits_for(record, now_ms())}")
        return found

    waiting = on_node(host.where, work)
    said = (host.where / "node_state.json").read_text()
    return f"{host.where} lacks {open_ones}: {waiting}\n{said}\n{host.daemon.said()[-2000:] if host.daemon else ''}"


# -- what is found afterwards -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What one log says: totals, states of tasks, every event with its verdict, forks, what ``log verify`` blames."""

    totals: tuple[int, int, int, int]
    states: dict[str, str]
    events: Sequence[EventView]
    forks: Sequence[Any]
    problems: Sequence[str]


async def _find(node: Node) -> Found:
    head = await node.log.head()
    events: list[EventView] = []
    while True:
        after = events[-1].seq if events else 0
        page = await views.events(node.database, node.log.network.network_id, EventFilter(after_seq=after))
        events += page
        if len(page) < views.page_rows:
            break
    report = await verify(node.database, node.genesis_network, lambda _: None)
    return Found(
        (head.events, head.events_sum, head.certificates_sum, head.state_root),
        {view.task_id: view.state for view in await views.tasks(node.database)},
        events,
        await views.forks(node.database),
        [problem.what for problem in report.problems],
    )


def found(where: Path) -> Found:
    """What the log of a state directory says, checked whole."""
    return on_node(where, _find)


Votes = dict[tuple[str, int], dict[str, set[str]]]


def finality_votes(logs: Sequence[Found]) -> Votes:
    """(task label, epoch) -> author -> the candidates it voted for, over all logs, whatever the verdict."""
    votes: Votes = {}
    for event in (event for log in logs for event in log.events if event.kind == "FINALITY_VOTE"):
        of_task = votes.setdefault((str(event.task_id), event.epoch), {})
        of_task.setdefault(event.author, set()).add(event.payload["candidate_hash"])
    return votes


def faults(hosts: Sequence[Host], logs: Sequence[Found]) -> list[str]:
    """What is not as it should be, in sentences: the claims of the trial."""
    said = [f"a log has forks: {log.forks}" for log in logs if log.forks]
    said += [f"a log does not hold: {log.problems}" for log in logs if log.problems]
    for (label, epoch), authors in finality_votes(logs).items():
        twice = [author for author, candidates in authors.items() if len(candidates) > 1]
        said += [f"{author[:8]} voted twice for the finality of {label}, epoch {epoch}" for author in twice]
    said += [f"{label} is {state}" for label, state in logs[0].states.items() if not _ended_well(label, state, logs)]
    said += [f"the daemon in {host.where} is gone" for host in hosts if not _lives(host)]
    said += [
        f"a daemon met a bug: {host.daemon.said()}"
        for host in hosts
        if host.daemon and "Traceback" in host.daemon.said()
    ]
    return said


def _ended_well(label: str, state: str, logs: Sequence[Found]) -> bool:
    """Final; or expired because finality votes are split: a claim that was hidden by a kill came out too late."""
    votes = finality_votes(logs).get((label, 1), {})
    split = len({candidate for candidates in votes.values() for candidate in candidates}) > 1
    return state == "FINALIZED" or (state == "EXPIRED" and split)


def _lives(host: Host) -> bool:
    return host.daemon is not None and host.daemon.process.poll() is None


def main() -> None:
    """Trials by hand, a line each; exit code 1 if one found a fault."""
    strikes, *seeds = map(int, sys.argv[1:])
    bad = 0
    for seed in seeds:
        began = time.monotonic()
        with hosts_of(4) as hosts:
            logs = trial(hosts, seed, strikes)
            wrong = faults(hosts, logs)
        claims = [event.verdict for event in logs[0].events if event.kind == "TASK_CLAIMED"]
        expired = sum(state == "EXPIRED" for state in logs[0].states.values())
        print(
            f"seed {seed}: {time.monotonic() - began:.0f} s, {len(logs[0].events)} events, {expired} expired, "
            f"{claims.count('refused')} of {len(claims)} claims collided; {'; '.join(wrong) or 'all holds'}",
            flush=True,
        )
        bad += bool(wrong)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
