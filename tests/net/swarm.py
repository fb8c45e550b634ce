"""A swarm in one test: real machines over real in-memory logs, frames carried by hand, time that jumps.

What a node does with its machine's outputs here is what ``net.io`` does over sockets and Postgres: it answers questions
from the log, checks and stores what came, and tells the machine what the log has now.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from net.proto import values as v
from net.proto.handshake import Me
from net.proto.items import Items
from net.proto.machine import Machine, Ways
from net.proto.meeting import Memory
from net.proto.message import Standing, Total
from netsim.outline import answer_of
from sel.ingest import Knowledge, Taken, take_in
from sel.memory import MemoryStore, at_once
from sel.rows import Duplicate, NotAdmitted, Stored, Void, Waiting
from sel.store import Txn
from wattswarm.kernel import limits
from wattswarm.kernel.certificate import Certificate, ForkCertificate, parse_certificate
from wattswarm.kernel.event import Event, checked
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.judge import DecisionFinalized, FinalityVote
from wattswarm.kernel.refusal import Refused

NAMES = {"stored": Stored, "here": Duplicate, "void": Void, "refused": NotAdmitted}


class Node:
    """One node: key, log in memory, machine. ``swarm`` carries what it sends. ``log_ms``: how long a question takes."""

    def __init__(self, swarm: Swarm, name: str, keys: Keypair, network: Network, observers: int = 0) -> None:
        self.swarm = swarm
        self.name = name
        self.keys = keys
        self.store = MemoryStore()
        self.knowledge = Knowledge(network)
        self.observers = observers
        self.ahead_ms = 0
        self.boots = 0
        self.reports: list[v.Report] = []
        self.related: dict[bytes, v.Relation] = {}
        self.sent: Counter[str] = Counter()
        self.links: dict[int, tuple[Node, int]] = {}
        self.wake_ms: int | None = None
        self.log_ms = 1
        self._live: dict[bytes, Event] = {}
        self._counted: dict[bytes, Certificate] = {}
        self.start()

    def start(self) -> None:
        """A new machine on the log as it is."""
        self.boots += 1
        me = Me(self.keys, self.knowledge.network.network_id, self.boots)
        self._live, self._counted = self._outline()
        counted = self._counted.values()
        stock = v.Stock(
            Items((event.created_at // 1000, event.id) for event in self._live.values()),
            [one.id for one in counted if one.kind != "decision"],
            [one.id for one in counted if one.kind == "decision"],
            self._heads(),
            self.standing(),
        )
        draw = random.Random(f"{self.name} {self.boots}")
        ways = Ways(me, self._knows, self.observers, memory=Memory(relations=self.related))
        self.machine = Machine(ways, stock, draw, self.swarm.now_ms + self.ahead_ms)

    def _knows(self, node_id: bytes) -> bool:
        return self.knowledge.network.knows_author(node_id)

    # -- the log --------------------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        head = self.store.head
        return Standing(
            Total(head.events, head.events_sum.to_bytes(32, "little")),
            Total(head.certificates, head.certificates_sum.to_bytes(32, "little")),
            head.state_root.to_bytes(32, "little"),
            limits.LOCAL_PROTOCOL_VERSION,
        )

    def _outline(self) -> tuple[dict[bytes, Event], dict[bytes, Certificate]]:
        rows = self.store.chain_rows
        live = {said.id: said for said in self.store.events if not rows[said.author].voids(said.author_seq)}
        idle = {
            one.id
            for one in self.store.certificates.values()
            if isinstance(one, ForkCertificate) and one.seq != rows[one.author].void_from
        }
        return live, {key: one for key, one in self.store.certificates.items() if key not in idle}

    def _heads(self) -> dict[bytes, v.Head]:
        rows = self.store.chain_rows.items()
        return {author: (row.head.seq, row.head.id) for author, row in rows if row.head.id is not None}

    def take(
        self, events: Sequence[Event], certificates: Sequence[Certificate] = (), *, asked: bool | None = None
    ) -> Taken:
        """One transaction, and its news to the machine. ``asked`` None: the node's own."""

        async def work(txn: Txn) -> Taken:
            return await take_in(txn, self.knowledge, events, certificates, self.swarm.now_ms)

        taken = at_once(self.store.transact(work))
        live, counted = self._outline()
        heads = self._heads()
        news = v.Appended(
            [_known(event) for key, event in live.items() if key not in self._live],
            [(event.created_at // 1000, key) for key, event in self._live.items() if key not in live],
            [
                v.CertificateKnown(key, one.kind != "decision", one.wire())
                for key, one in counted.items()
                if key not in self._counted
            ],
            [key for key in self._counted if key not in counted],
            {author: heads.get(author) for author in heads.keys() | self.machine.exchange.chains.keys()},
            self.standing(),
            own=asked is None,
            repaired=bool(asked),
        )
        self._live, self._counted = live, counted
        self.swarm.feed(self, news)
        return taken

    def ingest(self, given: v.Ingest) -> v.Ingested:
        """Check what came, and store what is sound."""
        network = self.knowledge.network
        events, fates, certificates, bad = [], [], [], 0
        for body, signature in given.events:
            try:
                events.append(checked(body, signature, network.network_id))
            except Refused:
                fates.append(v.Fate(b"", "bad"))
        for wire in given.certificates:
            try:
                certificates.append(parse_certificate(wire, network))
            except Refused:
                bad += 1
        taken = self.take(events, certificates, asked=given.asked)
        for event in events:
            outcome = taken.outcomes[event.id]
            what: Any = (
                outcome.why
                if isinstance(outcome, Waiting)
                else next(name for name, kind in NAMES.items() if isinstance(outcome, kind))
            )
            fates.append(v.Fate(event.id, what, event.author, event.author_seq))
        waiting = sum(refusal.reason in ("membership_unknown", "author_unknown") for refusal in taken.refusals.values())
        return v.Ingested(given.token, fates, bad + len(taken.refusals) - waiting, waiting)

    def answer(self, question: v.Question) -> object:
        """What the log says."""
        return None if isinstance(question, v.BundleOf) else answer_of(self.store, question)


def _known(event: Event) -> v.Known:
    urgent = isinstance(event.payload, FinalityVote | DecisionFinalized)
    return v.Known(
        event.id, event.author, event.author_seq, event.created_at // 1000, urgent, (event.body, event.signature)
    )


@dataclass
class Swarm:
    """Nodes, the connections between them, and one clock. ``loss``: the share of droppable frames that are lost."""

    network: Network
    now_ms: int
    seed: int = 0
    loss: float = 0.0
    nodes: list[Node] = field(default_factory=list)
    queue: list[tuple[int, int, Node, v.Input]] = field(default_factory=list)
    cut: set[frozenset[str]] = field(default_factory=set)
    frames: Counter[str] = field(default_factory=Counter)
    arrives_ms: dict[int, int] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self.source = random.Random(self.seed)

    def node(self, name: str, keys: Keypair, observers: int = 0) -> Node:
        """One more node, which knows the genesis."""
        made = Node(self, name, keys, Network.of(self.network.genesis), observers)
        self.nodes.append(made)
        return made

    def connect(self, one: Node, other: Node) -> None:
        """``one`` dials ``other``."""
        self.count += 2
        here, there = self.count - 1, self.count
        one.links[here], other.links[there] = (other, there), (one, here)
        self.feed(one, v.Opened(here, other.name, other.keys.node_id))
        self.feed(other, v.Opened(there, one.name, None))

    def mesh(self) -> None:
        """Everybody dials everybody."""
        for number, one in enumerate(self.nodes):
            for other in self.nodes[number + 1 :]:
                self.connect(one, other)

    def part(self, one: Node, other: Node) -> None:
        """Cut every connection between two nodes."""
        for link, (peer, there) in list(one.links.items()):
            if peer is other:
                del one.links[link]
                other.links.pop(there, None)
                self.feed(one, v.Closed(link))
                self.feed(other, v.Closed(there))

    def feed(self, node: Node, given: v.Input) -> None:
        """One input, and what follows from it."""
        for output in node.machine.handle(given, self.now_ms + node.ahead_ms):
            self._perform(node, output)

    def _perform(self, node: Node, output: v.Output) -> None:
        match output:
            case v.Send(link, _, frame, dropping) if link in node.links:
                self.frames[node.name] += len(frame)
                if not (dropping and self.source.random() < self.loss):
                    peer, there = node.links[link]
                    at_ms = max(self.arrives_ms.get(there, 0), self.now_ms + self.source.randint(1, 5))
                    self.arrives_ms[there] = at_ms  # a connection keeps the order of its frames
                    self._later(at_ms - self.now_ms, peer, v.Received(there, frame))
            case v.Close(link, _) if link in node.links:
                peer, there = node.links.pop(link)  # what was sent before still arrives
                at_ms = max(self.arrives_ms.get(there, 0), self.now_ms + 6)
                self._later(at_ms - self.now_ms, peer, v.Closed(there))
            case v.Ingest():
                self._later(2, node, node.ingest(output))
            case v.Ask(token, question):
                self._later(node.log_ms, node, v.Answered(token, node.answer(question)))
            case v.Wake(at_ms):
                node.wake_ms = at_ms - node.ahead_ms
            case v.Relate(node_id, row):
                node.related.pop(node_id, None)
                if row.wish or row.asked:
                    node.related[node_id] = row
            case v.Report():
                node.reports.append(output)

    def _later(self, delay_ms: int, node: Node, given: v.Input) -> None:
        self.count += 1
        heappush(self.queue, (self.now_ms + delay_ms, self.count, node, given))

    def run(self, for_ms: int) -> None:
        """Let time pass."""
        end_ms = self.now_ms + for_ms
        while True:
            times = [node.wake_ms for node in self.nodes if node.wake_ms is not None]
            next_ms = min([*times, self.queue[0][0]] if self.queue else times, default=end_ms + 1)
            if next_ms > end_ms:
                self.now_ms = end_ms
                return
            self.now_ms = max(self.now_ms, next_ms)
            while self.queue and self.queue[0][0] <= self.now_ms:
                _, _, node, given = heappop(self.queue)
                if isinstance(given, v.Closed):
                    node.links.pop(given.link, None)
                if not isinstance(given, v.Received) or given.link in node.links:
                    self.feed(node, given)
            for node in self.nodes:
                if node.wake_ms is not None and node.wake_ms <= self.now_ms:
                    node.wake_ms = None
                    self.feed(node, v.Woke())


def equal(nodes: Iterable[Node]) -> bool:
    """Whether all of them hold the same, as far as fingerprints and roots tell."""
    first, *others = [node.standing() for node in nodes]
    return all(other == first for other in others)
