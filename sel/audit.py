"""Checking the whole log: ``verify`` changes nothing, and names every row that is not what it should be.

Hashes, signatures, chains, certificates, states and totals are worked out again from the stored bytes
(docs/protocol.md §4). It trusts no column. Each of its two passes sees one state of the database, whatever is written
meanwhile: the rows up to the head by arrival, then the folds of the streams. Memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from sel.columns import head_of
from sel.postgres import Connection, Database
from sel.queries import named
from sel.replay import by_stream, counts, judge
from sel.rows import LogHead, id_as_number, root_share, sum_modulus
from sel.signatures import bad_signatures
from wattswarm.kernel import stream
from wattswarm.kernel.certificate import (
    Certificate,
    MembershipCertificate,
    NotYetKnown,
    parse_certificate,
    verify_certificate,
)
from wattswarm.kernel.event import Event, parse, parse_known
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Malformed, Refused

views = named("views")
log_sql = named("log")
rows_per_page = 1024
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

    def compare(self, name: str, stored: int, found: int) -> None:
        """Hold a total of the head row against what the log gives."""
        if stored != found:
            self.blame(0, b"", f"{name}: the head row says {stored:x}, the log gives {found:x}")


async def verify(database: Database, genesis_network: Network, progress: Progress) -> VerifyReport:
    """Check hashes, signatures, chains, certificates, folds and totals of everything stored so far."""
    report = VerifyReport()
    head, wires = await _snapshot(database)
    network, voids = judge(genesis_network, _verify_ruling(genesis_network, wires, report))
    live_sum, live = await _verify_rows(database, network, voids, head, report, progress)
    report.compare("live events", head.events, live)
    report.compare("sum of event ids", head.events_sum, live_sum)
    await _verify_folds(database, genesis_network, report)
    return report


async def _snapshot(database: Database) -> tuple[LogHead, list[bytes]]:
    async def work(connection: Connection) -> tuple[LogHead, list[bytes]]:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _heading(connection)

    return await database.run(work)


async def _heading(connection: Connection) -> tuple[LogHead, list[bytes]]:
    """The totals, and the certificates that rule who may speak: of memberships and forks."""
    head = head_of(await connection.fetchrow(log_sql["read_head"]))
    return head, [row[0] for row in await connection.fetch(views["ruling_certificates"])]


# -- certificates -------------------------------------------------------------------------------------------------


def _verify_ruling(network: Network, wires: list[bytes], report: VerifyReport) -> list[Certificate]:
    """The sound ones, judged again; membership versions in the order of their chain."""
    sound: list[Certificate] = []
    todo = [certificate for wire in wires if (certificate := _parse_certificate(wire, network, report)) is not None]
    while todo:
        later: list[Certificate] = []
        for certificate in todo:
            verdict = _verify_certificate(certificate, network, report)
            if verdict is None:
                later.append(certificate)
            elif verdict:
                sound.append(certificate)
                if isinstance(certificate, MembershipCertificate):
                    network = network.with_version(certificate.update)
        if len(later) == len(todo):
            for certificate in later:
                report.blame(0, b"", f"{certificate.kind} certificate {certificate.id.hex()}: needs a version not here")
            break
        todo = later
    return sound


def _parse_certificate(wire: bytes, network: Network, report: VerifyReport) -> Certificate | None:
    try:
        return parse_certificate(wire, network)
    except Refused as refusal:
        report.blame(0, b"", f"stored certificate: {refusal}")
        return None


def _verify_certificate(certificate: Certificate, network: Network, report: VerifyReport) -> bool | None:
    """Whether it holds; None while a version or an author that it names is not known. A bad one is blamed."""
    try:
        verify_certificate(certificate, network)
    except NotYetKnown:
        return None
    except Refused as refusal:
        report.blame(0, b"", f"{certificate.kind} certificate {certificate.id.hex()}: {refusal}")
        return False
    return True


# -- events, by arrival -------------------------------------------------------------------------------------------


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


# -- folds, stream by stream --------------------------------------------------------------------------------------


async def _verify_folds(database: Database, genesis_network: Network, report: VerifyReport) -> None:
    """Fold every stream again and compare with what is stored; check decision certificates on the way."""

    async def work(connection: Connection) -> None:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            head, wires = await _heading(connection)
            totals = LogHead()
            ruling = _verify_ruling(genesis_network, wires, VerifyReport())
            network, voids = judge(genesis_network, ruling)
            report.certificates = len(wires)
            for certificate in ruling:
                if counts(certificate, network, voids):
                    totals.add_certificate(certificate.id)
            governed = False
            sides = (views["live_by_stream"], views["decisions_by_stream"], views["stream_digests"])
            async for name, found in by_stream(connection, *sides):
                _verify_stream(network, name, found, report, totals)
                governed = governed or name == network.network_id
            if not governed:
                _verify_stream(network, network.network_id, [[], [], []], report, totals)
            report.compare("certificates", head.certificates, totals.certificates)
            report.compare("sum of certificate ids", head.certificates_sum, totals.certificates_sum)
            report.compare("state root", head.state_root, report.state_root)

    await database.run(work)


def _verify_stream(
    network: Network, name: bytes, found: list[list[Any]], report: VerifyReport, totals: LogHead
) -> None:
    """``found``: rows of the stream's live events, of its decision certificates, and of its stored state."""
    rows, wires, states = found
    decisions: list[Certificate] = []
    for _, wire in wires:
        report.certificates += 1
        certificate = _parse_certificate(wire, network, report)
        if certificate is None:
            continue
        holds = _verify_certificate(certificate, network, report)
        if holds is None:
            report.blame(0, b"", f"{certificate.kind} certificate {certificate.id.hex()}: needs a version not here")
        elif holds:
            decisions.append(certificate)
            totals.add_certificate(certificate.id)
    events = [event for _, *row in rows if (event := _whole(network, *row)) is not None]
    encoded = stream.fold(name, network, events, decisions).encoded()
    digest = encoded[1] if encoded else None
    if digest != (states[0][1] if states else None):
        report.blame(0, name, "the stored state of this stream is not what its events give")
    if digest is not None:
        report.streams += 1
        report.state_root = (report.state_root + root_share(name, digest)) % sum_modulus


def _whole(network: Network, event_id: bytes, body: bytes, signature: bytes) -> Event | None:
    """The row's event; None if it is not that event any more, which was said when the rows were looked at."""
    try:
        return parse_known(event_id, body, signature, network.network_id)
    except Malformed:
        return None
