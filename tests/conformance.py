"""What every log must be, whatever stores it: a log under test, all that it holds, and the one check of all of it.

``assert_consistent`` recomputes everything from the events and certificates alone, by the kernel and by hand, and
shares no code with what it checks: which events are void, chains, totals, states, verdicts, the state root, and that
nothing waits in vain (docs/protocol.md §2, §3, §4). It knows no database: a store is read by whoever made it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sel.authoring import Author, Request, author_batch
from sel.ingest import Knowledge, Taken, take_in
from sel.projector import facts_of
from sel.rows import Chain, LogHead, Outcome, Parked, StreamRow
from sel.store import Store, Txn
from wattswarm.kernel import chain, codec, limits, stream
from wattswarm.kernel.certificate import (
    Certificate,
    DecisionCertificate,
    ForkCertificate,
    MembershipCertificate,
    verify_certificate,
)
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.verdict import Verdict

sum_modulus = 1 << 256
Item = Event | Certificate


@dataclass(frozen=True)
class Contents:
    """All that a store holds. ``events`` by arrival, live and void; ``verdicts`` are those beside acceptance."""

    head: LogHead
    events: list[Event]
    chains: dict[bytes, Chain]
    certificates: dict[bytes, Certificate]
    streams: dict[bytes, StreamRow]
    verdicts: dict[bytes, tuple[bytes, Verdict]]
    parked: list[Parked]
    parked_certificates: list[bytes]
    votes: dict[tuple[bytes, int], bytes]

    def counted(self) -> list[bytes]:
        """The ids of the certificates that are part of the set: of forks those that void what nothing else does."""
        versions = [
            cert.update.version for cert in self.certificates.values() if isinstance(cert, MembershipCertificate)
        ]
        ends = {bytes.fromhex(node): until for version in versions for node, until in version.until.items()}
        forks = [cert for cert in self.certificates.values() if isinstance(cert, ForkCertificate)]
        idle = [
            fork.id
            for fork in forks
            if fork.seq > min([ends.get(fork.author, fork.seq), *(o.seq for o in forks if o.author == fork.author)])
        ]
        return [one for one in self.certificates if one not in idle]

    def live(self) -> list[Event]:
        """The events that count, by arrival."""
        return [said for said in self.events if not self.chains[said.author].voids(said.author_seq)]


@dataclass
class FakeGuard:
    """An author guard in memory: sealed batches, and what ``confirm`` says next."""

    sealed: list[tuple[int, bytes | None, list[Event]]] = field(default_factory=list)
    unfinished: Sequence[tuple[bytes, bytes]] = ()

    def confirm(self, seq: int, _event_id: bytes | None) -> Sequence[tuple[bytes, bytes]]:
        """What a crash left to be inserted, until it is."""
        left = bool(self.unfinished) and codec.decode(self.unfinished[0][0])[3] == seq + 1
        return self.unfinished if left else ()

    def seal(self, base_seq: int, base_id: bytes | None, batch: Sequence[Event]) -> None:
        """Remember the batch."""
        self.sealed.append((base_seq, base_id, list(batch)))

    def withdraw(self) -> None:
        """The batch was not stored."""
        self.sealed.pop()


class Subject:
    """A log under test, looked at after every step but quiet ones. ``now_ms``: its clock; ``contents``: its store's."""

    def __init__(
        self, store: Store, network: Network, contents: Callable[[], Coroutine[Any, Any, Contents]], now_ms: int
    ) -> None:
        self.store = store
        self.knowledge = Knowledge(network)
        self.contents = contents
        self.now_ms = now_ms
        self.guard = FakeGuard()

    def restart(self) -> None:
        """Forget all that is not in the store."""
        self.knowledge = Knowledge(Network.of(self.knowledge.network.genesis))

    async def take_quietly(self, *items: Item) -> Taken:
        """One transaction of intake."""
        events = [item for item in items if isinstance(item, Event)]
        certificates = [item for item in items if not isinstance(item, Event)]

        async def work(txn: Txn) -> Taken:
            return await take_in(txn, self.knowledge, events, certificates, self.now_ms)

        taken = await self.store.transact(work)
        assert {said.id for said in events} <= taken.outcomes.keys(), "everything that came has an outcome"
        return taken

    async def take(self, *items: Item) -> Taken:
        """One transaction of intake, and a look at everything."""
        taken = await self.take_quietly(*items)
        await self.check()
        return taken

    async def outcome(self, said: Event) -> Outcome:
        """What becomes of one event."""
        return (await self.take(said)).outcomes[said.id]

    async def author(self, keys: Keypair, *requests: Sequence[Draft]) -> list[Request]:
        """One transaction of authoring, and a look at everything."""
        asked = [Request(drafts) for drafts in requests]
        await author_batch(self.store, self.knowledge, Author(keys, self.guard, lambda: self.now_ms), asked)
        await self.check()
        return asked

    async def check(self) -> Contents:
        """Everything the log holds, which must be what its events and certificates alone give."""
        contents = await self.contents()
        assert_consistent(contents, Network.of(self.knowledge.network.genesis), self.now_ms)
        return contents


# -- the check ----------------------------------------------------------------------------------------------------


def assert_consistent(contents: Contents, network: Network, now_ms: int) -> None:
    """All that a log holds follows from its events and certificates. ``network``: at version 0."""
    network = _grown(network, contents.certificates.values())
    voids = _voids(network, contents.certificates.values())
    _check_chains(contents, network, voids)
    live = [said for said in contents.events if said.author_seq < voids.get(said.author, said.author_seq + 1)]
    _check_folds(contents, network, live)
    head = contents.head
    assert head.seq == len(contents.events)
    assert (head.events, head.events_sum) == _fingerprint(said.id for said in live)
    assert (head.certificates, head.certificates_sum) == _fingerprint(contents.counted())
    assert head.memberships == len(network.versions) - 1
    assert head.max_hlc == max((said.hlc for said in contents.events), default=0)
    _check_parked(contents, network, voids, now_ms)


def _fingerprint(ids: Iterable[bytes]) -> tuple[int, int]:
    numbers = [int.from_bytes(one, "little") for one in ids]
    return len(numbers), sum(numbers) % sum_modulus


def _grown(network: Network, certificates: Iterable[Certificate]) -> Network:
    """``network`` with all versions; every certificate proves what it says."""
    versions = [cert for cert in certificates if isinstance(cert, MembershipCertificate)]
    for version in sorted(versions, key=lambda cert: cert.update.version.number):
        verify_certificate(version, network)
        network = network.with_version(version.update)
    for certificate in certificates:
        verify_certificate(certificate, network)
    return network


def _voids(network: Network, certificates: Iterable[Certificate]) -> dict[bytes, int]:
    """Author -> the least seq whose event is void: by its least fork, or past a removal."""
    marks: dict[bytes, list[int]] = defaultdict(list)
    for certificate in certificates:
        if isinstance(certificate, ForkCertificate):
            marks[certificate.author].append(certificate.seq)
    for version in network.versions.values():
        for node, until in version.until.items():
            marks[node].append(until + 1)
    return {author: min(seqs) for author, seqs in marks.items()}


def _check_chains(contents: Contents, network: Network, voids: dict[bytes, int]) -> None:
    chains: dict[bytes, list[Event]] = defaultdict(list)
    for said in contents.events:
        chains[said.author].append(said)
    for author, events in chains.items():
        assert network.knows_author(author)
        assert [said.author_seq for said in events] == list(range(len(events))), "no gap, and in order"
        assert [said.prev for said in events] == [None, *(said.id for said in events[:-1])]
        assert all(before.hlc < said.hlc for before, said in pairwise(events))
    for author, line in contents.chains.items():
        assert line.void_from == voids.get(author)
        counted = [said for said in chains[author] if not line.voids(said.author_seq)]
        newest = counted[-1] if counted else None
        expected = (newest.author_seq, newest.id, newest.hlc) if newest is not None else (-1, None, -1)
        assert (line.head.seq, line.head.id, line.head.hlc) == expected
    assert chains.keys() <= contents.chains.keys()


def _check_folds(contents: Contents, network: Network, live: Iterable[Event]) -> None:
    events: dict[bytes, list[Event]] = defaultdict(list)
    decisions: dict[bytes, list[Certificate]] = defaultdict(list)
    for said in sorted(live, key=lambda said: said.sort_key):
        events[said.stream].append(said)
    for certificate in contents.certificates.values():
        if isinstance(certificate, DecisionCertificate):
            decisions[certificate.stream].append(certificate)
    names = events.keys() | decisions.keys() | contents.streams.keys()
    if len(network.versions) > 1:
        names |= {network.network_id}
    root, verdicts = 0, {}
    for name in names:
        folded = stream.fold(name, network, events.get(name, ()), decisions.get(name, ()))
        data, digest = folded.encoded() or (None, None)
        row = contents.streams.get(name, StreamRow(name))
        expected = (data, digest, folded.last, facts_of(folded), folded.awaits, folded.unproven)
        assert (row.state, row.digest, row.last, row.facts, row.awaits, row.unproven) == expected
        if digest is not None:
            root += int.from_bytes(sha256(name + digest), "little")
        for event_id, verdict in folded.verdicts.items():
            if verdict.status != "accepted":
                verdicts[event_id] = (name, verdict)
    assert contents.verdicts == verdicts
    assert contents.head.state_root == root % sum_modulus


def _check_parked(contents: Contents, network: Network, voids: dict[bytes, int], now_ms: int) -> None:
    """What waits is not in the set, waits for something, and no more waits than may."""
    logged = {said.id for said in contents.events}
    assert contents.head.parked == len(contents.parked)
    for waiting in contents.parked:
        said, why = waiting.event, waiting.why
        assert said.id not in logged, "a logged event does not wait"
        if not network.knows_author(said.author):
            assert why == "stranger"
            continue
        assert said.author_seq < voids.get(said.author, said.author_seq + 1), "a void event does not wait"
        if said.created_at > now_ms + limits.clock_skew_tolerance_ms:
            assert (why, waiting.due_ms) == ("early", said.created_at - limits.clock_skew_tolerance_ms)
            continue
        line = contents.chains.get(said.author, Chain(chain.Head()))
        assert why == "orphan"
        assert isinstance(chain.place(line.head, said, network.created_at, network.quotas), chain.Gap)
