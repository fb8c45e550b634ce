"""Rebuilding: every projection again from events and certificates alone (docs/protocol.md §4).

``replay`` does so in one transaction, under the writer lock, so nobody sees a half-built state. Streams are folded
one by one as cursors go over events and decision certificates side by side: memory does not grow with the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from sel.columns import batch_arguments, columns, locked, stored_event
from sel.errors import StoreCorrupt
from sel.postgres import Connection, Database
from sel.projector import facts_of
from sel.queries import named
from sel.rows import Changes, LogHead, StreamRow
from wattswarm.kernel import chain, limits, stream
from wattswarm.kernel.certificate import (
    Certificate,
    ForkCertificate,
    MembershipCertificate,
    fork_counts,
    parse_certificate,
)
from wattswarm.kernel.membership import Network
from wattswarm.kernel.stream import Folded

views = named("views")
log_sql = named("log")
rows_per_page = 1024
streams_per_write = 512
Progress = Callable[[int], None]
Group = tuple[bytes, list[Any]]


async def replay(database: Database, genesis_network: Network, progress: Progress) -> LogHead:
    """Rebuild every projection; returns the new totals. ``genesis_network``: the network at version 0.

    Raises ``StoreCorrupt`` at an event whose bytes are not those that its id names.
    """

    async def work(connection: Connection) -> LogHead:
        async with connection.transaction():
            old, _, _ = locked(tuple(await connection.fetchrow(log_sql["lock_head"], None)), None)
            head = await _rebuild(connection, genesis_network, old, progress)
            await connection.execute(log_sql["note_folded_by"], limits.LOCAL_PROTOCOL_VERSION)
            return head

    return await database.run(work)


async def upgrade(database: Database, genesis_network: Network) -> bool:
    """Fold every stream again if another protocol version's program folded them last; whether it did.

    Raises ``StoreCorrupt`` if that was a newer one: this program cannot read what that one may have stored.
    """
    folded_by = await database.run(lambda connection: connection.fetchval(log_sql["folded_by"]))
    if folded_by == limits.LOCAL_PROTOCOL_VERSION:
        return False
    if folded_by not in limits.protocol_versions:
        raise StoreCorrupt(
            f"the log was used by a newer wattswarm, of protocol version {folded_by}; this program knows "
            f"{', '.join(limits.protocol_versions)}: use that one, or another state directory"
        )
    await replay(database, genesis_network, lambda _: None)
    return True


async def _rebuild(connection: Connection, network: Network, old: LogHead, progress: Progress) -> LogHead:
    ruling = [parse_certificate(row[0], network) for row in await connection.fetch(views["ruling_certificates"])]
    network, voids = judge(network, ruling)
    await connection.execute(views["forget_folds"])
    await connection.execute(views["forget_all_verdicts"])
    await connection.execute(views["forget_chains"])
    await connection.execute(views["rebuild_chains"], *columns(voids.items(), 2))
    head = LogHead(
        seq=old.seq,
        parked=old.parked,
        memberships=sum(isinstance(certificate, MembershipCertificate) for certificate in ruling),
    )
    for certificate in ruling:
        if counts(certificate, network, voids):
            head.add_certificate(certificate.id)
    waiting: list[Folded] = []
    async for folded in _folds(connection, network, head):
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


def counts(certificate: Certificate, network: Network, voids: dict[bytes, int]) -> bool:
    """Whether a stored certificate is part of the set: all are, but for forks that do not void (any more)."""
    if not isinstance(certificate, ForkCertificate):
        return True
    return fork_counts(certificate.seq, voids[certificate.author], network.until(certificate.author))


async def _folds(connection: Connection, network: Network, totals: LogHead) -> AsyncIterator[Folded]:
    """Every stream, folded from its live events and certificates, which are counted into ``totals``."""
    governed = False
    async for name, (rows, wires) in by_stream(connection, views["live_by_stream"], views["decisions_by_stream"]):
        events = [stored_event(network.network_id, *row) for _, *row in rows]
        decisions = [parse_certificate(wire, network) for _, wire in wires]
        for event in events:
            totals.add_event(event)
        for certificate in decisions:
            totals.add_certificate(certificate.id)
        governed = governed or name == network.network_id
        yield stream.fold(name, network, events, decisions)
    if not governed and len(network.versions) > 1:
        yield stream.fold(network.network_id, network, (), ())


async def by_stream(connection: Connection, *queries: str) -> AsyncIterator[tuple[bytes, list[list[Any]]]]:
    """Stream by stream, the rows that each of the queries has of it. Their first column is the stream, by which
    they come sorted. Within a transaction, on cursors."""
    sides = [_grouped(connection.cursor(query, prefetch=rows_per_page)) for query in queries]
    groups = [await anext(side, None) for side in sides]
    while any(groups):
        least = min(group[0] for group in groups if group is not None)
        found: list[list[Any]] = []
        for place, group in enumerate(groups):
            if group is None or group[0] != least:
                found.append([])
                continue
            found.append(group[1])
            groups[place] = await anext(sides[place], None)
        yield least, found


async def _grouped(rows: AsyncIterator[Any]) -> AsyncIterator[Group]:
    """Rows that come sorted by their first column, in lists of equal ones."""
    name: bytes | None = None
    group: list[Any] = []
    async for row in rows:
        if row[0] != name:
            if name is not None:
                yield name, group
            name, group = row[0], []
        group.append(row)
    if name is not None:
        yield name, group


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
    await connection.execute(log_sql["write_batch"], *batch_arguments(changes, ()))
