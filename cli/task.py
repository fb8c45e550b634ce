"""``wattswarm task``: write a contract, submit it, follow it, steer it."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, add
from wattswarm.kernel.refusal import Refused

if TYPE_CHECKING:
    from sel.views import EventView
    from wattswarm.node import Node

command = group = click.Group("task", help="Tasks: write, submit, follow, steer.")
day_ms = 86_400_000
look_again_s = 1.0
"""A deadline passes without an event: what a task waits for may change with time alone."""
final_states = {"FINALIZED", "EXPIRED", "STOPPED", "KILLED", "FORKED"}
task_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


async def sample_for(session: Session, task_id: str) -> dict[str, Any]:
    """A valid contract with this node's key as the authority for feedback."""
    from wattswarm.home import open_home
    from wattswarm.kernel.contract_draft import sample_contract
    from wattswarm.node import now_ms

    home = open_home(session.config().state_dir, now_ms())
    return sample_contract(task_id, now_ms() + day_ms, f"ed25519:{home.keys.node_id.hex()}")


@add(group, "sample", "wattswarm task sample > task.json")
@click.option("--task-id", default="task-1", show_default=True)
async def sample(session: Session, task_id: str) -> None:
    """Print a valid task contract to start from."""
    output.document(await sample_for(session, task_id))


@add(group, "schema", "wattswarm task schema")
def schema(session: Session) -> None:
    """Print the JSON Schema of task contracts."""
    from wattswarm.kernel.contract_draft import contract_json_schema

    output.document(contract_json_schema())


@add(group, "submit", "wattswarm task submit task.json")
@task_file
async def submit(session: Session, file: Path) -> None:
    """Create the task of a contract file."""
    from wattswarm import tasks

    document = tasks.read_document(file.read_bytes(), str(file))
    async with session.node() as node:
        created, warnings = await tasks.submit(node.log, document)
    for warning in warnings:
        output.note(f"warning: {warning}")
    found = {"task_id": created.payload.contract["task_id"], "task": created.id.hex()}  # type: ignore[union-attr]
    if session.as_json:
        output.document({**found, "warnings": warnings})
    else:
        output.fields(found)


@add(group, "list", "wattswarm task list", "wattswarm task list --state FINALIZED --json")
@click.option("--state", type=click.Choice(sorted(final_states | {"OPEN", "SUSPENDED"})))
async def list_(session: Session, state: str | None) -> None:
    """The tasks of this log, newest first."""
    from sel.views import tasks as views

    async with session.node(make=False) as node:
        found = await views(node.database, state)
    if session.as_json:
        output.document([view.json() for view in found])
        return
    rows = [
        (v.task_id, output.short(v.task), v.state, str(v.epoch), v.task_type, output.moment(v.created_at))
        for v in found
    ]
    output.table(("task_id", "task", "state", "epoch", "type", "created"), rows, output.state_colours)


@add(group, "decision", "wattswarm task decision task-1", "wattswarm task decision task-1 --json")
@click.argument("task")
async def decision(session: Session, task: str) -> None:
    """A task's proven decision, or how far it is from one."""
    from wattswarm import tasks
    from wattswarm.absence import offline

    async with session.node(make=False) as node:
        record = await node.log.task(await node.log.resolve(task))
        found = tasks.decision(record)
        waits = tasks.waits_for(record, node.log.clock(), await offline(node))
    if waits:
        found["waits_for"] = waits
    if session.as_json:
        output.document(found)
        return
    shown = {**found, "state": click.style(found["state"], fg=output.state_colours.get(found["state"]), bold=True)}
    output.fields(shown)


@add(group, "watch", "wattswarm task watch task-1 --once")
@click.argument("task")
@click.option("--once", is_flag=True, help="print the state as it is, and end")
async def watch(session: Session, task: str, once: bool) -> None:
    """Follow a task until it ends: how far it is, what it waits for, and for whom."""
    import trio

    from wattswarm import tasks
    from wattswarm.absence import offline

    async with session.node(make=False) as node:
        stream = await node.log.resolve(task)
        _note_who_works(session)
        async with node.database.listen("wattswarm_log") as news:
            shown = None
            while True:
                record = await node.log.task(stream)
                found = tasks.watch_view(record, node.log.clock(), await offline(node))
                if shown is None or _apart_from_time(found) != _apart_from_time(shown):
                    _print_watch(session, found)
                    shown = found
                if once or found["state"] in final_states:
                    return
                with trio.move_on_after(look_again_s):
                    await news.receive()


def _note_who_works(session: Session) -> None:
    """What keeps this node itself from doing its part."""
    from wattswarm.presence import daemon_process, read_state

    state_dir = session.config().state_dir
    said = read_state(state_dir)
    if daemon_process(state_dir) is None:
        output.note("no daemon runs here, so this node does nothing by itself: `wattswarm node up` starts it")
    elif said is not None:
        for alarm in said.alarms:
            output.note(f"the daemon reports: {alarm}")


def _apart_from_time(found: dict[str, Any]) -> dict[str, Any]:
    """What is worth a new line: not that a deadline came nearer."""
    return {**found, "waits_for": re.sub(r"(in|for) \d+ (d|h|min|s)\b", "", found.get("waits_for", ""))}


def _print_watch(session: Session, found: dict[str, Any]) -> None:
    if session.as_json:
        output.line(found)
        return
    progress = found.get("progress")
    said = click.style(found["state"], fg=output.state_colours.get(found["state"]), bold=True)
    text = f"{found['task_id']}  {said}  epoch {found['epoch']}"
    if progress:
        text += (
            f"  candidates {progress['candidates']}, commits {progress['commits']}, "
            f"approvals {progress['approvals']} of {progress['quorum_threshold']}, "
            f"finality votes {progress['finality_votes']} of {progress['finality_threshold']}"
        )
    elif found["finalized_candidate_id"]:
        text += f"  candidate {found['finalized_candidate_id']}"
    click.echo(text)
    if "waits_for" in found:
        click.echo(f"    {found['waits_for']}")
    sys.stdout.flush()


@add(group, "run-real", "wattswarm task run-real --executor rt --profile default --task-id task-real-1")
@click.option("--executor", required=True, help="a registered executor")
@click.option("--profile", default="default", show_default=True)
@click.option("--task-id", help="the label of the task [a new one]")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="a contract, not the sample")
async def run_real(session: Session, executor: str, profile: str, task_id: str | None, file: Path | None) -> int:
    """Run one task from creation to its finality proof on this node, with a real executor."""
    from wattswarm import tasks
    from wattswarm.node import now_ms
    from wattswarm.runtime.run_real import run_real as run

    async with session.node() as node:
        if file is not None:
            document: Any = tasks.read_document(file.read_bytes(), str(file))
            if task_id is not None and isinstance(document, dict):
                document["task_id"] = task_id
        else:
            document = await sample_for(session, task_id or f"task-{now_ms()}")
        async with _told(node, told=not session.as_json and sys.stderr.isatty()):
            found = await run(node.log, node.executors, executor, profile, document)
    if session.as_json or not sys.stdout.isatty():
        output.document(found)
    else:
        output.fields(found)
    return 0 if found["terminal_state"] == "FINALIZED" else 1


@asynccontextmanager
async def _told(node: Node, *, told: bool) -> AsyncIterator[None]:
    """Tell a person at a terminal of the events that happen meanwhile."""
    import trio

    from cli.log import tell_events
    from sel.lifetimes import single_error
    from sel.views import EventFilter

    def tell(view: EventView) -> None:
        output.note(f"{output.moment(view.created_at)}  {view.kind}")

    if not told:
        yield
        return
    since = (await node.log.head()).seq
    with single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_events, node, EventFilter(since), tell)
            yield
            nursery.cancel_scope.cancel()


def _halt_command(how: str, help_text: str) -> None:
    @add(group, how, f"wattswarm task {how} task-{how} --reason 'no longer wanted'")
    @click.argument("task")
    @click.option("--reason", default="", help="why, for everybody to read")
    async def halt(session: Session, task: str, reason: str) -> None:
        from wattswarm import tasks

        async with session.node(make=False) as node:
            authored = await tasks.halt(node.log, task, how, reason)
            found = tasks.watch_view(await node.log.task(authored.stream), node.log.clock())
        if session.as_json:
            output.document({"event_id": authored.id.hex(), **found})
        else:
            output.note(f"{authored.kind} authored; the task is {found['state']}")

    halt.help = help_text


_halt_command("stop", "Stop a task: no more work is wanted.")
_halt_command("suspend", "Suspend a task: nothing is accepted until it expires.")
_halt_command("kill", "Kill a task: it was harmful or mistaken.")


@add(group, "feedback", "wattswarm task feedback task-real-1 --reason 'the answer is wrong'")
@click.argument("task")
@click.option("--reason", required=True, help="what is wrong with the decision")
@click.option("--epoch", default=1, show_default=True, type=click.IntRange(1))
@click.option("--timestamp", type=click.IntRange(0), help="unix ms that was signed [now]")
@click.option("--signed-by", help="the authority, ed25519:<hex> [this node]")
@click.option("--signature", help="the authority's signature, 128 hex digits [this node signs]")
async def feedback(
    session: Session,
    task: str,
    reason: str,
    epoch: int,
    timestamp: int | None,
    signed_by: str | None,
    signature: str | None,
) -> None:
    """Report a decision as BAD, in the name of the contract's authority."""
    from wattswarm.node import now_ms

    async with session.node(make=False) as node:
        at = timestamp if timestamp is not None else now_ms()
        authored = await _feedback(node, task, reason, epoch, at, (signed_by, signature))
    if session.as_json:
        output.document({"event_id": authored.id.hex()})
    else:
        output.note(f"feedback {authored.id.hex()[:16]}… authored")


async def _feedback(
    node: Node, task: str, reason: str, epoch: int, at: int, signed: tuple[str | None, str | None]
) -> Any:
    from wattswarm import tasks
    from wattswarm.kernel.payloads.course import TaskFeedbackReported
    from wattswarm.kernel.task.feedback import feedback_text

    stream = await node.log.resolve(task)
    by, given = signed
    if (by is None) != (given is None):
        raise Refused("feedback", "--signed-by and --signature go together: give both, or neither")
    if by is None or given is None:
        text = feedback_text(stream, epoch, "BAD", reason, at)
        by, raw = f"ed25519:{node.home.keys.node_id.hex()}", node.home.keys.sign(text)
    else:
        raw = _signature(given)
    return await tasks.report_feedback(node.log, stream.hex(), TaskFeedbackReported("BAD", reason, by, raw, at), epoch)


def _signature(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 64:
        raise Refused("signature", f"--signature: found {text!r}, expected 128 hex digits")
    return raw
