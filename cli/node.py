"""``wattswarm node``: this node itself, and the daemon that runs it in the background."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.node_daemon import daemon_options, serve, words
from cli.options import Session, add
from wattswarm.kernel.refusal import Refused

if TYPE_CHECKING:
    from wattswarm.node import Node

command = group = click.Group("node", help="This node itself.")
log_name = "node.log"
log_bytes_max = 8 * 1024 * 1024
start_s_max = 90.0
stop_s_max = 35.0
poll_s = 0.02
last_lines = 12


@add(group, "up", "wattswarm node up")
@daemon_options
@click.option("--foreground", is_flag=True, help="stay, and log to stderr, as wattswarm-node does")
def up(session: Session, flags: dict[str, str | None], foreground: bool) -> int:
    """Start the daemon in the background, and wait until it is ready."""
    from wattswarm.presence import daemon_process

    config = session.config(flags)
    if foreground:
        return serve(config)
    runs = daemon_process(config.state_dir)
    if runs is None:
        said = _start([*words({**session.flags, **flags})], config.state_dir)
        output.note(f"the daemon runs as process {daemon_process(config.state_dir)}, its log is {said}")
    else:
        output.note(f"a daemon runs already (process {runs})")
    if session.as_json:
        output.document({"running": True, "process": daemon_process(config.state_dir)})
    return 0


def _start(flags: list[str], state_dir: Path) -> Path:
    """Start a daemon of its own session, and read its ready line. Raises ``Refused`` with what it said instead."""
    log = state_dir / log_name
    try:
        state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > log_bytes_max:
            log.replace(log.with_suffix(".log.1"))
        stderr = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused("state_dir", f"{log} cannot be written: {error.strerror}") from None
    said_from = os.fstat(stderr).st_size
    command = [sys.executable, "-m", "cli.node_daemon", *flags]
    with os.fdopen(stderr, "wb") as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    assert child.stdout is not None
    try:
        ready = select.select([child.stdout], [], [], start_s_max)[0] and child.stdout.readline()
    except BaseException:
        child.terminate()
        raise
    if not ready:
        child.terminate()
        raise Refused("daemon_start", f"the daemon did not become ready{_said_last(log, said_from)}")
    child.returncode = 0  # it goes on without us: nothing here waits for it
    return log


def _said_last(log: Path, said_from: int) -> str:
    with log.open("rb") as file:
        file.seek(said_from)
        lines = file.read().decode("utf-8", "replace").strip().splitlines()[-last_lines:]
    return "; it said last:\n" + "\n".join(f"  {line}" for line in lines) if lines else ", and said nothing"


@add(group, "down", "wattswarm node down")
def down(session: Session) -> None:
    """Stop the daemon, and wait until it has closed everything."""
    from wattswarm.presence import ask_to_stop, daemon_process

    state_dir = session.config().state_dir
    pid = ask_to_stop(state_dir)
    if pid is None:
        output.note(f"no daemon runs in {state_dir}")
    else:
        deadline = time.monotonic() + stop_s_max
        while daemon_process(state_dir) == pid:
            if time.monotonic() > deadline:
                raise Refused("daemon_stop", f"the daemon (process {pid}) was asked to stop {stop_s_max:g} s ago")
            time.sleep(poll_s)
        output.note(f"stopped (process {pid})")
    if session.as_json:
        output.document({"running": False, "stopped": pid})


@add(group, "status", "wattswarm node status", "wattswarm node status --json")
async def status(session: Session) -> None:
    """Whether the daemon runs, who is connected, what the log holds, and what is wrong."""
    from cli.node_status import show
    from wattswarm.status import status as status_of

    async with session.node(make=False) as node:
        found = await status_of(node)
    if session.as_json:
        output.document(found)
    else:
        show(found)


@add(group, "recover", "wattswarm node recover --yes", "wattswarm node recover --yes --peers 0")
@click.option("--peers", type=click.IntRange(0), help="ask so many other members [as many as decide, with this node]")
@click.option("--wait", "wait_s", type=click.FloatRange(0), help="give up after so many seconds [never]")
@click.option("--yes", is_flag=True, help="do not ask")
async def recover(session: Session, peers: int | None, wait_s: float | None, yes: bool) -> None:
    """Make this host the writer of the node's chain again, after a copy, a restore or a lost author guard.

    Waits until enough members are connected and what they hold of this node's chain is here; with the daemon running
    or without it. With fewer --peers, events that only others hold are met too late: then the chain forks for good.
    """
    from wattswarm.recovery import diagnose, make_writer, others_of, told_fence

    async with session.node(make=False) as node:
        found = await diagnose(node.log, node.guard)
        if not found.needed:
            output.note("the author guard and the database agree: there is nothing to recover")
            return
        output.note(found.why)
        others = len(others_of(node.log.network.current, node.home.keys.node_id))
        if others:
            asked_first = "as many of them as decide" if peers is None else f"{peers} of them"
            output.note(
                f"The network has {others} other members: {asked_first} are asked for this node's events first."
            )
        output.note(
            f"The database's chain ends at event {found.seq}. If the original of this state directory is still in "
            "use, or had authored more than this database and those who are asked hold, going on forks the chain for "
            "good."
        )
        if not yes:
            await _agreed()
        asked = await _ask_members(node, peers, wait_s) if others else frozenset()
        found = await make_writer(node.log, node.guard, asked)
        head, fence = await diagnose(node.log, node.guard), await node.log.fence()
    if session.as_json:
        output.document(
            {
                "recovered": True,
                "seq": head.seq,
                "inserted": found.unfinished,
                "asked": len(asked),
                "fenced": fence.until_ms,
            }
        )
        return
    whole = "" if found.needed else ", whose chain came back whole"
    output.note(f"recovered: this host authors on from event {head.seq}{whole}")
    if told := told_fence(fence):
        output.note(f"from now on: {told}")


async def _agreed() -> None:
    import trio

    ask = partial(click.confirm, "Make this host the chain's only writer?", abort=True, err=True)
    await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


async def _ask_members(node: Node, count: int | None, wait_s: float | None) -> frozenset[bytes]:
    """Ask over the daemon's connections, or over connections of one's own if none runs. Raises ``Refused``."""
    import trio

    from wattswarm.neighbours import attach
    from wattswarm.presence import daemon_process, presence, read_state
    from wattswarm.recovery import ask_members

    path = node.home.path

    def peers_of_daemon() -> list[dict[str, Any]]:
        said = read_state(path)
        return said.peers if said is not None and daemon_process(path) is not None else []

    with trio.move_on_after(float("inf") if wait_s is None else wait_s):
        if daemon_process(path) is not None:
            return await ask_members(node.log, node.guard, peers_of_daemon, count, output.note)
        with presence(path):
            async with attach(node) as neighbours:
                return await ask_members(node.log, node.guard, neighbours.peers, count, output.note)
    raise Refused(
        "too_few_members",
        f"within {wait_s:g} s too few members answered, or more of the chain kept coming: connect this node "
        "(`wattswarm node up --bootstrap HOST:PORT`), wait longer, or name a smaller number with --peers, at the risk "
        "of a fork",
    )
