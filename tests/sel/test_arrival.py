"""Orders of arrival that once led to different states."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.swarm import Swarm, certificate
from sel.ingest import Knowledge, take_in
from sel.memory import MemoryStore
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.work import TaskClaimed

Step = tuple[Sequence[Event], Sequence[Certificate]]


async def root_after(network: Network, now_ms: int, steps: Sequence[Step]) -> int:
    store, knowledge = MemoryStore(), Knowledge(network)
    for events, certificates in steps:
        await store.transact(lambda txn, e=events, c=certificates: take_in(txn, knowledge, e, c, now_ms))  # type: ignore[misc]
    return store.head.state_root


@pytest.mark.parametrize("late", ["creation", "claim", "certificate"])
async def test_a_claim_before_its_creation_is_refused_though_a_certificate_pinned_the_task_first(late: str) -> None:
    swarm = Swarm()
    events = swarm.task(0)
    end = swarm.now_ms
    swarm.now_ms = events[0].created_at - 100
    stranger = swarm.keys[9]
    claim = swarm.say(stranger, TaskClaimed("propose", "x-early", swarm.now_ms + 1_000), events[0].id)
    network = Network.of(swarm.genesis)
    parts: dict[str, Step] = {
        "certificate": ((), [certificate(events)]),
        "claim": ([claim], ()),
        "creation": (events[:1], ()),
    }
    steps = [part for name, part in parts.items() if name != late] + [parts[late]]
    together = [([*events[:1], claim], [certificate(events)])]
    assert await root_after(network, end, steps) == await root_after(network, end, together)
