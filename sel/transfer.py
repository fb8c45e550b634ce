"""Log files: every event and certificate as raw bytes, to carry a log to another machine or to keep it.

A CBOR sequence (RFC 8742): first a header [``"wattswarm/log/v1"``, genesis wire], then items
[``"c"``, certificate wire] and [``"e"``, body, signature]; membership certificates come first, events in the order
of their arrival. Nothing in a file is believed: an import checks forms, signatures, chains and rules as ever.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import cbor2
import trio

from sel.lifetimes import single_error
from sel.log import Log
from sel.postgres import Connection, Database
from sel.queries import named
from sel.rows import Duplicate, NotAdmitted, Stored, Void, Waiting
from sel.signatures import Check, bad_signatures, on_threads
from sel.verifier import open_verifier
from wattswarm.kernel import codec
from wattswarm.kernel.certificate import Certificate, parse_certificate
from wattswarm.kernel.event import Event, parse
from wattswarm.kernel.refusal import Malformed, Refused

header_name = "wattswarm/log/v1"

item_bytes_max = (1 << 20) + 64
batch_events = 1024
batch_bytes_max = 8 << 20
helper_bytes_min = 4 << 20
Item = Certificate | Event
Batch = tuple[list[Event], list[Certificate]]


@dataclass(slots=True)
class ImportReport:
    """What an import found. ``problems``: (item number, what was wrong), the first hundred."""

    events: int = 0
    stored: int = 0
    duplicates: int = 0
    waiting: int = 0
    void: int = 0
    refused_by_rules: int = 0
    certificates: int = 0
    rejected: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)

    def reject(self, number: int, why: str) -> None:
        """Count an item that is not taken."""
        self.rejected += 1
        if len(self.problems) < 100:
            self.problems.append((number, why))


# -- export -----------------------------------------------------------------------------------------------------


async def export_log(database: Database, genesis_wire: bytes, path: Path, progress: Callable[[int], None]) -> int:
    """Write the log to ``path`` (atomically: a temporary beside it, then renamed). Returns the number of events."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        async with await trio.open_file(temporary, "xb") as file:
            await file.write(codec.encode([header_name, genesis_wire]))
            async for wire in _certificates(database):
                await file.write(codec.encode(["c", wire]))
            async for page in _events(database):
                await file.write(b"".join(codec.encode(["e", body, signature]) for body, signature in page))
                count += len(page)
                progress(count)
            await file.flush()
            await trio.to_thread.run_sync(os.fsync, file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


async def _certificates(database: Database) -> AsyncIterator[bytes]:
    after = 0
    while rows := await _page(database, named("views")["scan_certificates"], after):
        after = rows[-1][0]
        for _, body in rows:
            yield body


async def _events(database: Database) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    after = 0
    while rows := await _page(database, named("log")["scan"], after + 1):
        after = rows[-1][0]
        yield [(body, signature) for _, body, signature in rows]


async def _page(database: Database, query: str, start: int) -> list[Any]:
    async def work(connection: Connection) -> list[Any]:
        return await connection.fetch(query, start, batch_events)

    return await database.run(work)


# -- import -----------------------------------------------------------------------------------------------------


def read_header(file: BinaryIO) -> bytes:
    """The genesis wire of a log file that stands at its beginning. Raises ``Refused``."""
    try:
        match cbor2.load(file, max_depth=4):
            case [str(name), bytes(genesis)] if name == header_name:
                return genesis
    except (cbor2.CBORError, ValueError):
        pass
    raise Refused("not_a_log_file", f"not a log file: it does not begin with a {header_name} header")


def read_items(file: BinaryIO) -> Iterator[Any]:
    """The items after the header. Raises ``Refused`` when the file ends within one."""
    decoder = cbor2.CBORDecoder(file, max_depth=4, allow_indefinite=False)
    size = os.fstat(file.fileno()).st_size
    while file.tell() < size:
        at = file.tell()
        try:
            yield decoder.decode()
        except (cbor2.CBORError, ValueError) as error:
            raise Refused("log_file_damaged", f"the file is cut or damaged at byte {at}: {error}") from None


async def import_log(log: Log, file: BinaryIO, progress: Callable[[ImportReport], None]) -> ImportReport:
    """Take every item of a log file (its header already read) into ``log``, in batches; memory stays flat.

    The next batch is parsed while the signatures of this one are checked elsewhere and while the database works.
    Raises ``Refused`` if the file is damaged; what came before that is kept.
    """
    report = ImportReport()
    async with AsyncExitStack() as stack:
        large = os.fstat(file.fileno()).st_size >= helper_bytes_min
        check = (await stack.enter_async_context(open_verifier())).check if large else on_threads
        damaged = await _import(log, file, report, progress, check)
    if damaged is not None:
        raise damaged
    return report


async def _import(
    log: Log,
    file: BinaryIO,
    report: ImportReport,
    progress: Callable[[ImportReport], None],
    check_all: Check,
) -> Refused | None:
    """Three stages at once: parsing, checking signatures, storing. Returns where the file is damaged, if it is."""
    damaged: Refused | None = None
    parsed_send, parsed = trio.open_memory_channel[Batch](1)
    sound_send, sound = trio.open_memory_channel[Batch](1)

    async def check() -> None:
        async with sound_send:
            async for events, certificates in parsed:
                bad = {event.id for event in await bad_signatures(events, certificates, log.network, check_all)}
                for event in events:
                    if event.id in bad:
                        report.reject(0, f"event {event.id.hex()}: the signature is not its author's")
                await sound_send.send(([event for event in events if event.id not in bad], certificates))

    async def store() -> None:
        async for events, certificates in sound:
            await _take(log, events, certificates, report)
            progress(report)

    with single_error():
        async with trio.open_nursery() as nursery, parsed_send:
            nursery.start_soon(check)
            nursery.start_soon(store)
            try:
                for batch in _batches(log, read_items(file), report):
                    await parsed_send.send(batch)
            except Refused as refusal:
                damaged = refusal
            await parsed_send.aclose()
    return damaged


def _batches(log: Log, items: Iterator[Any], report: ImportReport) -> Iterator[tuple[list[Event], list[Certificate]]]:
    events: list[Event] = []
    certificates: list[Certificate] = []
    size = 0
    damage: Refused | None = None
    for number, item in enumerate(_until_damaged(items), 1):
        if isinstance(item, Refused):
            damage = item
            break
        try:
            parsed = _parse(log, item)
        except Malformed as refusal:
            report.reject(number, f"item {number}: {refusal}")
            continue
        if isinstance(parsed, Event):
            report.events += 1
            events.append(parsed)
            size += len(parsed.body)
        else:
            certificates.append(parsed)
        if len(events) + len(certificates) >= batch_events or size >= batch_bytes_max:
            yield events, certificates
            events, certificates, size = [], [], 0
    if events or certificates:
        yield events, certificates
    if damage is not None:
        raise damage


def _until_damaged(items: Iterator[Any]) -> Iterator[Any]:
    """``items``, and where the file is damaged the refusal as the last one: what came before it still counts."""
    try:
        yield from items
    except Refused as refusal:
        yield refusal


def _parse(log: Log, item: Any) -> Item:
    match item:
        case ["e", bytes(body), bytes(signature)]:
            return parse(body, signature, log.network.network_id)
        case ["c", bytes(wire)]:
            if len(wire) > item_bytes_max:
                raise Malformed("too_large", f"certificate of {len(wire)} bytes, at most {item_bytes_max}")
            return parse_certificate(wire, log.network)
    raise Malformed("log_item", "expected an event or a certificate")


async def _take(log: Log, events: list[Event], certificates: list[Certificate], report: ImportReport) -> None:
    taken = await log.ingest(events, certificates)
    report.stored += taken.stored
    report.certificates += taken.certificates
    for certificate_id, refusal in taken.refusals.items():
        report.reject(0, f"certificate {certificate_id.hex()}: {refusal}")
    for event_id, outcome in taken.outcomes.items():
        match outcome:
            case Stored(verdict):
                report.refused_by_rules += verdict.status != "accepted"
            case Duplicate():
                report.duplicates += 1
            case Waiting():
                report.waiting += 1
            case Void():
                report.void += 1
            case NotAdmitted(_, message):
                report.reject(0, f"event {event_id.hex()}: {message}")
