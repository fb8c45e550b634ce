"""Whatever is killed, whenever: what was acknowledged is there, once, and the chain is one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

import pytest
import trio

from sel.audit import verify
from sel.replay import replay
from sel.views import EventFilter, EventView, events
from tests.sel.nodes import author, claimed, created, node
from wattswarm.node import Node

kills = 50
authors = 3
child_s = 60


class Acknowledged:
    """What children said was acknowledged: (seq, event id), gathered on threads while they live."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []
        self._threads: list[threading.Thread] = []

    def follow(self, child: subprocess.Popen[str]) -> None:
        """Listen to a child until its output ends."""
        assert child.stdout is not None
        thread = threading.Thread(target=self._read, args=(child.stdout,))
        thread.start()
        self._threads.append(thread)

    def _read(self, source: IO[str]) -> None:
        with source:
            for line in source:
                seq, _, event_id = line.strip().partition(" ")
                if len(event_id) == 64:
                    self.said.append((int(seq), event_id))

    def end(self) -> list[tuple[int, str]]:
        """All of it, when every child is gone."""
        for thread in self._threads:
            thread.join(child_s)
        return self.said


async def all_events(opened: Node) -> list[EventView]:
    found: list[EventView] = []
    while page := await events(
        opened.database, opened.home.genesis.network_id, EventFilter(found[-1].seq if found else 0)
    ):
        found.extend(page)
    return found


async def check(state_dir: Path, acknowledged: list[tuple[int, str]]) -> int:
    """One chain without gap or fork that holds all that was acknowledged; verify and replay agree."""
    async with node(state_dir) as opened:
        await opened.log.author(created("after-all", opened.log.network.network_id))
        logged = await all_events(opened)
        chain = {view.author_seq: view.event_id for view in logged}
        assert len({view.author for view in logged}) == 1
        assert sorted(chain) == list(range(len(logged)))
        assert [(seq, event_id) for seq, event_id in acknowledged if chain.get(seq) != event_id] == []
        report = await verify(opened.database, opened.genesis_network, lambda _: None)
        assert report.problems == []
        head = await opened.log.head()
        assert await replay(opened.database, opened.genesis_network, lambda _: None) == head
        return len(logged)


def server_pid(state_dir: Path) -> int | None:
    try:
        return int((state_dir / "pg" / "data" / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


@pytest.mark.timeout(300)
def test_fifty_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    draw = random.Random(20261121)
    heard = Acknowledged()
    children: list[subprocess.Popen[str]] = []
    number = 0
    for _ in range(kills):
        children = [child for child in children if child.poll() is None]
        while len(children) < authors:
            children.append(author(tmp_path, f"c{number}"))
            heard.follow(children[-1])
            number += 1
        before = len(heard.said)
        end = time.monotonic() + child_s
        while len(heard.said) == before and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.1)
        victim = server_pid(tmp_path) if draw.random() < 0.3 else draw.choice(children).pid
        if victim is not None:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
    for child in children:
        child.kill()
    for child in children:
        child.wait(child_s)
    acknowledged = heard.end()
    assert len(acknowledged) > kills
    assert trio.run(check, tmp_path, acknowledged) > len(acknowledged)


@pytest.mark.timeout(200)
def test_eight_processes_author_one_chain(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    heard = Acknowledged()
    each = 20
    children = [author(tmp_path, f"p{number}", each) for number in range(8)]
    for child in children:
        heard.follow(child)
    for child in children:
        assert child.wait(child_s) == 0
    acknowledged = heard.end()
    assert len(acknowledged) == 8 * each * 2
    assert len({seq for seq, _ in acknowledged}) == len(acknowledged)
    assert trio.run(check, tmp_path, acknowledged) == len(acknowledged) + 1


async def test_what_was_sealed_when_the_server_died_is_in_the_log_once(tmp_path: Path) -> None:
    async with node(tmp_path) as opened:
        membership = opened.log.network.network_id
        acknowledged = []
        for number in range(6):
            if number % 2:
                pid = server_pid(tmp_path)
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            written = await opened.log.author(created(f"t-{number}", membership), claimed(f"x-{number}"))
            acknowledged += [(event.author_seq, event.id.hex()) for event in written]
        assert (await opened.log.head()).events == 12
    assert await check(tmp_path, acknowledged) == 13
