"""Rebuilding and checking: every projection again from events and certificates alone (docs/protocol.md §4).

``replay`` rebuilds in one transaction, under the writer lock, so nobody sees a half-built state. ``verify``
changes nothing and names every row that is not what it should be. Both read the log as a cursor: memory does not
grow with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sel.postgres import Connection, Database, batch_arguments, columns, head_of, locked
from sel.projector import facts_of
from sel.queries import named
from sel.rows import Changes, LogHead, StreamRow, id_as_number, root_share, sum_modulus
from sel.signatures import bad_signatures
from wattswarm.kernel import chain, stream
from wattswarm.kernel.certificate import (
    Certificate,
    DecisionCertificate,
    ForkCertificate,
    MembershipCertificate,
    NotYetKnown,
    parse_certificate,
    verify_certificate,
)
from wattswarm.kernel.event import Event, parse
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.stream import Folded

views = named("views")
log_sql = named("log")
rows_per_page = 1024
streams_per_write = 512
problems_kept_max = 1000
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that is not what it should be. ``seq``: local arrival number, 0 when no event row is meant."""

    seq: int
    event_id: str
    what: str


@dataclass(slots=True)
class VerifyReport:
    """What ``log verify`` found. The log is sound iff ``problems`` is empty."""

    events: int = 0
    certificates: int = 0
    streams: int = 0
    state_root: int = 0
    problems: list[RowProblem] = field(default_factory=list)

    def blame(self, seq: int, event_id: bytes, what: str) -> None:
        """Note a problem."""
        if len(self.problems) < problems_kept_max:
            self.problems.append(RowProblem(seq, event_id.hex(), what))


# -- replay -----------------------------------------------------------------------------------------------------


async def replay(database: Database, genesis_network: Network, progress: Progress) -> LogHead:
    """Rebuild every projection; returns the new totals. ``genesis_network``: the network at version 0."""

    async def work(connection: Connection) -> LogHead:
        async with connection.transaction():
            old, _, _ = locked(tuple(await connection.fetchrow(log_sql["lock_head"], None)))
            return await _rebuild(connection, genesis_network, old, progress)

    return await database.run(work)


async def _rebuild(connection: Connection, network: Network, old: LogHead, progress: Progress) -> LogHead:
    certificates = [parse_certificate(row[0], network) for row in await connection.fetch(views["all_certificates"])]
    network, voids = judge(network, certificates)
    await connection.execute(views["forget_folds"])
    await connection.execute(views["forget_all_verdicts"])
    await connection.execute(views["forget_chains"])
    await _write_chains(connection, voids)
    head = LogHead(
        seq=old.seq,
        certificates=len(certificates),
        certificates_sum=sum(id_as_number(certificate.id) for certificate in certificates) % sum_modulus,
        parked=old.parked,
        memberships=sum(isinstance(certificate, MembershipCertificate) for certificate in certificates),
    )
    waiting: list[Folded] = []
    async for folded in _folds(connection, network, certificates, head):
        waiting.append(folded)
        if len(waiting) >= streams_per_write:
            await _write_folds(connection, waiting, head)
            progress(head.events)
            waiting = []
    await _write_folds(connection, waiting, head)
    head.max_hlc = await connection.fetchval(views["max_hlc"])
    await _write_folds(connection, [], head)
    return head


def judge(network: Network, certificates: Iterable[Certificate]) -> tuple[Network, dict[bytes, int]]:
    """The membership chain that the certificates make, and from which seq on each author's events are void."""
    certificates = list(certificates)
    todo = [certificate for certificate in certificates if isinstance(certificate, MembershipCertificate)]
    while todo:
        known = [certificate for certificate in todo if certificate.update.version.previous in network.versions]
        if not known:
            break
        for certificate in known:
            network = network.with_version(certificate.update)
        todo = [certificate for certificate in todo if certificate.id not in network.versions]
    forks: dict[bytes, int] = {}
    for fork in certificates:
        if isinstance(fork, ForkCertificate):
            forks[fork.author] = min(fork.seq, forks.get(fork.author, fork.seq))
    removed = {node for version in network.versions.values() for node in version.until}
    voids = {}
    for author in forks.keys() | removed:
        first = chain.first_void(forks.get(author), network.until(author))
        assert first is not None
        voids[author] = first
    return network, voids


async def _write_chains(connection: Connection, voids: dict[bytes, int]) -> None:
    """Chain heads, from the events below each author's void mark."""
    await connection.execute(views["rebuild_chains"], *columns(voids.items(), 2))


async def _folds(
    connection: Connection, network: Network, certificates: Iterable[Certificate], totals: LogHead | None
) -> AsyncIterator[Folded]:
    """Every stream, folded from its live events and certificates. Live events are counted into ``totals``."""
    about: dict[bytes, list[Certificate]] = defaultdict(list)
    for certificate in certificates:
        if isinstance(certificate, DecisionCertificate):
            about[certificate.stream].append(certificate)
    seen: set[bytes] = set()
    async for name, events in _streams(connection, network.network_id):
        seen.add(name)
        if totals is not None:
            for event in events:
                totals.add_event(event)
        yield stream.fold(name, network, events, about.get(name, ()))
    for name in about.keys() - seen:
        yield stream.fold(name, network, (), about[name])
    if network.network_id not in seen and len(network.versions) > 1:
        yield stream.fold(network.network_id, network, (), ())


async def _streams(connection: Connection, network_id: bytes) -> AsyncIterator[tuple[bytes, list[Event]]]:
    name: bytes | None = None
    events: list[Event] = []
    async for row_stream, body, signature in connection.cursor(views["live_by_stream"], prefetch=rows_per_page):
        if row_stream != name:
            if name is not None:
                yield name, events
            name, events = row_stream, []
        events.append(parse(body, signature, network_id))
    if name is not None:
        yield name, events


async def _write_folds(connection: Connection, folds: list[Folded], head: LogHead) -> None:
    changes = Changes(head=head)
    for folded in folds:
        data, digest = folded.encoded() or (None, None)
        head.swap_root(folded.stream, None, digest)
        row = StreamRow(folded.stream, data, digest, folded.last, facts_of(folded), folded.awaits, folded.unproven)
        changes.streams.append(row)
        changes.verdicts.extend(
            (folded.stream, event_id, verdict)
            for event_id, verdict in folded.verdicts.items()
            if verdict.status != "accepted"
        )
    await connection.execute(log_sql["write_batch"], *batch_arguments(changes, 0))


# -- verify -----------------------------------------------------------------------------------------------------


async def verify(database: Database, genesis_network: Network, progress: Progress) -> VerifyReport:
    """Check hashes, signatures, chains, certificates, folds and totals of everything stored so far."""
    report = VerifyReport()
    head, wires = await _snapshot(database)
    certificates = _verify_certificates(genesis_network, wires, report)
    network, voids = judge(genesis_network, certificates)
    live_sum, live = await _verify_rows(database, network, voids, head, report, progress)
    await _verify_folds(database, network, certificates, report)
    totals = (
        ("live events", head.events, live),
        ("sum of event ids", head.events_sum, live_sum),
        ("certificates", head.certificates, len(wires)),
        ("state root", head.state_root, report.state_root),
    )
    for name, stored, found in totals:
        if stored != found:
            report.blame(0, b"", f"{name}: the head row says {stored:x}, the log gives {found:x}")
    return report


async def _snapshot(database: Database) -> tuple[LogHead, list[bytes]]:
    async def work(connection: Connection) -> tuple[LogHead, list[bytes]]:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            head = head_of(await connection.fetchrow(log_sql["read_head"]))
            return head, [row[0] for row in await connection.fetch(views["all_certificates"])]

    return await database.run(work)


def _verify_certificates(network: Network, wires: list[bytes], report: VerifyReport) -> list[Certificate]:
    """Every stored certificate, judged again; membership versions in the order of their chain."""
    sound: list[Certificate] = []
    todo: list[Certificate] = []
    for wire in wires:
        report.certificates += 1
        try:
            todo.append(parse_certificate(wire, network))
        except Refused as refusal:
            report.blame(0, b"", f"stored certificate: {refusal}")
    while todo:
        later: list[Certificate] = []
        for certificate in todo:
            try:
                verify_certificate(certificate, network)
            except NotYetKnown:
                later.append(certificate)
                continue
            except Refused as refusal:
                report.blame(0, b"", f"{certificate.kind} certificate {certificate.id.hex()}: {refusal}")
                continue
            sound.append(certificate)
            if isinstance(certificate, MembershipCertificate):
                network = network.with_version(certificate.update)
        if len(later) == len(todo):
            for certificate in later:
                report.blame(0, b"", f"{certificate.kind} certificate {certificate.id.hex()}: needs a version not here")
            break
        todo = later
    return sound


async def _verify_rows(
    database: Database,
    network: Network,
    voids: dict[bytes, int],
    head: LogHead,
    report: VerifyReport,
    progress: Progress,
) -> tuple[int, int]:
    """Each row against its own bytes and its author's chain. Returns (sum of live ids, live events)."""
    tips: dict[bytes, tuple[int, bytes]] = {}
    live_sum = live = expected = 0
    async for page in _pages(database, head.seq):
        events = []
        for row in page:
            for missing in range(expected + 1, row[0]):
                report.blame(missing, b"", "the row is missing")
            expected = row[0]
            event = _verify_row(row, network, tips, report)
            if event is None:
                continue
            events.append(event)
            if event.author_seq < voids.get(event.author, event.author_seq + 1):
                live_sum, live = (live_sum + id_as_number(event.id)) % sum_modulus, live + 1
        seqs = {row[1]: row[0] for row in page}
        for bad in await bad_signatures(events):
            report.blame(seqs.get(bad.id, 0), bad.id, "the signature is not the author's")
        report.events += len(page)
        progress(report.events)
    for missing in range(expected + 1, head.seq + 1):
        report.blame(missing, b"", "the row is missing")
    return live_sum, live


async def _pages(database: Database, last_seq: int) -> AsyncIterator[list[Any]]:
    after = 0
    while after < last_seq:

        async def work(connection: Connection, start: int = after) -> list[Any]:
            return await connection.fetch(views["rows_page"], start, min(start + rows_per_page, last_seq))

        page = await database.run(work)
        after = min(after + rows_per_page, last_seq)
        if page:
            yield page


def _verify_row(row: Any, network: Network, tips: dict[bytes, tuple[int, bytes]], report: VerifyReport) -> Event | None:
    """The row's event if its bytes hold; problems are noted. ``tips``: author -> (seq, id) so far."""
    seq, event_id, author, author_seq, name, epoch, clock, kind, body, signature = row
    try:
        event = parse(body, signature, network.network_id)
    except Refused as refusal:
        report.blame(seq, event_id, f"the stored bytes are not an event: {refusal}")
        return None
    if event.id != event_id:
        report.blame(seq, event_id, f"the stored bytes hash to {event.id.hex()}: the row was changed")
    said = (author, author_seq, name, epoch, clock, kind)
    if said != (event.author, event.author_seq, event.stream, event.epoch, event.hlc, event.kind):
        report.blame(seq, event_id, "a column disagrees with the event's bytes: the row was changed")
    tip_seq, tip_id = tips.get(event.author, (-1, None))
    if (event.author_seq, event.prev) != (tip_seq + 1, tip_id):
        report.blame(seq, event_id, f"breaks its author's chain: seq {event.author_seq} after {tip_seq}")
    tips[event.author] = (event.author_seq, event.id)
    return event


async def _verify_folds(
    database: Database, network: Network, certificates: list[Certificate], report: VerifyReport
) -> None:
    """Fold every stream again and compare with what is stored."""

    async def work(connection: Connection) -> None:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            stored = {row[0]: row[1] for row in await connection.fetch(views["stream_digests"])}
            async for folded in _folds(connection, network, certificates, None):
                encoded = folded.encoded()
                digest = encoded[1] if encoded else None
                if stored.pop(folded.stream, None) != digest:
                    report.blame(0, folded.stream, "the stored state of this stream is not what its events give")
                if digest is not None:
                    report.streams += 1
                    report.state_root = (report.state_root + root_share(folded.stream, digest)) % sum_modulus
            for name in stored:
                report.blame(0, name, "a state is stored for a stream that has no events")

    await database.run(work)
