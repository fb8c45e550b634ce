"""What people and programs read of the log: events and tasks as JSON-ready values (docs/architecture.md §3).

Views never take the writer lock and change nothing. Bytes are shown as lowercase hex.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sel.postgres import Connection, Database
from sel.queries import named
from wattswarm.kernel import codec
from wattswarm.kernel.certificate import fork_id
from wattswarm.kernel.event import Event, parse

sql = named("views")
page_rows = 1000


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to show: after a local arrival number, of a task, a kind, an author, or only refused ones."""

    after_seq: int = 0
    stream: bytes | None = None
    kind: str | None = None
    author: bytes | None = None
    refused: bool = False
    limit: int = page_rows


@dataclass(frozen=True, slots=True)
class EventView:
    """One event as people see it. ``verdict``: accepted, refused, unsupported or void. Times in unix ms."""

    seq: int
    event_id: str
    kind: str
    author: str
    author_seq: int
    task: str | None
    task_id: str | None
    epoch: int
    created_at: int
    verdict: str
    reason: str
    payload: Any

    def json(self) -> dict[str, Any]:
        """The JSON object of ``log show --json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TaskView:
    """One line of ``task list``. Times in unix ms."""

    task: str
    task_id: str
    state: str
    epoch: int
    task_type: str
    creator: str
    created_at: int
    expiry_ms: int

    def json(self) -> dict[str, Any]:
        """The JSON object of ``task list --json``."""
        return asdict(self)


def hex_bytes(value: Any) -> Any:
    """The same value with bytes as lowercase hex, for JSON."""
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {key: hex_bytes(item) for key, item in value.items()}
        case list():
            return [hex_bytes(item) for item in value]
    return value


def event_view(seq: int, event: Event, verdict: str, reason: str, label: str | None) -> EventView:
    """The view of one event; ``reason`` says why it is not accepted, empty if it is."""
    payload = codec.decode(event.body)[9]
    about = event.task or (event.id if event.kind == "TASK_CREATED" else None)
    return EventView(
        seq,
        event.id.hex(),
        event.kind,
        event.author.hex(),
        event.author_seq,
        about.hex() if about else None,
        label,
        event.epoch,
        event.created_at,
        verdict,
        reason,
        hex_bytes(payload),
    )


async def events(database: Database, network_id: bytes, wanted: EventFilter) -> list[EventView]:
    """Up to ``wanted.limit`` events by arrival."""

    async def work(connection: Connection) -> list[Any]:
        return await connection.fetch(
            sql["events"], wanted.after_seq, wanted.stream, wanted.kind, wanted.author, wanted.refused, wanted.limit
        )

    return [_view(row, network_id) for row in await database.run(work)]


def _view(row: Any, network_id: bytes) -> EventView:
    seq, _, body, signature, status, reason, message, label, void_from = row
    event = parse(body, signature, network_id)
    if void_from is not None and event.author_seq >= void_from:
        return event_view(seq, event, "void", f"void: the author's chain is void from event {void_from} on", label)
    return event_view(seq, event, status or "accepted", f"{reason}: {message}" if reason else "", label)


async def tasks(database: Database, status: str | None = None, limit: int = page_rows) -> list[TaskView]:
    """Tasks, newest first."""

    async def work(connection: Connection) -> list[Any]:
        return await connection.fetch(sql["tasks"], status, limit)

    return [
        TaskView(stream.hex(), label, state, epoch, task_type, creator.hex(), created_at, expiry_ms)
        for stream, label, state, epoch, task_type, creator, created_at, expiry_ms in await database.run(work)
    ]


async def last_spoke(database: Database, authors: Iterable[bytes]) -> dict[bytes, int]:
    """Author -> created_at (unix ms) of the newest event of its chain, for those that have one."""

    async def work(connection: Connection) -> list[Any]:
        return await connection.fetch(sql["last_spoke"], list(authors))

    return {author: hlc >> 16 for author, hlc in await database.run(work)}


async def forks(database: Database) -> list[dict[str, Any]]:
    """Authors that signed two chains, and from which event on nothing of theirs counts."""

    async def work(connection: Connection) -> list[tuple[bytes, int]]:
        places = {fork_id(author, seq): (author, seq) for author, seq in await connection.fetch(sql["void_authors"])}
        shown = {row[0] for row in await connection.fetch(sql["certificates_among"], list(places))}
        return [place for certificate_id, place in places.items() if certificate_id in shown]

    return [{"author": author.hex(), "void_from": void_from} for author, void_from in await database.run(work)]
