"""The outline of the log for whoever compares it with others': what is live, how far each chain goes, what came since.

A first reading gives all of it; ``advance`` gives what changed after a moment, whoever wrote it. Both see one state of
the database. New rows are found by their arrival numbers, which the writer lock makes the order of commits; what became
void is found by the marks of the chains. Takes no lock, and knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sel.columns import head_of, stored_event
from sel.postgres import Connection, Database
from sel.queries import named
from sel.replay import counts, judge
from sel.rows import LogHead
from sel.store import Written
from wattswarm.kernel.certificate import DecisionCertificate, parse_certificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Network

sql = named("outline")
log_sql = named("log")
items_a_portion = 4_096
events_a_step_max = 2_048
certificates_a_step_max = 256
Item = tuple[int, bytes]
Place = tuple[int, bytes]
Wire = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate of the log. ``ruling``: of membership or fork, not a decision."""

    id: bytes
    ruling: bool
    wire: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log was read: arrival numbers of events and certificates, and from where each author is void.

    ``version``: of the log as it was then; NOTIFY tells the version of every later one.
    """

    event_seq: int = 0
    certificate_seq: int = 0
    version: int = 0
    voids: Mapping[bytes, int] = field(default_factory=dict)
    idle: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Outline:
    """What there is beside the events: ids of certificates that count, and author -> (seq, id) of each chain's head."""

    head: LogHead
    mark: Mark
    ruling: list[bytes]
    decisions: list[bytes]
    chains: dict[bytes, Place]


@dataclass(frozen=True, slots=True)
class Advance:
    """What came after a mark. ``void``: items that were live; ``idle``: forks that counted; ``more``: read on.

    ``chains``: every chain that may have moved as it is now, None where nothing of it is live.
    """

    head: LogHead
    mark: Mark
    events: list[Event]
    void: list[Item]
    certificates: list[Certified]
    idle: list[bytes]
    chains: dict[bytes, Place | None]
    more: bool


async def outline(database: Database, genesis_network: Network, take: Callable[[list[Item]], object]) -> Outline:
    """Read all of it; ``take`` gets the live items, (unix ms, id), in portions and no order."""

    async def work(connection: Connection) -> Outline:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            head = head_of(await connection.fetchrow(log_sql["read_head"]))
            portion: list[Item] = []
            async for at_ms, event_id in connection.cursor(sql["live_items"], prefetch=items_a_portion):
                portion.append((at_ms, event_id))
                if len(portion) == items_a_portion:
                    take(portion)
                    portion = []
            take(portion)
            chains, voids = await _chains(connection)
            idle = await _idle(connection, genesis_network)
            kinds = [row for row in await connection.fetch(sql["certificate_ids"]) if row[0] not in idle]
            event_seq, certificate_seq, version = await connection.fetchrow(sql["arrivals"])
            mark = Mark(event_seq, certificate_seq, version, voids, idle)
            return Outline(
                head,
                mark,
                [key for key, kind in kinds if kind != "decision"],
                [key for key, kind in kinds if kind == "decision"],
                {author: place for author, place in chains.items() if place is not None},
            )

    return await database.run(work)


async def advance(database: Database, genesis_network: Network, since: Mark) -> Advance:
    """What came after ``since``, a portion at a time, and what became void by it."""
    bounds = (since.event_seq, events_a_step_max, since.certificate_seq, certificates_a_step_max)

    async def work(connection: Connection) -> Advance:
        step = _step_of(await connection.fetchrow(sql["advance"], *bounds))
        if not step.ruled and not _moved(since, step.voids):
            return _advance(genesis_network, since, step, since.idle, [])
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            step = _step_of(await connection.fetchrow(sql["advance"], *bounds))
            idle = await _idle(connection, genesis_network) if step.ruled else since.idle
            return _advance(genesis_network, since, step, idle, await _voided(connection, since, step.voids))

    return await database.run(work)


def advanced(since: Mark, written: Written) -> Advance | None:
    """What ``advance`` would read of a transaction of this process that came right after ``since``, without asking.

    None where the log has to be asked, because something else came between or it says whose events count.
    """
    changes = written.changes
    voids = {author: line.void_from for author, line in changes.chains.items() if line.void_from is not None}
    ruled = not all(isinstance(certificate, DecisionCertificate) for certificate in changes.certificates)
    if written.version != since.version + 1 or ruled or _moved(since, voids):
        return None
    places = {author: line.head for author, line in changes.chains.items()}
    return Advance(
        changes.head,
        replace(
            since,
            event_seq=changes.head.seq,
            certificate_seq=since.certificate_seq if written.certificate_seq is None else written.certificate_seq,
            version=written.version,
        ),
        changes.events,
        [],
        [Certified(certificate.id, False, certificate.wire()) for certificate in changes.certificates],
        [],
        {author: None if head.id is None else (head.seq, head.id) for author, head in places.items()},
        False,
    )


class _Step(NamedTuple):
    """A row of ``advance``. ``ruled``: a certificate came that says whose events count."""

    head: LogHead
    version: int
    events: list[tuple[int, bytes, bytes, bytes]]
    certificates: list[tuple[int, bytes, str, bytes]]
    chains: dict[bytes, Place | None]
    voids: Mapping[bytes, int]
    ruled: bool


def _step_of(row: Sequence[Any]) -> _Step:
    totals, version, columns = row[:9], row[9], row[10:]
    events, certificates, lines = (list(zip(*columns[at : at + 4], strict=True)) for at in (0, 4, 8))
    chains, voids = _places(lines)
    ruled = any(kind != "decision" for _, _, kind, _ in certificates)
    return _Step(head_of(totals), version, events, certificates, chains, voids, ruled)


def _moved(since: Mark, voids: Mapping[bytes, int]) -> bool:
    return any(since.voids.get(author) != void_from for author, void_from in voids.items())


def _advance(network: Network, since: Mark, step: _Step, idle: frozenset[bytes], void: list[Item]) -> Advance:
    rows, wires, voids = step.events, step.certificates, {**since.voids, **step.voids}
    known = {row[1] for row in wires}
    events = [stored_event(network.network_id, *row) for _, *row in rows]
    mark = Mark(
        rows[-1][0] if rows else since.event_seq,
        wires[-1][0] if wires else since.certificate_seq,
        step.version,
        voids,
        idle,
    )
    return Advance(
        step.head,
        mark,
        [event for event in events if event.author_seq < voids.get(event.author, event.author_seq + 1)],
        void,
        [Certified(key, kind != "decision", body) for _, key, kind, body in wires if key not in idle],
        [key for key in idle - since.idle if key not in known],
        step.chains,
        len(rows) == events_a_step_max or len(wires) == certificates_a_step_max,
    )


# -- what others ask for --------------------------------------------------------------------------------------------


async def lacking(database: Database, ids: Sequence[bytes]) -> list[bytes]:
    """Which events are not in the log."""
    here = {row[0] for row in await _fetch(database, sql["ids_here"], list(ids))}
    return [event_id for event_id in ids if event_id not in here]


async def wires_of(database: Database, ids: Sequence[bytes], bytes_max: int) -> list[Wire]:
    """Of the events those that are here, live or void, by arrival: until they have ``bytes_max``, and one at least."""
    rows = await _fetch(database, sql["wires_of"], list(ids), bytes_max)
    return [(body, signature) for body, signature in rows]


async def span(database: Database, author: bytes, first: int, last: int, bytes_max: int) -> list[Wire]:
    """An author's live events from ``first`` to ``last``: until they have ``bytes_max``, and one at least."""
    rows = await _fetch(database, sql["span"], author, first, last, bytes_max)
    return [(body, signature) for body, signature in rows]


async def certificates_of(database: Database, ids: Sequence[bytes], bytes_max: int) -> list[bytes]:
    """Of the certificates those that are here: until they have ``bytes_max``, and one at least."""
    return [row[0] for row in await _fetch(database, sql["certificates_of"], list(ids), bytes_max)]


async def _fetch(database: Database, query: str, *arguments: Any) -> list[Any]:
    async def work(connection: Connection) -> list[Any]:
        return await connection.fetch(query, *arguments)

    return await database.run(work)


# -- how it is read -------------------------------------------------------------------------------------------------


async def _chains(connection: Connection) -> tuple[dict[bytes, Place | None], dict[bytes, int]]:
    return _places(await connection.fetch(sql["all_chains"]))


def _places(rows: Iterable[Sequence[Any]]) -> tuple[dict[bytes, Place | None], dict[bytes, int]]:
    places = {author: None if event_id is None else (seq, event_id) for author, seq, event_id, _ in rows}
    return places, {author: void_from for author, _, _, void_from in rows if void_from is not None}


async def _idle(connection: Connection, genesis_network: Network) -> frozenset[bytes]:
    """Forks in the log that are no part of the set."""
    ruling = [parse_certificate(row[0], genesis_network) for row in await connection.fetch(sql["ruling"])]
    network, voids = judge(genesis_network, ruling)
    return frozenset(certificate.id for certificate in ruling if not counts(certificate, network, voids))


async def _voided(connection: Connection, since: Mark, voids: Mapping[bytes, int]) -> list[Item]:
    """What ``since`` took for live and is not."""
    found: list[Item] = []
    for author, void_from in voids.items():
        before = since.voids.get(author)
        if before is None or void_from < before:
            rows = await connection.fetch(sql["items_between"], author, void_from, before, since.event_seq)
            found.extend((at_ms, event_id) for at_ms, event_id in rows)
    return found
