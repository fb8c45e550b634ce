"""Two daemons that know each other by a wire only that breaks every two seconds: they end equal all the same."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.daemons import contract, daemon, on_node, place, submit
from tests.net.relay import here, relay
from tests.swarms import becomes, founded, standing
from wattswarm import tasks
from wattswarm.node import Node

bytes_per_second = 100_000
seconds = 2.0
tasks_before, rounds, tasks_a_round = 300, 6, 10
patience_s = 120.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((here, 0))
        return int(sock.getsockname()[1])


def labels(name: str, count: int) -> list[str]:
    return [f"{name}-{number}" for number in range(count)]


def submitted_bytes(where: Path, documents: Iterable[dict[str, Any]]) -> int:
    """Submit tasks; the bytes of their events."""

    async def work(node: Node) -> int:
        return sum([len((await tasks.submit(node.log, document))[0].body) for document in documents])

    return on_node(where, work)


def test_a_wire_that_is_cut_in_mid_frame_every_two_seconds_loses_nothing_and_each_connection_gets_on() -> None:
    """No connection carries as much as there is to carry, so what is equal in the end came in parts."""
    with ExitStack() as stack:
        ada, ben = (stack.enter_context(place()) for _ in range(2))
        founded([ada, ben])
        size = submitted_bytes(ada, map(contract, labels("before", tasks_before)))
        ports = free_port(), free_port()
        wires = [stack.enter_context(relay(port, bytes_per_second, seconds, seed)) for seed, port in enumerate(ports)]
        for where, port, wire, known in ((ada, ports[0], wires[0], ()), (ben, ports[1], wires[1], (wires[0],))):
            flags = ["--listen", f"{here}:{port}", "--advertise", f"{here}:{wire.port}"]
            flags += [word for other in known for word in ("--bootstrap", f"{here}:{other.port}")]
            stack.enter_context(daemon(where, *flags))
        for number in range(rounds):
            submit(ada, *map(contract, labels(f"ada-{number}", tasks_a_round)))
            submit(ben, *map(contract, labels(f"ben-{number}", tasks_a_round)))
        becomes(lambda: standing(ada) == standing(ben), True, patience_s)
        assert standing(ada)[0] == tasks_before + 2 * rounds * tasks_a_round
    print(size, carried := [count for wire in wires for count in wire.carried])
    assert len(carried) >= 3
    assert max(carried) < size
