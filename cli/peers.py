"""``wattswarm peers``: the nodes that this one is connected to or knows of, and what its operator wants of them.

Nothing here speaks to the daemon: what is ordered is written to the node's database, and the daemon follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, add
from wattswarm.kernel.refusal import Problem, Refused

if TYPE_CHECKING:
    from sel.relations import RelationRow, Wish
    from wattswarm.node import Node
    from wattswarm.presence import NodeState

command = group = click.Group("peers", help="The nodes that this one is connected to, or knows of.")
prefix_chars_min = 8
friendship = {"friend": "friend", "asked": "asked, no answer yet", "asks you": "asks you", "": ""}


@add(group, "list", "wattswarm peers list", "wattswarm peers list --json")
async def listed(session: Session) -> None:
    """Who is connected, who was, who was heard on the local network, and who asks to be a friend."""
    from sel import relations
    from wattswarm.presence import daemon_process, read_state

    async with session.node(make=False) as node:
        orders = await relations.read(node.database)
        pid = daemon_process(node.home.path)
        said = read_state(node.home.path) if pid is not None else None
        peers = _peers(node, orders.relations, said)
    kept_out = said.kept_out if said is not None else []
    not_dialled = [place.about for place in orders.places if not place.wanted]
    if session.as_json:
        added = [place.about for place in orders.places if place.wanted]
        places = {"added": added, "removed": not_dialled}
        output.document({"running": pid is not None, "peers": peers, **places, "kept_out": kept_out})
        return
    if pid is None:
        output.note("no daemon runs here, so nobody is connected; `wattswarm node up` starts it")
    elif not any(peer["connected"] for peer in peers):
        output.note("no peer is connected")
    if peers:
        columns = ("node", "address", "connected", "roles", "rtt", "in sync", "score", "last seen", "friend")
        output.table(columns, map(_row, peers), {"friend": "green", "asks you": "yellow"})
    for peer in peers:
        if peer["friend"] == "asks you":
            output.note(f"{output.short(peer['node_id'])} asks to be a friend: `wattswarm peers befriend "
                        f"{peer['node_id']}` says yes, with --remove no")  # fmt: skip
    if not_dialled:
        output.note(f"not dialled, as you said: {', '.join(not_dialled)}")
    for one in kept_out:
        who = f"node {output.short(one['node_id'])}" if "node_id" in one else f"host {one['host']}"
        output.note(f"{who} is kept out until {output.moment(one['until'])} for how it behaved")


def _peers(node: Node, rows: list[RelationRow], said: NodeState | None) -> list[dict[str, Any]]:
    """Everybody who is known of, those that are connected first, each once."""
    from wattswarm import discovered

    members = node.log.network.current.members
    found: dict[str, dict[str, Any]] = {}
    for peer in said.peers if said is not None else []:
        found[peer["node_id"]] = {**peer, "connected": True, "last_seen": said.refreshed_at if said else None}
    for place in discovered.read(node.home.path):
        found.setdefault(place.node_id, _away(place.node_id, place.address, place.last_seen))
    for row in rows:
        if row.state:
            found.setdefault(row.node_id.hex(), _away(row.node_id.hex(), "", None))
    stands = {row.node_id.hex(): row.state for row in rows}
    for node_id, peer in found.items():
        roles = members.get(bytes.fromhex(node_id))
        peer |= {"member": roles is not None, "roles": sorted(roles or ()), "friend": stands.get(node_id, "")}
    return list(found.values())


def _away(node_id: str, address: str, last_seen: int | None) -> dict[str, Any]:
    nothing = dict.fromkeys(("direction", "rtt_ms", "in_sync", "score"))
    return {"node_id": node_id, "address": address, **nothing, "connected": False, "last_seen": last_seen}


def _row(peer: dict[str, Any]) -> tuple[str, ...]:
    direction = {"out": "yes, we called", "in": "yes, it called"}
    here = peer["connected"]
    return (
        output.short(peer["node_id"]),
        peer["address"],
        direction[peer["direction"]] if here else "no",
        ", ".join(peer["roles"]) if peer["member"] else "observer",
        "" if peer["rtt_ms"] is None else f"{peer['rtt_ms']} ms",
        ("yes" if peer["in_sync"] else "not yet") if here else "",
        str(peer["score"]) if here else "",
        "now" if here else output.moment(peer["last_seen"])[:19] + "Z" if peer["last_seen"] else "never",
        friendship[peer["friend"]],
    )


@add(group, "add", "wattswarm peers add 127.0.0.1:7700")
@click.argument("about", metavar="ADDRESS|NODE_ID")
async def added(session: Session, about: str) -> None:
    """Have an address (host:port) dialled, also after a restart; or again what was removed."""
    await _place(session, about, True)


@add(group, "remove", "wattswarm peers remove 127.0.0.1:7700")
@click.argument("about", metavar="ADDRESS|NODE_ID")
async def removed(session: Session, about: str) -> None:
    """Have an address, or a node, not dialled any more, whoever tells of it; it may still call this node."""
    await _place(session, about, False)


async def _place(session: Session, about: str, wanted: bool) -> None:
    from sel.relations import order_place, read
    from wattswarm.presence import daemon_process

    async with session.node(make=False) as node:
        if ":" in about:
            _check_address(about)
        else:
            about = _named(node, (await read(node.database)).relations, about).hex()
        await order_place(node.database, about, wanted)
        runs = daemon_process(node.home.path) is not None
    if session.as_json:
        output.document({"about": about, "wanted": wanted})
        return
    does = "is dialled" if wanted else "is not dialled any more"
    output.note(f"{about} {does}{'' if runs else ', once the daemon runs'}")


def _check_address(text: str) -> None:
    import re

    from net.proto.address import address_pattern

    if not re.match(address_pattern, text):
        raise Refused("address", "this is no address", (Problem("ADDRESS", repr(text), "host:port"),))


@add(group, "befriend", f"wattswarm peers befriend {'ab' * 32}")
@click.argument("node_id", metavar="NODE_ID")
@click.option("--remove", is_flag=True, help="be no friends (any more), or say no to one who asks")
async def befriend(session: Session, node_id: str, remove: bool) -> None:
    """Ask a member's operator to be friends, or say yes: friends are dialled first and never let go.

    NODE_ID may be its first digits, 8 or more.
    """
    from sel.relations import order_friend, read

    async with session.node(make=False) as node:
        rows = (await read(node.database)).relations
        whom = _named(node, rows, node_id)
        before = next((row.state for row in rows if row.node_id == whom), "")
        _check_friend(node, rows, whom, before, remove=remove)
        wish: Wish = "no" if remove else "yes"
        await order_friend(node.database, whom, wish)
    now = "" if remove else "friend" if before in ("friend", "asks you") else "asked"
    if session.as_json:
        output.document({"node_id": whom.hex(), "friend": now})
        return
    said = {
        "": "no friend of this node",
        "friend": "a friend",
        "asked": "asked; it is a friend as soon as its operator says the same",
    }
    output.note(f"{whom.hex()} is {said[now]}")


def _check_friend(node: Node, rows: list[RelationRow], whom: bytes, before: str, *, remove: bool) -> None:
    from net.proto.peers import friends_max

    if remove and not before:
        raise Refused("no_friend", f"{whom.hex()} is no friend, and neither of you asked")
    if remove:
        return
    if whom == node.home.keys.node_id:
        raise Refused("self", "this is this node itself")
    if whom not in node.log.network.current.members:
        raise Refused(
            "not_a_member", f"{whom.hex()} is no member of this network: `wattswarm members list` shows who is"
        )
    if before not in ("friend", "asked") and sum(row.wish == "yes" for row in rows) >= friends_max:
        raise Refused("friends", f"{friends_max} nodes are friends or asked, which is all that there may be")


def _named(node: Node, rows: list[RelationRow], text: str) -> bytes:
    """The node that an id, or its first digits, names among members and known peers."""
    from wattswarm import discovered

    whole = text.lower()
    if set(whole) <= set("0123456789abcdef") and prefix_chars_min <= len(whole) <= 64:
        if len(whole) == 64:
            return bytes.fromhex(whole)
        here = {*node.log.network.current.members, *(row.node_id for row in rows)}
        here |= {bytes.fromhex(place.node_id) for place in discovered.read(node.home.path)}
        found = [node_id for node_id in here if node_id.hex().startswith(whole)]
        if len(found) == 1:
            return found[0]
        expected = "the first digits of one node's id" if found else "a known node; `wattswarm members list` shows them"
    else:
        expected = "64 hex digits, or the first 8 or more of a known node's"
    raise Refused("node_id", "this names no node", (Problem("NODE_ID", repr(text), expected),))
