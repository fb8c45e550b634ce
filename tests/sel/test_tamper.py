"""The log is append-only, and whoever gets round that is found out, row by row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sel.errors import StoreUnavailable
from tests.sel.nodes import Opened, make, on_server


@asynccontextmanager
async def filled(dsn: str, place: Path) -> AsyncIterator[Opened]:
    """A log with three tasks: six events."""
    async with on_server(dsn, make(place)) as opened:
        for number in range(3):
            await opened.create(f"t-{number}")
        yield opened


@pytest.mark.parametrize(
    ("table", "column"), [("events", "body"), ("certificates", "body"), ("finality_votes", "task")]
)
@pytest.mark.parametrize("statement", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0}"])
async def test_the_log_refuses_change(
    postgres_dsn: str, tmp_path: Path, table: str, column: str, statement: str
) -> None:
    async with filled(postgres_dsn, tmp_path) as opened:
        with pytest.raises(Exception, match="append-only") as refusal:
            await opened.execute(statement.format(table, column))
        assert not isinstance(refusal.value, StoreUnavailable)
        assert (await opened.verify()).problems == []


tamperings = [
    ("UPDATE events SET body = set_byte(body, 60, get_byte(body, 60) # 1) WHERE seq = 3", {3}, "not an event|hash to"),
    ("UPDATE events SET signature = set_byte(signature, 5, 7) WHERE seq = 4", {4}, "signature is not the author's"),
    ("UPDATE events SET kind = 'VOTE_REVEAL' WHERE seq = 2", {2}, "column disagrees"),
    ("UPDATE events SET author_seq = 77 WHERE seq = 5", {5}, "column disagrees"),
    ("DELETE FROM events WHERE seq = 2", {2, 3}, "missing|breaks its author's chain"),
    ("DELETE FROM events WHERE seq = 6", {6}, "missing"),
    ("UPDATE streams SET digest = set_byte(digest, 0, get_byte(digest, 0) # 1)", {0}, "not what its events give"),
    ("UPDATE log_head SET state_root = set_byte(state_root, 0, get_byte(state_root, 0) # 1)", {0}, "state root"),
    ("UPDATE log_head SET events = events + 1", {0}, "live events"),
]


@pytest.mark.parametrize(("statement", "seqs", "words"), tamperings, ids=[t[0][:40] for t in tamperings])
async def test_a_tampered_row_is_named(
    postgres_dsn: str, tmp_path: Path, statement: str, seqs: set[int], words: str
) -> None:
    async with filled(postgres_dsn, tmp_path) as opened:
        assert (await opened.verify()).problems == []
        await opened.execute("ALTER TABLE events DISABLE TRIGGER ALL", statement)
        problems = (await opened.verify()).problems
        assert seqs <= {problem.seq for problem in problems}
        for seq in seqs:
            said = [problem.what for problem in problems if problem.seq == seq]
            assert any(re.search(words, what) for what in said), said
