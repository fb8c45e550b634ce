"""Sixteen nodes in one process: how often an event comes to a node, and how long until the last one has it.

Each node is a machine and a driver of its own behind a real TLS WebSocket listener, and dials the others as a daemon
does; its log is the product's own, over the store in memory: sixteen servers of Postgres would be what is measured.
All author in turn, fifty events a second together. The clock runs from the call that authors an event to the moment
when the last of the others has stored it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.figure import Figure
from bench.latency import percentile
from bench.peer import Outside
from net.io.driver import Driver, open_driver
from net.io.ports import Intake
from net.io.tls import server_context
from net.io.websocket import listen
from net.proto.handshake import Me
from net.proto.items import Items
from net.proto.machine import Ways
from net.proto.message import Wire
from net.proto.values import Appended, CertificatesOf, EventsOf, Lacking, Question, Span, Stock
from sel.log import Log, open_log
from sel.memory import MemoryGuard, MemoryStore
from sel.signatures import bad_signatures
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft, Event, parse
from wattswarm.kernel.genesis import Genesis, make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.node import now_ms
from wattswarm.shared_log import fate_of, known_of, standing_of

node_count = int(os.environ.get("WATTSWARM_BENCH_GOSSIP_NODES", "16"))
events_a_second = 50.0
seconds = float(os.environ.get("WATTSWARM_BENCH_GOSSIP_S", "20"))
warm_up_events = 100
patience_s = 120.0
copies_goal = 2.0
last_ms_goal = 250.0
everything = frozenset({"proposer", "verifier", "committer", "finalizer"})


class MemoryPort:
    """A log in memory as the network sees it: what ``wattswarm.shared_log`` is over Postgres. No forks here."""

    def __init__(self, log: Log, store: MemoryStore) -> None:
        self.log, self.store = log, store
        self.told = self.stamped = 0
        self.stored_s: dict[bytes, float] = {}
        self.send, self.receive = trio.open_memory_channel[str](1)

    def notify(self) -> None:
        """Something was authored."""
        with suppress(trio.WouldBlock):
            self.send.send_nowait("")

    def heads(self, events: Sequence[Event]) -> dict[bytes, tuple[int, bytes] | None]:
        return {event.author: (event.author_seq, event.id) for event in events}

    async def stock(self) -> Stock:
        return Stock(Items(), [], [], {}, standing_of(self.store.head))

    async def news(self) -> Sequence[Appended]:
        events = self.store.events[self.told :]
        self.told += len(events)
        me, standing = self.log.keys.node_id, standing_of(self.store.head)
        parts = [(own, [event for event in events if (event.author == me) is own]) for own in (True, False)]
        return [
            Appended(list(map(known_of, some)), (), (), (), self.heads(some), standing, own=own)
            for own, some in parts
            if some
        ]

    @asynccontextmanager
    async def notices(self) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
        yield self.receive

    async def intake(self, events: Sequence[Wire], certificates: Sequence[bytes], *, asked: bool) -> Intake:
        parsed = [parse(body, signature, self.log.network.network_id) for body, signature in events]
        assert not await bad_signatures(parsed), "everybody here is honest"
        taken = await self.log.ingest(parsed)
        stored_s = time.perf_counter()
        for event in self.store.events[self.stamped :]:  # those that waited for one of these, too
            if event.author != self.log.keys.node_id:
                self.stored_s[event.id] = stored_s
        self.stamped = len(self.store.events)
        return Intake([fate_of(event, taken.outcomes[event.id]) for event in parsed], 0, 0)

    async def answer(self, question: Question) -> object:
        store = self.store
        match question:
            case Lacking(ids):
                return [one for one in ids if one not in store.number]
            case EventsOf(ids):
                found = [store.event(one) for one in ids]
            case Span(author, first, last, most):
                places = ((author, seq) for seq in range(first, min(last + 1, first + most)))
                found = [store.event(store.places[place]) for place in places if place in store.places]
            case CertificatesOf():
                return []
            case _:
                return None
        return [(event.body, event.signature) for event in found if event is not None]


@dataclass
class Host:
    """A node. ``authored_s``: when the call began, by event."""

    port: MemoryPort
    driver: Driver
    authored_s: dict[bytes, float] = field(default_factory=dict)

    async def say(self, label: str) -> None:
        """Author an event."""
        log = self.port.log
        contract = contract_from_json(sample_contract(label, now_ms() + 3_600_000, "ed25519:" + "ab" * 32))
        start_s = time.perf_counter()
        (event,) = await log.author(Draft(TaskCreated(contract, log.network.current.hash), None, 1))
        self.authored_s[event.id] = start_s
        self.port.notify()

    def came(self) -> int:
        """Events that came from others, needless ones too."""
        return sum(peer.events for peer in self.driver.machine.peers.values())


@asynccontextmanager
async def host(keys: Keypair, genesis: Genesis, bootstrap: list[str]) -> AsyncIterator[Host]:
    """A node that serves, and dials those who came before it; its address is added to theirs."""
    store = MemoryStore()
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(open_log(store, Network.of(genesis), keys, MemoryGuard(), now_ms))
        listener = await listen("127.0.0.1", 0, server_context(keys))
        address = f"127.0.0.1:{listener.port}"
        port = MemoryPort(log, store)
        ways = Ways(Me(keys, genesis.network_id, now_ms(), (address,)), log.network.knows_author, 0, list(bootstrap))
        draw = random.Random(keys.node_id)
        driver = await stack.enter_async_context(open_driver(port, Outside(), ways, draw, now_ms))
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(listener.run, driver.serve, lambda _: False)
        bootstrap.append(address)
        yield Host(port, driver)
        nursery.cancel_scope.cancel()


async def speak(hosts: list[Host], label: str, count: int) -> None:
    """``count`` events at the given rate, by all in turn."""
    start_s = trio.current_time()
    for number in range(count):
        await trio.sleep_until(start_s + number / events_a_second)
        await hosts[number % len(hosts)].say(f"{label}-{number}")


async def everywhere(hosts: list[Host], count: int) -> None:
    """Wait until all have ``count`` events."""
    with trio.fail_after(patience_s):
        while any(len(one.port.store.events) < count for one in hosts):
            await trio.sleep(0.05)


async def connected(hosts: list[Host]) -> None:
    """Wait until everybody has neighbours enough."""
    with trio.fail_after(patience_s):
        while any(len(one.driver.machine.peers) < min(4, len(hosts) - 1) for one in hosts):
            await trio.sleep(0.1)


def took_ms(hosts: list[Host], since: int) -> list[float]:
    """Milliseconds from author to last of every event after the first ``since``."""
    found = []
    for one in hosts:
        for event_id, start_s in one.authored_s.items():
            if one.port.store.number[event_id] > since:
                last_s = max(other.port.stored_s[event_id] for other in hosts if other is not one)
                found.append((last_s - start_s) * 1e3)
    return found


async def measure(_: Path) -> list[Figure]:
    """Three figures: copies, the time to the last, and the share that came."""
    keys = [Keypair(sha256(b"gossip" + bytes([number]))) for number in range(node_count)]
    members = {key.node_id: everything for key in keys}
    genesis = make_genesis(
        name="gossip", created_at=now_ms() - 1_000, fault_model="byzantine", members=members, signers=keys[:1]
    )
    count, addresses = int(seconds * events_a_second), list[str]()
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(host(key, genesis, addresses)) for key in keys]
        await connected(hosts)
        await speak(hosts, "warm", warm_up_events)
        await everywhere(hosts, warm_up_events)
        before, cpu_s = [one.came() for one in hosts], time.process_time()
        await speak(hosts, "said", count)
        await everywhere(hosts, warm_up_events + count)
        cpu_s = time.process_time() - cpu_s
        came = sum(one.came() - was for one, was in zip(hosts, before, strict=True))
        copies, took = came / count / (node_count - 1), took_ms(hosts, warm_up_events)
        links = sum(len(one.driver.machine.peers) for one in hosts) / node_count
        there = sum(len(one.port.stored_s) for one in hosts) / ((warm_up_events + count) * (node_count - 1))
    basis = f"{count} events at {events_a_second:.0f}/s, {node_count} nodes in one process, {links:.1f} links a node"
    half = f"p50 {percentile(took, 0.5):.0f} ms; {cpu_s / count * 1e3:.0f} ms of CPU an event for all of them"
    return [
        Figure("copies of an event that a node receives", copies, copies_goal, basis, least=False),
        Figure(f"author to last of {node_count}, p99 ms", percentile(took, 0.99), last_ms_goal, half, least=False),
        Figure("events that came everywhere, %", there * 100, 100.0, basis),
    ]
