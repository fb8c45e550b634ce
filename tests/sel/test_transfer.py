"""Log files: what was exported is what is imported, and a damaged file says where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.swarm import Swarm, certificate, history
from sel.guard import AuthorGuard
from sel.log import Log, open_log
from sel.memory import MemoryStore
from sel.transfer import ImportReport, export_log, header_name, import_log, read_header
from tests.sel.nodes import member, now_ms, on_server
from wattswarm.kernel import codec
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused

event_count = 60


def items() -> tuple[bytes, list[bytes]]:
    """A header, and the items of a swarm's whole tasks."""
    swarm = Swarm()
    found = []
    for events in history(swarm, event_count):
        found += [codec.encode(["e", *event.wire]) for event in events]
        found.append(codec.encode(["c", certificate(events).wire()]))
    return codec.encode([header_name, swarm.genesis.wire()]), found


header, whole = items()


@asynccontextmanager
async def empty_log(tmp_path: Path) -> AsyncIterator[Log]:
    guard = AuthorGuard(tmp_path)
    guard.create()
    network = Network.of(Swarm().genesis)
    async with open_log(MemoryStore(), network, Keypair(b"\x99" * 32), guard, now_ms) as log:
        yield log


async def take(log: Log, path: Path, content: bytes) -> ImportReport:
    path.write_bytes(content)  # noqa: ASYNC240 - a test's own small file
    with path.open("rb") as file:
        read_header(file)
        return await import_log(log, file, lambda _: None)


async def test_an_import_takes_everything_once(tmp_path: Path) -> None:
    async with empty_log(tmp_path) as log:
        first = await take(log, tmp_path / "log", header + b"".join(whole))
        assert (first.stored, first.refused_by_rules, first.rejected) == (first.events, 0, 0)
        head = await log.head()
        assert head.certificates == first.certificates == first.events // 13
        again = await take(log, tmp_path / "log", header + b"".join(whole))
        assert (again.stored, again.duplicates, again.certificates) == (0, first.events, 0)
        assert await log.head() == head


async def test_a_file_in_reverse_order_ends_equal(tmp_path: Path) -> None:
    async with empty_log(tmp_path) as log:
        await take(log, tmp_path / "log", header + b"".join(whole))
        forwards = await log.head()
    async with empty_log(tmp_path) as log:
        await take(log, tmp_path / "log", header + b"".join(reversed(whole)))
        backwards = await log.head()
    assert (forwards.events_sum, forwards.certificates_sum) == (backwards.events_sum, backwards.certificates_sum)
    assert forwards.state_root == backwards.state_root


damages: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("cut within an item", lambda content: content[:-20], "cut or damaged at byte"),
    ("a flipped length", lambda content: content[: len(content) // 2] + b"\xff" * 3, "cut or damaged at byte"),
    ("5,000 levels", lambda content: content + b"\x81" * 5_000 + b"\x00", "cut or damaged at byte"),
]


@pytest.mark.parametrize(("damage", "words"), [d[1:] for d in damages], ids=[d[0] for d in damages])
async def test_a_damaged_file_says_where_and_what_came_before_is_kept(
    tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    async with empty_log(tmp_path) as log:
        with pytest.raises(Refused, match=words):
            await take(log, tmp_path / "log", damage(header + b"".join(whole)))
        assert (await log.head()).events > 0


@pytest.mark.parametrize("content", [b"", b"\xff", codec.encode(["other", b""]), codec.encode({"a": 1}), b"PK\x03\x04"])
async def test_another_file_is_refused_at_its_header(tmp_path: Path, content: bytes) -> None:
    async with empty_log(tmp_path) as log:
        with pytest.raises(Refused, match="not a log file"):
            await take(log, tmp_path / "log", content)


async def test_an_item_with_a_bad_signature_is_left_out_and_counted(tmp_path: Path) -> None:
    forged = bytearray(whole[-2])
    forged[-1] ^= 1
    async with empty_log(tmp_path) as log:
        report = await take(log, tmp_path / "log", header + b"".join(whole[:-2]) + bytes(forged))
        assert report.rejected == 1
        assert "signature" in report.problems[0][1]
        assert report.stored == report.events - 1


async def test_an_export_of_a_real_log_is_the_same_set(postgres_dsn: str, tmp_path: Path) -> None:
    genesis = Swarm().genesis
    async with on_server(postgres_dsn, member(tmp_path / "a", Keypair(b"\x99" * 32), genesis)) as opened:
        await take(opened.log, tmp_path / "log", header + b"".join(whole))
        head = await opened.log.head()
        assert await export_log(opened.database, genesis.wire(), tmp_path / "copy", lambda _: None) == head.events
    async with on_server(postgres_dsn, member(tmp_path / "b", Keypair(b"\x98" * 32), genesis)) as opened:
        with (tmp_path / "copy").open("rb") as file:
            read_header(file)
            await import_log(opened.log, file, lambda _: None)
        assert await opened.log.head() == head
