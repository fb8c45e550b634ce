"""What daemons' databases hold when a run is over, in the shape in which the simulator's checkers look at logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netsim.checkers import Checkers, Violation
from netsim.cluster.host import Host
from netsim.disk import Written
from netsim.releases import Release, this
from sel import views
from sel.audit import verify
from sel.columns import head_of
from sel.embedded import url
from sel.pool import open_database
from sel.postgres import Connection
from sel.postgres import sql as log_sql
from sel.rows import LogHead, Parked, StreamRow, TaskFacts
from wattswarm.kernel.certificate import Certificate, parse_certificate
from wattswarm.kernel.event import Event, parse
from wattswarm.kernel.membership import Network

all_events = """
SELECT e.event_id, e.body, e.signature FROM events e LEFT JOIN chains c ON c.author = e.author
WHERE c.void_from IS NULL OR e.author_seq < c.void_from ORDER BY e.seq
"""
all_certificates = "SELECT body FROM certificates ORDER BY seq"
all_parked = "SELECT event_id, why, due_ms, body, signature FROM parked"
all_tasks = """
SELECT stream, label, status, epoch, task_type, creator, membership, created_at, expiry_ms
FROM streams WHERE label IS NOT NULL
"""


@dataclass(frozen=True)
class Copy:
    """One node's log."""

    name: str
    head: LogHead
    events: Sequence[Event]
    certificates: Sequence[Certificate]
    stream_rows: Mapping[bytes, StreamRow]
    parked: Mapping[bytes, Parked]
    disks: int = 0
    release: Release = this

    @property
    def disk(self) -> Copy:
        """The log lies on itself."""
        return self

    @property
    def store(self) -> Copy:
        """The log."""
        return self

    def live(self) -> Sequence[Event]:
        """Live events, by arrival."""
        return self.events


async def copied(host: Host) -> Copy:
    """All of a node's log. Its server must run."""
    network_id = host.home.genesis.network_id

    async def work(connection: Connection) -> Copy:
        async with connection.transaction(isolation="repeatable_read"):
            head = head_of(await connection.fetchrow(log_sql["read_head"]))
            rows = await connection.fetch(all_events)
            events = [parse(body, signature, network_id) for _, body, signature in rows]
            network = Network.of(host.home.genesis)
            certificates = [parse_certificate(row[0], network) for row in await connection.fetch(all_certificates)]
            tasks = {row[0]: StreamRow(row[0], facts=TaskFacts(*row[1:])) for row in await connection.fetch(all_tasks)}
            parked = {
                event_id: Parked(parse(body, signature, network_id), why, due_ms)
                for event_id, why, due_ms, body, signature in await connection.fetch(all_parked)
            }
            return Copy(host.name, head, events, certificates, tasks, parked)

    async with open_database(url(host.path)) as database:
        return await database.run(work)


async def check(hosts: Sequence[Host], copies: Sequence[Copy], task_label: str) -> None:
    """What the simulator demands of logs, of these; and the first one's fold, done again. Raises ``Violation``."""
    checkers = Checkers((host.home.keys.node_id for host in hosts), safe=True)
    for copy in copies:
        streams: dict[bytes, set[bytes]] = {stream: set() for stream in copy.stream_rows}
        written = Written(events=list(copy.events), certificates=list(copy.certificates), streams=streams)
        checkers.wrote(copy, written)
    rows = copies[0].stream_rows.values()
    owed = [row.stream for row in rows if row.facts is not None and row.facts.label.startswith(task_label)]
    checkers.healed(copies, owed)
    async with open_database(url(hosts[0].path)) as database:
        forks = await views.forks(database)
        report = await verify(database, Network.of(hosts[0].home.genesis), lambda _done: None)
    kept = {host.home.keys.node_id.hex(): host.name for host in hosts if not host.put_back_once}
    for fork in forks:
        if fork["author"] in kept:
            raise Violation(f"{kept[fork['author']]}, which was never put back, has forked its chain: {fork}")
    if report.problems:
        raise Violation(f"the log of {hosts[0].name} does not hold: {report.problems[0].what}")
