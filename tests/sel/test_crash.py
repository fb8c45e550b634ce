"""Whatever is killed, whenever: what was acknowledged is there, once, and the chain is one (docs/protocol.md §7)."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sel.embedded import EmbeddedPostgres
from sel.guard import AuthorGuard
from sel.liveness import postmaster
from tests.sel.nodes import Place, author, make, on_own_server
from wattswarm.kernel import codec

kills = 50
authors = 2
patience_s = 60
whole_line = re.compile("(sealed|stored|withdrawn) ([0-9]+) ([0-9a-f]{64})")


class Heard:
    """What authors said, and what the guard held whenever somebody looked: event ids by seq."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.file = place.path / "heard"
        self.file.touch()
        self.guarded: dict[int, set[str]] = defaultdict(set)

    @property
    def bytes(self) -> int:
        """How much was said."""
        return self.file.stat().st_size

    def look(self) -> None:
        """Note what the guard holds now."""
        with AuthorGuard(self.place.path) as guard:
            slot = guard.newest()
        for number, (body, _) in enumerate(slot.batch if slot else (), 1):
            assert slot is not None
            self.guarded[slot.base_seq + number].add(codec.sha256(body).hex())

    def said(self, word: str) -> dict[int, set[str]]:
        """The event ids by seq of which this was said. A kill may have cut a line."""
        found: dict[int, set[str]] = defaultdict(set)
        for line in self.file.read_text().splitlines():
            if whole := whole_line.fullmatch(line):
                said, seq, event_id = whole.groups()
                if said == word:
                    found[int(seq)].add(event_id)
        return found

    def kept(self, told: dict[int, set[str]]) -> dict[int, set[str]]:
        """What of it was not withdrawn."""
        withdrawn = self.said("withdrawn")
        left = {seq: ids - withdrawn.get(seq, set()) for seq, ids in told.items()}
        return {seq: ids for seq, ids in left.items() if ids}

    @property
    def complaints(self) -> str:
        """What authors wrote to stderr: nothing, unless one of them met what it cannot handle."""
        return self.file.with_suffix(".err").read_text()


@contextmanager
def reaped(place: Place) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list of processes that use ``place``: at the end they are gone, and so is the server that they left."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        yield children
    finally:
        kill([child.pid for child in children if child.poll() is None], children)
        with EmbeddedPostgres(place.path):
            pass


def fill(children: list[subprocess.Popen[bytes]], place: Place, heard: Heard) -> list[subprocess.Popen[bytes]]:
    """Have ``authors`` processes that author; those that ended did so because they were killed."""
    alive = [child for child in children if child.poll() is None]
    assert {child.returncode for child in children} <= {None, -signal.SIGKILL}, heard.complaints
    started = [
        author(place.path, f"c{number}", heard.file)
        for number in range(len(children), len(children) + authors - len(alive))
    ]
    children.extend(started)
    return alive + started


def wait_for_more(heard: Heard, before: int) -> None:
    """Until somebody said something."""
    end = time.monotonic() + patience_s
    while heard.bytes == before:
        assert time.monotonic() < end, f"nobody authors: {heard.complaints}"
        time.sleep(0.005)


def server(place: Place) -> list[int]:
    """The server's process, if it listens."""
    pid = postmaster(place.path / "pg" / "data")
    return [pid] if pid else []


def kill(pids: list[int], children: list[subprocess.Popen[bytes]]) -> None:
    """All at once; the children among them are gone when this returns, so that nobody takes them for authors."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for child in children:
        if child.pid in pids:
            child.wait(patience_s)


async def assert_one_chain(place: Place, heard: Heard) -> int:
    """One chain that holds all that was acknowledged, and no other word of this key; everything agrees with it."""
    heard.look()
    async with on_own_server(place) as opened:
        await opened.create("after-all")
        events = await opened.events()
        assert {said.author for said in events} == {place.keys.node_id}
        assert [said.author_seq for said in events] == list(range(len(events)))
        logged = {said.author_seq: {said.id.hex()} for said in events}
        for told in (heard.said("stored"), heard.kept(heard.said("sealed")), heard.kept(heard.guarded)):
            assert [seq for seq, ids in told.items() if ids != logged.get(seq)] == []
        assert (await opened.verify()).problems == []
        head = await opened.log.head()
        assert head.events == head.seq == len(events)
        assert await opened.replay() == head
        return len(events)


@pytest.mark.timeout(400)
async def test_fifty_kills_lose_nothing_and_fork_nothing(tmp_path: Path) -> None:
    place = make(tmp_path / "node")
    heard = Heard(place)
    kill_often(place, heard, random.Random(20261121))
    assert heard.complaints == ""
    assert len(heard.said("stored")) > kills
    await assert_one_chain(place, heard)


def kill_often(place: Place, heard: Heard, draw: random.Random) -> None:
    """Kill authors, the server, or everything at once, while they author or, at times, while they begin or recover."""
    with reaped(place) as children:
        for _ in range(kills):
            alive = [child.pid for child in fill(children, place, heard)]
            if draw.random() < 0.8:
                wait_for_more(heard, heard.bytes)
                time.sleep(draw.random() * 0.05)
            else:
                time.sleep(draw.random() * 0.5)
            one, all_ = [draw.choice(alive)], [*server(place), *alive]
            kill(draw.choice((*[one] * 4, *[server(place)] * 5, all_)), children)
            heard.look()
        fill(children, place, heard)
        wait_for_more(heard, heard.bytes)


@pytest.mark.timeout(200)
async def test_eight_processes_author_one_chain_and_none_starves(tmp_path: Path) -> None:
    place = make(tmp_path / "node")
    heard = Heard(place)
    each = 15
    with reaped(place) as children:
        children += [author(place.path, f"p{number}", heard.file, each) for number in range(8)]
        assert [child.wait(patience_s) for child in children] == [0] * 8, heard.complaints
    stored = heard.said("stored")
    assert stored == heard.kept(heard.said("sealed"))
    assert sorted(stored) == list(range(len(stored)))
    assert len(stored) > 8 * each * 2
    assert await assert_one_chain(place, heard) == len(stored) + 2
