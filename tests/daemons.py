"""Daemons as processes of their own for tests, and what is asked of their node meanwhile, over the same log.

Every process that a test starts is ended by its own id, and its Postgres with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import trio

from sel import views
from sel.embedded import EmbeddedPostgres, running
from tests.sizes import root
from wattswarm import tasks
from wattswarm.config import load
from wattswarm.kernel.contract_draft import sample_contract
from wattswarm.node import Node, open_node

T = TypeVar("T")

day_ms = 86_400_000
patience_s = 30.0
ready_s = 90.0
"""A daemon that recovers a database on a busy host may need long."""
node_s = 100.0
"""How long one question to a node may take. The alarm of pytest-timeout breaks trio's loop and whatever it owns."""
clean_environment = {key: value for key, value in os.environ.items() if not key.startswith("WATTSWARM_")}


class Daemon:
    """``wattswarm-node`` in a state directory. Ready once made, unless ``wait`` is False.

    ``within``: words before its command, such as make it run in a network namespace.
    """

    def __init__(self, state_dir: Path, *flags: str, wait: bool = True, within: Sequence[str] = ()) -> None:
        self.state_dir = state_dir
        self.log = state_dir.with_suffix(".log")
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "cli.node_daemon", "--state-dir", str(state_dir), *flags],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**clean_environment, "PYTHONPATH": str(root)},
            )
        self.ready = ""
        if wait:
            self.begun()

    def begun(self) -> str:
        """Wait until it is ready; what it says then."""
        self.ready = first_line(self.process, ready_s).strip()
        assert self.ready.startswith("ready "), self.said()
        return self.ready

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(how)
        self.process.communicate(timeout=patience_s)
        return self.process.returncode

    def kill(self) -> None:
        """End it without a word. Its Postgres goes on alone."""
        self.process.kill()
        self.process.communicate(timeout=patience_s)


def first_line(process: subprocess.Popen[str], within_s: float) -> str:
    """What a process says first; empty if it ends without a word. Fails if it says nothing for too long."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], within_s)[0], f"{process.args!r} says nothing for {within_s} s"
    return process.stdout.readline()


@contextmanager
def place() -> Iterator[Path]:
    """A state directory to be, in a short path; no server of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="wsd-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        state_dir = Path(directory, "state")
        yield state_dir
        if running(state_dir):
            with EmbeddedPostgres(state_dir):
                pass
        assert not running(state_dir)


def stop_all(daemons: Sequence[Daemon]) -> None:
    """End those that still run, all at once, and their Postgres with them; who does not hear is killed."""
    live = [each for each in daemons if each.process.poll() is None]
    for each in live:
        each.process.terminate()
    deadline = time.monotonic() + patience_s
    for each in live:
        try:
            each.process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.kill()


@contextmanager
def daemon(state_dir: Path, *flags: str, within: Sequence[str] = ()) -> Iterator[Daemon]:
    """A daemon, ended with the block if it still lives."""
    started = Daemon(state_dir, *flags, within=within)
    try:
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.kill()


def wattswarm(state_dir: Path, *words: str, within: Sequence[str] = ()) -> Any:
    """A command on the node of a state directory, its answer as JSON values. ``within``: words before it."""
    done = subprocess.run(
        [*within, sys.executable, "-m", "cli.main", "--state-dir", str(state_dir), "--json", *words],
        env={**clean_environment, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def contract(label: str, **budget: int) -> dict[str, Any]:
    """A valid contract that one node can decide."""
    made = sample_contract(label, time.time_ns() // 1_000_000 + day_ms, "ed25519:" + "00" * 32)
    made["budget"].update(budget)
    return made


def on_node(state_dir: Path, work: Callable[[Node], Awaitable[T]]) -> T:
    """Do something as the node of a state directory, beside its daemon, in this process."""

    async def whole() -> T:
        with trio.fail_after(node_s):
            async with open_node(load({"state_dir": str(state_dir)}, {})) as node:
                return await work(node)

    return trio.run(whole)


def submit(state_dir: Path, *documents: dict[str, Any]) -> None:
    """Submit tasks."""

    async def work(node: Node) -> None:
        for document in documents:
            await tasks.submit(node.log, document)

    on_node(state_dir, work)


def states(state_dir: Path) -> dict[str, str]:
    """Task label -> state."""

    async def work(node: Node) -> dict[str, str]:
        return {view.task_id: view.state for view in await views.tasks(node.database)}

    return on_node(state_dir, work)


def kinds(state_dir: Path, task: str) -> list[str]:
    """The kinds of a task's events, in canonical order."""

    async def work(node: Node) -> list[str]:
        return [event.kind for event in (await node.log.task(await node.log.resolve(task))).events]

    return on_node(state_dir, work)


def eventually(happened: Callable[[], bool], what: str | Callable[[], str] = "", within_s: float = patience_s) -> None:
    """Ask until it is so. Every question takes a while by itself. ``what``: what to say if it never is."""
    deadline = time.monotonic() + within_s
    while not happened():
        late = time.monotonic() > deadline
        assert not late, f"not within {within_s} s: {what() if callable(what) else what or happened}"
        time.sleep(0.01)
