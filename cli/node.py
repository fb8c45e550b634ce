"""``wattswarm node``: this node itself, and the daemon that runs it in the background."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import click

from cli import output
from cli.node_daemon import daemon_options, serve, words
from cli.options import Session, add
from wattswarm.kernel.refusal import Refused

command = group = click.Group("node", help="This node itself.")
log_name = "node.log"
log_bytes_max = 8 * 1024 * 1024
start_s_max = 90.0
stop_s_max = 35.0
poll_s = 0.02
last_lines = 12
counted = ("peers", "kept_out", "forks", "alarms", "peer_protocol_distribution")
"""What ``status`` tells people the number of."""


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


@add(group, "recover", "wattswarm node recover --yes")
@click.option("--yes", is_flag=True, help="do not ask")
async def recover(session: Session, yes: bool) -> None:
    """Make this host the writer of the node's chain again, after a copy, a restore or a lost author guard.

    Only on a network whose only member is this node: nobody else can hold newer events of its chain.
    """
    import trio

    from wattswarm.recovery import diagnose, make_writer

    async with session.node(make=False) as node:
        found = await diagnose(node.log, node.guard)
        if not found.needed:
            output.note("the author guard and the database agree: there is nothing to recover")
            return
        output.note(found.why)
        output.note(
            f"The database's chain ends at event {found.seq}. If the original of this state directory is still in "
            "use, or had authored more that this database lacks, going on here forks the chain for good."
        )
        if not yes:
            ask = partial(click.confirm, "Make this host the chain's only writer?", abort=True, err=True)
            await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        await make_writer(node.log, node.guard, found)
    if session.as_json:
        output.document({"recovered": True, "seq": found.seq, "inserted": found.unfinished})
    else:
        output.note(f"recovered: this host authors on from event {found.seq + found.unfinished}")
