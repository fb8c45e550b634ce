"""A node that comes back to its swarm: with an empty log, after a long absence, wiped, and restored from old backups.

Four daemons as processes, and a fifth member whose key signs on paper. Whatever is done to the last of them, it ends
equal to the others, forks no chain, and casts no second finality vote.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from sel import views
from sel.guard import file_name as guard_name
from sel.views import EventFilter
from tests.cast import everything
from tests.daemons import Daemon, clean_environment, contract, on_node, place, states, stop_all, submit, wattswarm
from tests.ghosts import Ghost
from tests.sizes import root
from tests.swarms import becomes, node_id_of, register, runtime, standing, state_of
from wattswarm.checkpoint import author_checkpoint
from wattswarm.home import open_home
from wattswarm.node import Node, now_ms

small, large = 200, 10_000
names = ("ann", "bob", "cid", "dot")


class Haunted:
    """Four places, the daemons that run in them, and the ghost of their network. ``dot`` is the one that comes back."""

    def __init__(self, stack: ExitStack) -> None:
        self.places = {name: stack.enter_context(place()) for name in names}
        homes = [open_home(where, now_ms()) for where in self.places.values()]
        members = {home.keys.node_id: everything for home in homes}
        self.ghost = Ghost(members, [home.keys for home in homes], now_ms())
        for where in self.places.values():
            (where / "network.cbor").unlink()
            open_home(where, now_ms(), self.ghost.genesis)
        self.daemons: dict[str, Daemon] = {}
        stack.callback(self._end)

    def _end(self) -> None:
        stop_all(list(self.daemons.values()))

    def start(self, *wanted: str) -> None:
        """Start daemons, one after the other; each calls those that run."""
        for name in wanted:
            known = [daemon.ready.rsplit("=", 1)[1] for daemon in self.daemons.values()]
            calls = [word for address in known for word in ("--bootstrap", address)]
            self.daemons[name] = Daemon(self.places[name], "--listen", "127.0.0.1:0", *calls)

    def stop(self, *wanted: str) -> None:
        ended = [self.daemons.pop(name) for name in wanted]
        stop_all(ended)
        assert [each.process.returncode for each in ended] == [0] * len(ended)

    def all_equal(self) -> None:
        """All that run come to hold the same, without a fork and without a second vote."""
        becomes(lambda: len({standing(self.places[name]) for name in self.daemons}), 1, 60)
        for name in self.daemons:
            on_node(self.places[name], _is_honest)


async def _is_honest(node: Node) -> None:
    assert await views.forks(node.database) == []
    assert set((await _votes(node)).values()) <= {1}


async def _votes(node: Node) -> Counter[tuple[str, str | None, int]]:
    """(author, task, epoch) -> finality votes."""
    found = await views.events(node.database, node.log.network.network_id, EventFilter(kind="FINALITY_VOTE"))
    return Counter((vote.author, vote.task, vote.epoch) for vote in found)


async def _votes_on(node: Node, task: str) -> Counter[tuple[str, str | None, int]]:
    wanted = (await node.log.resolve(task)).hex()
    return Counter({vote: count for vote, count in (await _votes(node)).items() if vote[1] == wanted})


async def _chain(node: Node) -> int:
    """How many events of its own a node holds."""
    chains = await node.log.read(lambda txn: txn.chains([node.home.keys.node_id]))
    return max((line.head.seq + 1 for line in chains.values()), default=0)


def speak(where: Path) -> None:
    """Have the node author something that asks for no answer."""

    async def work(node: Node) -> None:
        await author_checkpoint(node.log)

    on_node(where, work)


def said(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command, however it ends."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "--state-dir", str(where), *words],
        env={**clean_environment, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def authors_nothing(where: Path) -> None:
    """A node that its guard keeps from authoring, and the command that it tells."""
    done = said(where, "log", "checkpoint")
    assert (done.returncode, "wattswarm node recover" in done.stderr) == (1, True), done.stderr
    checks = json.loads(said(where, "doctor", "--json").stdout)
    guard = next(check for check in checks if check["name"] == "author guard")
    assert (guard["ok"], guard["mend"]) == (False, "wattswarm node recover")


def waits_for(where: Path, task: str) -> str:
    """What a task waits for, as a node tells it."""
    return str(wattswarm(where, "task", "watch", task, "--once").get("waits_for"))


def save(where: Path) -> Path:
    """A copy of a state directory of which nothing runs."""
    copy = where.with_name(f"backup-{time.monotonic_ns()}")
    subprocess.run(["cp", "-a", str(where), str(copy)], check=True)
    return copy


@pytest.fixture(scope="module")
def swarm() -> Iterator[Haunted]:
    with ExitStack() as stack:
        made = Haunted(stack)
        url = stack.enter_context(runtime())
        register(list(made.places.values()), url)
        history = made.places["ann"].with_name("history")
        made.ghost.write(history, small)
        wattswarm(made.places["ann"], "log", "import", str(history))
        made.start("ann", "bob", "cid")
        yield made


def test_a_node_that_joins_with_an_empty_log_ends_equal(swarm: Haunted) -> None:
    dot = swarm.places["dot"]
    swarm.start("dot")
    swarm.all_equal()
    assert standing(dot)[0] >= small
    submit(dot, contract("first"))  # it may author at once, and takes part
    becomes(partial(state_of, dot, "first"), "FINALIZED")
    swarm.all_equal()


def test_wiped_database_comes_back_from_the_others_and_the_guard_that_was_kept_agrees(swarm: Haunted) -> None:
    dot = swarm.places["dot"]
    said_before = on_node(dot, _chain)
    swarm.stop("dot")
    shutil.rmtree(dot / "pg")
    swarm.start("dot")
    swarm.all_equal()
    assert on_node(dot, _chain) >= said_before
    submit(dot, contract("after-wipe"))
    becomes(partial(state_of, dot, "after-wipe"), "FINALIZED")
    swarm.all_equal()


def test_key_that_was_kept_alone_authors_nothing_until_its_chain_is_back(swarm: Haunted) -> None:
    dot = swarm.places["dot"]
    said_before = on_node(dot, _chain)
    swarm.stop("dot")
    shutil.rmtree(dot / "pg")
    (dot / guard_name).unlink()
    swarm.start("dot")
    authors_nothing(dot)
    done = wattswarm(dot, "node", "recover", "--yes", "--wait", "50")
    assert (done["recovered"], done["asked"]) == (True, 3)
    assert on_node(dot, _chain) >= said_before
    speak(dot)
    swarm.all_equal()


def test_old_backup_of_the_database_authors_nothing_until_recovered_and_casts_no_old_vote(swarm: Haunted) -> None:
    """With ``bob`` away, decisions need this node's vote: what it was asked before its recovery, it never answers."""
    dot, ann = swarm.places["dot"], swarm.places["ann"]
    swarm.stop("dot")
    backup = save(dot)
    swarm.start("dot")
    swarm.all_equal()
    speak(dot)
    swarm.all_equal()
    swarm.stop("dot", "bob")
    shutil.rmtree(dot / "pg")
    subprocess.run(["cp", "-a", str(backup / "pg"), str(dot / "pg")], check=True)
    (dot / guard_name).unlink()
    subprocess.run(["cp", "-a", str(backup / guard_name), str(dot / guard_name)], check=True)
    swarm.start("dot")
    authors_nothing(dot)
    submit(ann, contract("before"))
    becomes(lambda: "waiting for 1 of 3 finality votes" in waits_for(ann, "before"), True)
    refused = said(dot, "node", "recover", "--yes", "--wait", "2")
    assert (refused.returncode, "2 of 4 other members asked, waiting for 3" in refused.stderr) == (1, True), refused
    done = wattswarm(dot, "node", "recover", "--yes", "--peers", "2", "--wait", "50")
    assert done["recovered"]
    becomes(lambda: now_ms() > done["fenced"], True)
    submit(ann, contract("since"))
    becomes(partial(state_of, ann, "since"), "FINALIZED")
    assert state_of(ann, "before") == "OPEN"
    assert "no finality vote on tasks created before" in wattswarm(dot, "node", "status")["recovered"]
    swarm.start("bob")
    becomes(partial(state_of, ann, "before"), "FINALIZED")
    swarm.all_equal()
    me = node_id_of(dot)
    old = [name for name, _, _ in on_node(dot, partial(_votes_on, task="before")) if name == me]
    assert old == []


def test_snapshot_of_guard_and_database_together_hears_of_its_own_events_first(swarm: Haunted) -> None:
    """Nothing on the host tells: the guard is the very file, and agrees. An expired task waits to be spoken about."""
    dot, ann = swarm.places["dot"], swarm.places["ann"]
    short = contract("short")
    short |= {"task_type": "none", "expiry_ms": now_ms() + 15_000}
    submit(ann, short)
    becomes(partial(lambda: "short" in states(dot)), True)
    swarm.stop("dot")
    backup = save(dot)
    swarm.start("dot")
    speak(dot)
    swarm.all_equal()
    becomes(partial(state_of, ann, "short"), "EXPIRED")
    swarm.all_equal()
    swarm.stop("dot")
    shutil.rmtree(dot / "pg")
    subprocess.run(["cp", "-a", str(backup / "pg"), str(dot / "pg")], check=True)
    with (dot / guard_name).open("r+b") as file:
        file.write((backup / guard_name).read_bytes())
        file.truncate()
    swarm.start("dot")
    swarm.all_equal()
    authors_nothing(dot)
    assert wattswarm(dot, "node", "recover", "--yes", "--wait", "50")["recovered"]
    speak(dot)
    swarm.all_equal()


def test_node_that_was_away_for_ten_thousand_events_ends_equal(swarm: Haunted) -> None:
    dot, ann = swarm.places["dot"], swarm.places["ann"]
    swarm.stop("dot", "cid", "bob")
    history = ann.with_name("history")
    assert swarm.ghost.write(history, large) >= large
    wattswarm(ann, "log", "import", str(history))
    swarm.start("dot")
    swarm.all_equal()
    assert standing(dot)[0] >= large + small
