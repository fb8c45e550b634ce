"""``wattswarm log``: what happened, in order, and whether it is still what it was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, add
from wattswarm.kernel.refusal import Problem, Refused

if TYPE_CHECKING:
    from sel.rows import LogHead
    from sel.views import EventFilter, EventView
    from wattswarm.node import Node

command = group = click.Group("log", help="The signed event log of this node.")
page_events = 500


def totals(node: Node, head: LogHead) -> dict[str, Any]:
    """A head as people and scripts see it. Sums are 64 hex digits."""
    return {
        "seq": head.seq,
        "events": head.events,
        "fingerprint": f"{head.events}:{output.sum_hex(head.events_sum)}",
        "certificates": head.certificates,
        "certificates_fingerprint": f"{head.certificates}:{output.sum_hex(head.certificates_sum)}",
        "state_root": output.sum_hex(head.state_root),
        "parked": head.parked,
        "node_id": node.home.keys.node_id.hex(),
        "network_id": node.home.genesis.network_id.hex(),
    }


def show_totals(session: Session, found: dict[str, Any]) -> None:
    """Print totals."""
    if session.as_json:
        output.document(found)
    else:
        output.fields(found)


@add(group, "head", "wattswarm log head", "wattswarm --json log head")
async def head(session: Session) -> None:
    """Totals of the log: events, fingerprints, state root."""
    async with session.node(make=False) as node:
        show_totals(session, totals(node, await node.log.head()))


@add(group, "show", "wattswarm log show", "wattswarm log show --task task-1", "wattswarm log show --refused --json")
@click.option("--task", help="only of this task: label, label@hash or hash")
@click.option("--kind", help="only of this kind, like VOTE_REVEAL")
@click.option("--author", help="only by this node id (64 hex digits)")
@click.option("--refused", is_flag=True, help="only what was not accepted, with the reason")
@click.option("--follow", is_flag=True, help="go on with new events until interrupted")
async def show(
    session: Session, task: str | None, kind: str | None, author: str | None, refused: bool, follow: bool
) -> None:
    """The events, in the order in which they came to this node."""
    from sel.views import EventFilter

    async with session.node(make=False) as node:
        stream = await node.log.resolve(task) if task else None
        wanted = EventFilter(0, stream, _kind(kind), _node_id(author), refused, page_events)
        if not follow:
            found = await _all(node, wanted)
            _print_all(session, found)
            return
        await tell_events(node, wanted, lambda view: _print_one(session, view))


async def tell_events(node: Node, wanted: EventFilter, tell: Callable[[EventView], None]) -> None:
    """Tell of what there is, and of every new event as it comes, until cancelled."""
    from sel.views import events

    async with node.database.listen("wattswarm_log") as news:
        while True:
            for view in await events(node.database, node.home.genesis.network_id, wanted):
                tell(view)
                wanted = replace(wanted, after_seq=view.seq)
            await news.receive()


async def _all(node: Node, wanted: EventFilter) -> list[EventView]:
    from sel.views import events

    found: list[EventView] = []
    while page := await events(node.database, node.home.genesis.network_id, wanted):
        found.extend(page)
        wanted = replace(wanted, after_seq=page[-1].seq)
    return found


def _kind(name: str | None) -> str | None:
    from wattswarm.kernel.payloads import kinds

    if name is not None and name not in kinds:
        raise Refused("kind", "no such kind", (Problem("--kind", repr(name), f"one of {', '.join(kinds)}"),))
    return name


def _node_id(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise Refused("node_id", "not a node id", (Problem("--author", repr(text), "64 hex digits"),))
    return found


def _print_all(session: Session, views: list[EventView]) -> None:
    if session.as_json:
        output.document([view.json() for view in views])
        return
    header = ("seq", "time", "kind", "author", "task", "epoch", "verdict", "")
    rows = [
        (
            view.seq,
            output.moment(view.created_at),
            view.kind,
            output.short(view.author),
            view.task_id or (output.short(view.task) if view.task else "-"),
            view.epoch,
            view.verdict,
            view.reason,
        )
        for view in views
    ]
    output.table(header, [tuple(map(str, row)) for row in rows], output.verdict_colours)


def _print_one(session: Session, view: EventView) -> None:
    if session.as_json:
        output.line(view.json())
        return
    about = view.task_id or ""
    colour = output.verdict_colours.get(view.verdict)
    said = click.style(view.verdict, fg=colour) + (f"  {view.reason}" if view.reason else "")
    click.echo(f"{view.seq:>6}  {output.moment(view.created_at)}  {view.kind:<26} {about}  {said}")
    sys.stdout.flush()


@add(group, "replay", "wattswarm log replay")
async def replay(session: Session) -> None:
    """Rebuild every projection from events and certificates alone; the totals come out the same."""
    from sel.replay import replay as rebuild

    async with session.node(make=False) as node:
        before = await node.log.head()
        with output.progress("replaying", before.events) as progress:
            after = await rebuild(node.database, node.genesis_network, progress)
        found = {**totals(node, after), "same_as_before": after.state_root == before.state_root}
        show_totals(session, found)


@add(group, "verify", "wattswarm log verify")
async def verify(session: Session) -> int:
    """Check every hash, signature, chain, certificate and state; name what is not as it should be."""
    from sel.audit import verify as check

    async with session.node(make=False) as node:
        with output.progress("verifying", (await node.log.head()).events) as progress:
            report = await check(node.database, node.genesis_network, progress)
    problems = [{"seq": p.seq, "event_id": p.event_id, "what": p.what} for p in report.problems]
    found = {
        "ok": not problems,
        "events": report.events,
        "certificates": report.certificates,
        "streams": report.streams,
        "state_root": output.sum_hex(report.state_root),
        "problems": problems,
    }
    if session.as_json:
        output.document(found)
    else:
        output.fields({key: value for key, value in found.items() if key != "problems"})
        for problem in report.problems:
            output.note(f"error: row {problem.seq} {problem.event_id}: {problem.what}")
    return 1 if problems else 0


@add(group, "export", "wattswarm log export --out log.cbor")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="the file to write")
async def export(session: Session, out: Path) -> None:
    """Write every event and certificate, as raw bytes, to a file."""
    from sel.transfer import export_log

    async with session.node(make=False) as node:
        try:
            with output.progress("exporting", (await node.log.head()).events) as progress:
                count = await export_log(node.database, node.home.genesis.wire(), out, progress)
        except OSError as error:
            raise Refused("file", f"{out} cannot be written: {error.strerror}") from None
    if session.as_json:
        output.document({"events": count, "file": str(out)})
    else:
        output.note(f"{count} events written to {out}")


@add(group, "import", "wattswarm --state-dir copy log import log.cbor")
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--network", help="the network id (64 hex digits) that the file must be of")
async def import_(session: Session, file: Path, network: str | None) -> None:
    """Take the events and certificates of a file into the log. Nothing in it is believed unchecked.

    A state directory without a node becomes an observer of the file's network.
    """
    from sel.transfer import import_log, read_header
    from wattswarm.kernel.genesis import parse_genesis
    from wattswarm.node import open_node

    with open(file, "rb") as source:
        genesis = parse_genesis(read_header(source))
        if network is not None and network != genesis.network_id.hex():
            raise Refused("other_network", f"{file} is of network {genesis.network_id.hex()}, not of {network}")
        if network is None:
            output.note(f"trusting network {genesis.network_id.hex()} ({genesis.said.name}), as the file says")
        async with open_node(session.config(), genesis=genesis) as node:
            with output.progress("importing") as progress:
                report = await import_log(node.log, source, lambda so_far: progress(so_far.events))
    found = {
        "events": report.events,
        "stored": report.stored,
        "duplicates": report.duplicates,
        "waiting": report.waiting,
        "void": report.void,
        "refused_by_rules": report.refused_by_rules,
        "certificates": report.certificates,
        "rejected": report.rejected,
    }
    if session.as_json:
        output.document({**found, "problems": [what for _, what in report.problems]})
    else:
        output.fields(found)
        for _, what in report.problems:
            output.note(f"not taken: {what}")


@add(group, "checkpoint", "wattswarm log checkpoint")
async def checkpoint(session: Session) -> None:
    """Author a CHECKPOINT_CREATED: what this node holds now, for others to compare with."""
    from wattswarm.checkpoint import author_checkpoint

    async with session.node(make=False) as node:
        authored = await author_checkpoint(node.log)
    if session.as_json:
        output.document({"event_id": authored.id.hex(), "author_seq": authored.author_seq})
    else:
        output.note(f"checkpoint {authored.id.hex()} authored")
