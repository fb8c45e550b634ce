"""What must hold, whatever is broken (docs/netsim.md §4): looked at with every transaction, and when all is healed.

Each checker says what it found in one sentence and changes nothing. They know which nodes are honest, which no node
does; what they compare is what nodes hold, never what nodes say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from net.proto import exchange, gossip, lanes, pulls
from netsim.disk import Written
from netsim.node import SimNode
from netsim.releases import Release
from sel.rows import LogHead, Parked, StreamRow
from wattswarm.kernel import limits
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads.judge import FinalityVote
from wattswarm.recovery import enough, others_of

ended = ("FINALIZED", "EXPIRED", "STOPPED", "KILLED", "FORKED")
parked_max = {
    "orphan": limits.parked_orphans_max,
    "early": limits.parked_early_max,
    "stranger": limits.parked_unknown_authors_max,
}


class Held(Protocol):
    """A log, as far as it is looked at."""

    @property
    def head(self) -> LogHead: ...
    @property
    def stream_rows(self) -> Mapping[bytes, StreamRow]: ...
    @property
    def parked(self) -> Mapping[bytes, Parked]: ...
    def live(self) -> Iterable[Event]: ...


class Disk(Protocol):
    """What a log lies on."""

    @property
    def store(self) -> Held: ...


class Holder(Protocol):
    """A node with its log: a simulated one, or a copy of what a daemon's database holds.

    ``disks``: how often it was given another disk, of which nobody knows how old it was. ``release``: of the program.
    """

    @property
    def name(self) -> str: ...
    @property
    def disks(self) -> int: ...
    @property
    def disk(self) -> Disk: ...
    @property
    def release(self) -> Release: ...


class Violation(Exception):
    """Something that must hold does not."""


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


class Checkers:
    """All of them. ``honest``: node ids that obey the protocol; ``safe``: liars are below the fault bound."""

    def __init__(self, honest: Iterable[bytes], *, safe: bool) -> None:
        self.honest = set(honest)
        self._safe = safe
        self._roots: dict[tuple[str, int, int, int, int], tuple[int, str]] = {}
        self._places: dict[tuple[bytes, int], bytes] = {}
        self._votes: dict[tuple[bytes, bytes, int], bytes] = {}
        self._proofs: dict[tuple[bytes, int], bytes] = {}
        self._decided: dict[tuple[str, bytes], bytes] = {}
        self._ends: dict[bytes, int] = {}
        self._lost: dict[bytes, tuple[int, int]] = {}
        self._coming_back: dict[bytes, int] = {}

    # -- with every transaction -------------------------------------------------------------------------------------

    def wrote(self, node: Holder, written: Written) -> None:
        """One transaction of an honest node's log."""
        self._same_state(node)
        self._nothing_void(node, written)
        for event in written.events:
            self._one_chain(event)
            self._one_vote(event)
        for certificate in written.certificates:
            if isinstance(certificate, DecisionCertificate):
                self._one_proof(node, certificate)
        for stream in written.streams:
            self._final_is_final(node, stream)

    def _same_state(self, node: Holder) -> None:
        head = node.disk.store.head
        held = node.release.protocol, head.events, head.events_sum, head.certificates, head.certificates_sum
        root, who = self._roots.setdefault(held, (head.state_root, node.name))
        _must(root == head.state_root, f"same set, two states: {node.name} and {who}, {head.events} events")

    def _nothing_void(self, node: Holder, written: Written) -> None:
        """What is known to be void takes no room: a key that forked could fill every log."""
        kept = set().union(*written.streams.values()) - {event.id for event in written.events}
        _must(not kept, f"{node.name} stores {len(kept)} events of a chain that it knows to be void there")

    def _one_chain(self, event: Event) -> None:
        if event.author in self.honest:
            known = self._places.setdefault((event.author, event.author_seq), event.id)
            self._ends[event.author] = max(event.author_seq, self._ends.get(event.author, -1))
            first, last = self._lost.get(event.author, (0, -1))
            lost = first <= event.author_seq <= last
            _must(lost or known == event.id, f"an honest node forked: {event.author.hex()[:8]} at {event.author_seq}")

    def _one_vote(self, event: Event) -> None:
        if isinstance(event.payload, FinalityVote) and event.author in self.honest:
            assert event.task is not None
            place = event.author, event.task, event.epoch
            known = self._votes.setdefault(place, event.payload.candidate_hash)
            same = known == event.payload.candidate_hash
            _must(same, f"an honest node voted twice: {event.author.hex()[:8]} on {event.task.hex()[:8]}")

    def _one_proof(self, node: Holder, certificate: DecisionCertificate) -> None:
        task, epoch = certificate.creation.id, certificate.epoch
        name = certificate.candidate_hash
        known = self._proofs.setdefault((task, epoch), name)
        _must(not self._safe or known == name, f"two proofs for {task.hex()[:8]}, the second met by {node.name}")

    def _final_is_final(self, node: Holder, stream: bytes) -> None:
        row = node.disk.store.stream_rows.get(stream)
        if row is None or row.facts is None or not self._safe:
            return
        place = f"{node.name} on disk {node.disks}", stream
        if row.facts.status == "FINALIZED":
            self._decided.setdefault(place, b"")
        elif place in self._decided:
            raise Violation(f"what was final is {row.facts.status}: {stream.hex()[:8]} on {node.name}")

    def put_back(self, node: SimNode, nodes: list[SimNode]) -> None:
        """A node's disk was put back, or its process begins on such a disk.

        What it says no more, too few may have heard, or they were put back as well.
        """
        self._coming_back[node.node_id] = limits.counter_max
        for author in self._coming_back:
            self._note_heard(author, nodes)

    def recovered(self, node: SimNode, nodes: list[SimNode]) -> int:
        """A node goes on after it was put back, and where. What too few held for it to hear, it may say again."""
        me, seq = node.node_id, _end_of(node, node.node_id)
        self._note_heard(me, nodes)
        heard = self._coming_back.pop(me)
        end = self._ends.get(me, -1)
        if heard <= seq < end:
            first, last = self._lost.get(me, (seq + 1, end))
            self._lost[me] = min(first, seq + 1), max(last, end)
        return seq

    def _note_heard(self, author: bytes, nodes: list[SimNode]) -> None:
        """How far so many members hold a chain that, whoever is asked, one of them is; the least there was at any time
        since its host was put back, for whoever was asked then said so."""
        current = next(one for one in nodes if one.node_id == author).network.current
        others = others_of(current, author)
        ends = sorted((_end_of(one, author) for one in nodes if one.node_id in others), reverse=True)
        unasked = len(others) - enough(current, author)
        heard = ends[unasked] if unasked < len(ends) else -1
        self._coming_back[author] = min(heard, self._coming_back[author])

    # -- now and then -----------------------------------------------------------------------------------------------

    def looked(self, nodes: list[SimNode]) -> None:
        """A moment: whoever are connected speak the newest wire version that both know; what waits is bounded."""
        up = {(node.node_id, node.machine.me.boot_id): node for node in nodes if node.up}
        for node in up.values():
            self._bounded(node)
            self._bounded_memory(node)
            for peer in node.machine.peers.values():
                other = peer.taken and up.get((peer.taken.node_id, peer.taken.boot_id))
                if peer.taken and other:
                    best = max(set(node.release.wire) & set(other.release.wire))
                    spoken = peer.taken.version
                    _must(spoken == best, f"{node.name} speaks version {spoken} to {other.name}, both know {best}")
        who, waiting = nodes[0].around.wires.fullest()
        _must(waiting <= lanes.queue_bytes_max, f"{who} has {waiting} bytes waiting for one peer")

    # -- when all is healed -----------------------------------------------------------------------------------------

    def healed(self, nodes: Sequence[Holder], tasks: Iterable[bytes]) -> None:
        """All faults are over, and there was time: honest nodes hold the same, and every task has ended."""
        first, *others = nodes
        for node in others:
            self._level(first, node)
        for task in tasks:
            row = first.disk.store.stream_rows.get(task)
            status = row.facts.status if row is not None and row.facts is not None else "unknown"
            _must(status in ended, f"task {task.hex()[:8]} is {status} on {first.name}, though all is healed")
        for node in nodes:
            self._chains(node)
            self._bounded(node)

    def _level(self, one: Holder, other: Holder) -> None:
        mine, theirs = one.disk.store.head, other.disk.store.head
        held = [(head.events, head.events_sum, head.certificates_sum) for head in (mine, theirs)]
        said = f"{mine.events}+{mine.certificates} and {theirs.events}+{theirs.certificates}"
        _must(held[0] == held[1], f"{one.name} and {other.name} hold different sets, though all is healed: {said}")
        _must(mine.state_root == theirs.state_root, f"{one.name} and {other.name} have two roots")

    def _chains(self, node: Holder) -> None:
        store = node.disk.store
        last: dict[bytes, Event] = {}
        for event in sorted(store.live(), key=lambda event: (event.author, event.author_seq)):
            before = last.get(event.author)
            seq, prev = (-1, None) if before is None else (before.author_seq, before.id)
            whole = (event.author_seq, event.prev) == (seq + 1, prev)
            _must(whole, f"{node.name} has a chain with a gap: {event.author.hex()[:8]} at {event.author_seq}")
            last[event.author] = event

    def _bounded(self, node: Holder) -> None:
        parked = node.disk.store.parked.values()
        for author, count in Counter(entry.event.author for entry in parked).items():
            most = limits.parked_per_author_max
            _must(count <= most, f"{node.name} keeps {count} parked events of one author, {author.hex()[:8]}")
        for why, count in Counter(entry.why for entry in parked).items():
            _must(count <= parked_max[why], f"{node.name} keeps {count} parked events, each {why}")

    def _bounded_memory(self, node: SimNode) -> None:
        """What a process and its log keep for whatever comes: certificates that wait, ids, events on their way in."""
        waiting = node.disk.store.parked_certificates
        most = limits.parked_certificates_max
        _must(len(waiting) <= most, f"{node.name} keeps {len(waiting)} parked certificates")
        size = sum(map(len, waiting))
        _must(size <= limits.parked_certificates_bytes_max, f"{node.name} keeps {size} bytes of parked certificates")
        met, awaited = node.machine.exchange.gossip.sizes()
        _must(met <= gossip.ids_met_max, f"{node.name} remembers {met} ids that it met")
        _must(awaited <= gossip.ids_awaited_max, f"{node.name} waits for {awaited} events that were announced")
        asked = len(node.machine.peers) * pulls.ranges_a_peer_max * pulls.range_events_max
        storing = node.machine.exchange.storing
        _must(storing <= exchange.ingest_events_max + asked, f"{node.name} has {storing} events on their way in")


def _end_of(node: SimNode, author: bytes) -> int:
    line = node.disk.store.chain_rows.get(author)
    return -1 if line is None else line.head.seq
