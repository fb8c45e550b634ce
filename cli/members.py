"""``wattswarm members``: who belongs to the network, and the finalizers' way of changing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.network import show_members
from cli.options import Session, add
from wattswarm.kernel.refusal import Refused

if TYPE_CHECKING:
    from wattswarm.kernel.event import Event
    from wattswarm.kernel.intents.govern import Seat
    from wattswarm.kernel.membership import Membership
    from wattswarm.kernel.payloads.govern import VersionBody
    from wattswarm.members import Proposal
    from wattswarm.node import Node

command = group = click.Group("members", help="Who belongs to the network, and how that is changed.")


@add(group, "list", "wattswarm members list", "wattswarm members list --json")
async def list_(session: Session) -> None:
    """The members, who of them is there, and open proposals: who signed, and who is still needed.

    Signs on what was approved here.
    """
    from wattswarm.absence import presences
    from wattswarm.members import carry_on, proposals, take_seat, tolerance
    from wattswarm.presence import daemon_process

    async with session.node(make=False) as node:
        seen = await presences(node)
        if daemon_process(node.home.path) is None:
            try:
                _tell(await carry_on(node))
            except Refused as refusal:
                output.note(f"nothing was signed: {refusal}")
        seat = await take_seat(node)
        current, open_ones = seat.network.current, proposals(seat)
    if session.as_json:
        now = {member.hex(): words for member, words in sorted(seen.items()) if member in current.members}
        output.document(
            {**_version(current), "now": now, "proposals": [_proposal(current, each) for each in open_ones]}
        )
        return
    output.fields({"version": current.number, "hash": current.hash.hex(), "tolerance": tolerance(current)})
    show_members(current, seat.me, seen)
    if not seen:
        output.note("no daemon runs here, so nobody is known to be there: `wattswarm node up` starts it")
    for one in open_ones:
        click.echo()
        _show_proposal(current, one)


def _version(version: Membership) -> dict[str, Any]:
    from wattswarm.members import tolerance

    return {
        "version": version.number,
        "membership_hash": version.hash.hex(),
        "members": {node.hex(): sorted(roles) for node, roles in sorted(version.members.items())},
        "finality_threshold": version.finality_threshold,
        "fault_tolerance": tolerance(version),
    }


def _proposal(current: Membership, one: Proposal) -> dict[str, Any]:
    return {
        "version": one.body.number,
        "membership_hash": one.hash.hex(),
        "name": one.name,
        "members": one.body.members,
        "until": one.body.until,
        "proposed_by": _hex(one.proposers),
        "prepared_by": _hex(one.prepared),
        "committed_by": _hex(one.committed),
        "not_committed": _hex(one.lacking),
        "needed": current.finality_threshold,
        "approved_here": one.approved,
    }


def _hex(nodes: Iterable[bytes]) -> list[str]:
    return [node.hex() for node in nodes]


def _show_proposal(current: Membership, one: Proposal) -> None:
    from wattswarm.members import changes, short

    def named(nodes: Iterable[bytes]) -> str:
        return ", ".join(map(short, nodes)) or "nobody yet"

    needed = f"of {current.finality_threshold} needed"
    unsigned = sorted(current.having("finalizer") - {*one.prepared, *one.committed})
    pairs = {
        "proposal": click.style(one.name, bold=True) + ("" if one.approved else "  (not approved here)"),
        "changes": "; ".join(changes(current, one.body)),
        "proposed by": named(one.proposers),
        "prepared by": f"{named(one.prepared)} ({len(one.prepared)} {needed})",
        "committed by": f"{named(one.committed)} ({len(one.committed)} {needed})",
        "not signed by": named(unsigned) if unsigned else "-",
    }
    output.fields(pairs)
    if unsigned:
        output.note(f"a finalizer that agrees: wattswarm members sign {one.name}")


@add(
    group,
    "propose",
    f"wattswarm --state-dir swarm members propose --add {'cd' * 32}=proposer,verifier",
)
@click.option("--add", "added", metavar="NODE_ID=ROLES", multiple=True, help="a new member, or other roles for one")
@click.option("--remove", "removed", metavar="NODE_ID", multiple=True, help="who leaves, for good")
async def propose(session: Session, added: tuple[str, ...], removed: tuple[str, ...]) -> None:
    """Propose the next version, and sign it. With a quorum's signatures it is applied by itself."""
    from wattswarm.kernel.membership import version_of
    from wattswarm.members import draft_version, need_finalizer, take_seat, tolerance
    from wattswarm.members import propose as begin

    async with session.node(make=False) as node:
        seat = await take_seat(node)
        need_finalizer(seat)
        current = seat.network.current
        add_, remove = _wanted(node, seat, added, removed)
        body = await draft_version(node, seat, add_, remove)
        _warn_of_twin(seat, body)
        authored = await begin(node, body)
        output.note(f"version {body.number}: {tolerance(version_of(body, current.fault_model))}")
        await _report(session, node, body.number, authored)


def _wanted(
    node: Node, seat: Seat, added: Sequence[str], removed: Sequence[str]
) -> tuple[dict[bytes, frozenset[str]], set[bytes]]:
    """What the options ask for. A node id may be cut short where it can only mean one node that is known."""
    from wattswarm.members import parse_member, parse_node_id
    from wattswarm.presence import daemon_process, read_state

    members = set(seat.network.current.members)
    said = read_state(node.home.path) if daemon_process(node.home.path) is not None else None
    peers = {bytes.fromhex(str(peer["node_id"])) for peer in (said.peers if said else ()) if "node_id" in peer}
    found: dict[bytes, frozenset[str]] = {}
    for text in added:
        name, roles = parse_member(text, "--add")
        who = parse_node_id(name, "--add", members | peers)
        if who in found:
            raise Refused("member_twice", f"--add names {name[:16]} twice")
        found[who] = roles
    return found, {parse_node_id(text, "--remove", members) for text in removed}


def _warn_of_twin(seat: Seat, body: VersionBody) -> None:
    from wattswarm.members import proposals

    twins = [one.name for one in proposals(seat) if one.body.members == body.members and one.body != body]
    if twins:
        output.note(f"note: {twins[0]} proposes the same members already; `wattswarm members sign {twins[0]}` agrees")


@add(group, "sign", "wattswarm --state-dir swarm members sign 1")
@click.argument("version")
async def sign(session: Session, version: str) -> None:
    """Approve a proposed VERSION (1, 1@3fa9c2d1 or its hash); this node carries that on until it is applied."""
    from wattswarm.members import find, known_already, take_seat
    from wattswarm.members import sign as approve

    async with session.node(make=False) as node:
        seat = await take_seat(node)
        known = known_already(seat, version)
        if known is not None:
            output.note(f"version {known.number} is applied already")
            await _report(session, node, known.number, [])
            return
        proposal = find(seat, version)
        await _report(session, node, proposal.body.number, await approve(node, proposal))


@add(group, "apply", "wattswarm --state-dir swarm members apply 1")
@click.argument("version")
async def apply(session: Session, version: str) -> None:
    """Announce a VERSION that a quorum has committed to. Usually it is announced by itself."""
    from wattswarm.members import apply as announce
    from wattswarm.members import find, known_already, take_seat

    async with session.node(make=False) as node:
        seat = await take_seat(node)
        known = known_already(seat, version)
        if known is not None:
            output.note(f"version {known.number} is applied already")
            await _report(session, node, known.number, [])
            return
        proposal = find(seat, version)
        await _report(session, node, proposal.body.number, await announce(node, proposal))


def _tell(authored: Iterable[Event]) -> None:
    for event in authored:
        phase = getattr(event.payload, "phase", "")
        output.note(f"authored {event.kind}{f' ({phase})' if phase else ''}")


async def _report(session: Session, node: Node, number: int, authored: Sequence[Event]) -> None:
    """What was authored, and how far the version is."""
    from wattswarm.members import proposals, take_seat

    seat = await take_seat(node)
    current, open_ones = seat.network.current, proposals(seat)
    applied = current.number >= number
    if session.as_json:
        found = {
            "authored": [event.kind for event in authored],
            "applied": applied,
            **_version(current),
            "proposals": [_proposal(current, one) for one in open_ones],
        }
        output.document(found)
        return
    _tell(authored)
    if applied:
        output.note(f"version {current.number} is current: {len(current.members)} members")
    for one in open_ones if not applied else ():
        _show_proposal(current, one)
