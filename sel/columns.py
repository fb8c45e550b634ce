"""The log's values as rows of its tables, and back: in the order of columns that ``sel/sql/log.sql`` has.

Knows no connection. What comes out of a row answers for itself: an event's bytes hash to its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sel.errors import StoreCorrupt
from sel.recall import Addition
from sel.rows import Chain, Changes, LogHead, StreamRow
from sel.store import Record
from wattswarm.kernel import chain, limits
from wattswarm.kernel.event import Event, parse_known
from wattswarm.kernel.refusal import Malformed
from wattswarm.kernel.verdict import Verdict

event_columns = ("seq", "event_id", "author", "author_seq", "stream", "epoch", "hlc", "kind", "body", "signature")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "little")


def head_of(row: Any) -> LogHead:
    """The head row as a value."""
    seq, events, events_sum, certificates, certificates_sum, root, max_hlc, parked, memberships = row
    return LogHead(
        seq,
        events,
        _number(events_sum),
        certificates,
        _number(certificates_sum),
        _number(root),
        max_hlc,
        parked,
        memberships,
    )


def chain_of(row: Any) -> tuple[bytes, Chain]:
    """A row of ``chains`` as its author and value."""
    author, seq, event_id, clock, day, events, size, void_from = row
    return author, Chain(chain.Head(seq, event_id, clock, day, events, size), void_from)


def fold_of(row: Any) -> StreamRow:
    """A row of ``streams`` as a value, but for what people ask about it."""
    stream, state, digest, epoch, hlc, last_id, awaits, unproven = row
    last = None if epoch is None else (epoch, hlc, last_id)
    return StreamRow(stream, state, digest, last, None, awaits, unproven)


def record_of(row: Sequence[Any], network_id: bytes) -> Record:
    """A row of ``record`` as a value."""
    ids, bodies, signatures, certificates, *judged = row[8:]
    events = [stored_event(network_id, *said) for said in zip(ids, bodies, signatures, strict=True)]
    verdicts = {event_id: Verdict(*said) for event_id, *said in zip(*judged, strict=True)}
    return Record(fold_of(row[:8]), events, certificates, verdicts)


def locked(row: Sequence[Any], node_id: bytes | None) -> tuple[LogHead, int, dict[bytes, Chain | None]]:
    """A row of ``lock_head``: totals, their version, and the node's chain (None: it has none yet).

    A chain from before the wait for the lock is not what is committed: it is left out, to be asked for anew.
    """
    totals, (version, fresh, _, *line) = row[:9], row[9:]
    own = {} if node_id is None or not fresh else {node_id: None if line[0] is None else chain_of(line)[1]}
    return head_of(totals), version, own


def check_folded_by(row: Sequence[Any]) -> None:
    """That the folds of the log, whose ``lock_head`` gave this row, follow this program's rules.

    Raises ``StoreCorrupt``: a newer program has opened the log since this one did.
    """
    if row[11] != limits.LOCAL_PROTOCOL_VERSION:
        raise StoreCorrupt(
            f"the log is folded by protocol version {row[11]}, this program by {limits.LOCAL_PROTOCOL_VERSION}: "
            "start it again with the program that folded it"
        )


def head_arguments(head: LogHead) -> tuple[Any, ...]:
    """A head as the arguments of ``write_batch`` that it stands for."""
    return (
        head.seq,
        head.events,
        _bytes(head.events_sum),
        head.certificates,
        _bytes(head.certificates_sum),
        _bytes(head.state_root),
        head.max_hlc,
        head.parked,
        head.memberships,
    )


def columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows turned into the column arrays that ``unnest`` takes."""
    turned = [list(column) for column in zip(*rows, strict=True)]
    return turned or [[] for _ in range(width)]


def event_row(seq: int, event: Event) -> tuple[Any, ...]:
    """An event as a row of ``events``."""
    return (
        seq,
        event.id,
        event.author,
        event.author_seq,
        event.stream,
        event.epoch,
        event.hlc,
        event.kind,
        event.body,
        event.signature,
    )


def stream_row(row: StreamRow) -> tuple[Any, ...]:
    """A fold as a row of ``streams``."""
    facts = row.facts
    about = (
        (
            facts.label,
            facts.status,
            facts.epoch,
            facts.task_type,
            facts.creator,
            facts.membership,
            facts.created_at,
            facts.expiry_ms,
        )
        if facts
        else (None,) * 8
    )
    last = row.last or (None, None, None)
    return (row.stream, row.state, row.digest, *last, row.awaits, row.unproven, *about)


def chain_row(author: bytes, line: Chain) -> tuple[Any, ...]:
    """A chain as a row of ``chains``."""
    at = line.head
    return (author, at.seq, at.id, at.hlc, at.day, at.day_events, at.day_bytes, line.void_from)


def verdict_row(said: tuple[bytes, bytes, Verdict]) -> tuple[Any, ...]:
    """A verdict as a row of ``verdicts``."""
    stream, event_id, verdict = said
    return (event_id, stream, verdict.status, verdict.reason, verdict.message)


def batch_arguments(changes: Changes, event_rows: Sequence[Sequence[Any]]) -> list[Any]:
    """A transaction's additions as the arguments of ``write_batch``, but for the events: these are the rows given."""
    chains = [chain_row(author, line) for author, line in changes.chains.items()]
    return [
        *columns(event_rows, 10),
        *columns(((cert.id, cert.kind, cert.stream, cert.wire()) for cert in changes.certificates), 4),
        *columns(chains, 8),
        *columns(map(stream_row, changes.streams), 16),
        *columns(((vote.task, vote.epoch, vote.candidate_hash, vote.event_id) for vote in changes.votes), 4),
        *columns(map(verdict_row, changes.verdicts), 5),
        *head_arguments(changes.head),
    ]


def stored_event(network_id: bytes, event_id: bytes, body: bytes, signature: bytes) -> Event:
    """The event of a row, whose id answers for its bytes. Raises ``StoreCorrupt`` if it does not."""
    try:
        return parse_known(event_id, body, signature, network_id)
    except Malformed as refusal:
        raise StoreCorrupt(f"{refusal}: a row of the log was changed. `wattswarm log verify` names it.") from None


def addition_arguments(added: Addition) -> list[Any]:
    """Events with what they change as the arguments of ``append``."""
    changes = added.changes
    first = changes.head.seq - len(changes.events) + 1
    rows = [event_row(seq, event) for seq, event in enumerate(changes.events, first)]
    return [
        *head_arguments(changes.head),
        added.version,
        list(added.labels),
        *columns(rows, 10),
        *columns((chain_row(author, line) for author, line in changes.chains.items()), 8),
        *columns(map(stream_row, changes.streams), 16),
        *columns(map(verdict_row, changes.verdicts), 5),
    ]
