"""Swarms of daemons for tests: one network over several state directories, a process each, and what they hold.

What a test does to them (kill, cut, flood) is the test's; here is how a swarm comes to be and how its nodes compare.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.daemons import (
    Daemon,
    clean_environment,
    contract,
    first_line,
    on_node,
    patience_s,
    place,
    stop_all,
    wattswarm,
)
from tests.sizes import root
from wattswarm.home import open_home
from wattswarm.local_swarm import found
from wattswarm.node import Node, now_ms
from wattswarm.runtime.executors import Executors, checked


def founded(places: Sequence[Path]) -> bytes:
    """One network of a node in each place, all of them with every role; its id."""
    return found(places, "swarm")[0].genesis.network_id


@contextmanager
def runtime(*flags: str, within: Sequence[str] = ()) -> Iterator[str]:
    """The reference runtime as a process; its URL. ``within``: words before its command."""
    words = ["--listen", "127.0.0.1:0", "--task-types", "swarm", *flags]
    process = subprocess.Popen(
        [*within, sys.executable, "-m", "wattswarm.runtime.reference", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**clean_environment, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    try:
        yield first_line(process, patience_s).split()[-1]
    finally:
        process.kill()
        process.communicate(timeout=patience_s)


def register(places: Sequence[Path], url: str) -> None:
    """Have each node know the runtime as ``rt``."""
    executor = trio.run(checked, "rt", url)
    for where in places:
        Executors(where).put(executor)


def free_udp_port() -> int:
    """A UDP port that nobody listens at now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def becomes(what: Callable[[], Any], wanted: Any, within_s: float = patience_s) -> None:
    """Ask until the answer is the wanted one."""
    deadline = time.monotonic() + within_s
    while (found := what()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} is not {wanted!r}"
        time.sleep(0.05)


def node_id_of(where: Path) -> str:
    """The node id of a state directory."""
    return open_home(where, now_ms()).keys.node_id.hex()


def peers_of(where: Path) -> set[str]:
    """Ids of the nodes that a running daemon is connected to."""
    said = json.loads((where / "node_state.json").read_bytes())
    return {peer["node_id"] for peer in said["peers"]}


def meshed(places: Sequence[Path], within_s: float = patience_s) -> None:
    """Wait until each is connected to all others."""
    ids = {where: node_id_of(where) for where in places}
    for where in places:
        others = set(ids.values()) - {ids[where]}
        becomes(partial(peers_of, where), others, within_s)


def totals(where: Path) -> tuple[Any, ...]:
    """(events, fingerprint, state root): equal on nodes that hold the same."""
    head = wattswarm(where, "log", "head")
    return head["events"], head["fingerprint"], head["state_root"]


def standing(where: Path) -> tuple[int, int, int]:
    """(events, their sum, state root), read beside the daemon: as ``totals``, for those who ask often."""

    async def work(node: Node) -> tuple[int, int, int]:
        head = await node.log.head()
        return head.events, head.events_sum, head.state_root

    return on_node(where, work)


def state_of(where: Path, task: str) -> str:
    """A task's state as a node tells it."""
    return str(wattswarm(where, "task", "watch", task, "--once")["state"])


def of_two(label: str) -> dict[str, Any]:
    """A contract with quorum 2 and evidence confirmed by 2."""
    document = contract(label)
    document["acceptance"] |= {"quorum_threshold": 2, "da_quorum_threshold": 2}
    document["assignment"]["verify"]["max_verifiers"] = 2
    document["assignment"]["claim"]["max_concurrency"]["verify"] = 2
    return document


@dataclass
class Swarm:
    """Places and their daemons, in the same order."""

    places: list[Path]
    daemons: list[Daemon]
    network: bytes

    def listens(self, number: int) -> str:
        """Where a daemon can be dialled from this host."""
        return f"127.0.0.1:{self.daemons[number].ready.rsplit(':', 1)[1]}"


@contextmanager
def open_swarm(
    size: int = 4, *, udp: bool = False, executors: bool = True, flags: Sequence[str] = ()
) -> Iterator[Swarm]:
    """A swarm of ``size`` members that has begun; ``udp``: found by multicast alone, else by the first's address alone.

    With ``udp`` the environment must name a port of its own (WATTSWARM_UDP_ANNOUNCE_PORT).
    """
    with ExitStack() as stack:
        places = [stack.enter_context(place()) for _ in range(size)]
        network = founded(places)
        if executors:
            register(places, stack.enter_context(runtime()))
        ways = ["--udp"] if udp else ["--listen", "127.0.0.1:0"]
        daemons: list[Daemon] = []
        stack.callback(stop_all, daemons)
        for where in places:
            daemons.append(Daemon(where, *ways, *flags, wait=False))
            if not udp and where is places[0]:
                ways = ["--listen", "127.0.0.1:0", "--bootstrap", daemons[0].begun().rsplit("=", 1)[1]]
        for each in daemons[0 if udp else 1 :]:
            each.begun()
        yield Swarm(places, daemons, network)
