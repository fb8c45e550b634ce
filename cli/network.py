"""``wattswarm network``: the network that this node belongs to - found one, invite to it, join one, see what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.options import Session, add
from wattswarm.kernel.refusal import Refused

if TYPE_CHECKING:
    from wattswarm.config import Config
    from wattswarm.kernel.membership import Membership
    from wattswarm.networks import Entered
    from wattswarm.node import Node

command = group = click.Group("network", help="The network that this node belongs to.")
fresh_option = click.option("--fresh", is_flag=True, help="put this node's own log aside first, if it holds anything")
usual_roles = "proposer,verifier"
_presence_colours = {"offline": "red", "in sync": "green", "not connected": "yellow", "catching up": "yellow"}


@add(
    group,
    "init",
    "wattswarm --state-dir swarm network init --name swarm",
    f"wattswarm --state-dir team network init --founder {'ab' * 32}=proposer,verifier,finalizer",
)
@click.option("--name", default="swarm", show_default=True, help="what people call the network")
@click.option("--founder", "founders", metavar="NODE_ID=ROLES", multiple=True, help="another first member, with roles")
@click.option(
    "--fault-model",
    type=click.Choice(("byzantine", "crash")),
    default="byzantine",
    show_default=True,
    help="what finalizers are trusted for: crash means that they may fail but never lie",
)
@fresh_option
async def init(session: Session, name: str, founders: tuple[str, ...], fault_model: Any, fresh: bool) -> None:
    """Found a network of this node, with all roles, and of the founders. Others join by an invite."""
    from wattswarm.members import parse_member, parse_node_id
    from wattswarm.networks import enter, founding

    first: dict[bytes, frozenset[str]] = {}
    for text in founders:
        node_id, roles = parse_member(text, "--founder")
        who = parse_node_id(node_id, "--founder")
        if who in first:
            raise Refused("founder_twice", f"--founder names {node_id[:16]}… twice")
        first[who] = roles
    entered = await enter(session.config(), founding(name, fault_model, first), fresh)
    _tell_entered(session, entered, f"founded {name}")


def _tell_entered(session: Session, entered: Entered, what: str) -> None:
    from wattswarm.kernel.membership import Network
    from wattswarm.members import tolerance, written

    home = entered.home
    first = Network.of(home.genesis).current
    roles = first.members.get(home.keys.node_id, frozenset())
    if session.as_json:
        found = {
            "network_id": home.genesis.network_id.hex(),
            "name": home.genesis.said.name,
            "node_id": home.keys.node_id.hex(),
            "roles": sorted(roles),
            "put_aside": str(entered.put_aside) if entered.put_aside else None,
            "already": entered.already,
        }
        output.document(found)
        return
    if entered.put_aside is not None:
        output.note(f"the log of the network before lies in {entered.put_aside}")
    output.note(f"{what}: network {home.genesis.network_id.hex()}")
    if entered.already:
        return
    output.note(tolerance(first))
    if roles:
        output.note(f"this node ({home.keys.node_id.hex()}) is a founding member: {written(roles)}")
    else:
        output.note(_how_to_become(home.keys.node_id))


def _how_to_become(node_id: bytes) -> str:
    return (
        "this node observes: it reads all and says nothing. A finalizer makes it a member with\n"
        f"  wattswarm members propose --add {node_id.hex()}={usual_roles}"
    )


@add(
    group,
    "invite",
    "wattswarm --state-dir swarm network invite --address 192.0.2.7:7700 > invite.txt",
    "wattswarm --state-dir swarm network invite --json",
)
@click.option(
    "--address", "addresses", metavar="HOST:PORT", multiple=True, help="where to reach a node; again for more"
)
async def invite(session: Session, addresses: tuple[str, ...]) -> None:
    """Print one line that others join by. It is no secret, and makes nobody a member."""
    from wattswarm.home import exists, open_home
    from wattswarm.invites import write_invite
    from wattswarm.node import now_ms

    config = session.config()
    if not exists(config.state_dir):
        raise Refused("no_node", f"no node lives in {config.state_dir}: `wattswarm network init` founds a network")
    home = open_home(config.state_dir, now_ms())
    known = addresses or _own_addresses(config)
    line = write_invite(home.genesis, known)
    _warn(known)
    if home.genesis.said.name == "local":
        output.note("note: this is the node's own network, local; `wattswarm network init` founds one with a name")
    if session.as_json:
        output.document({"invite": line, "network_id": home.genesis.network_id.hex(), "addresses": list(known)})
    else:
        click.echo(line)


def _own_addresses(config: Config) -> tuple[str, ...]:
    """Where this node says that it is reached: as configured, or as its daemon listens."""
    from wattswarm.presence import daemon_process, read_state

    if config.advertise:
        return config.advertise
    said = read_state(config.state_dir) if daemon_process(config.state_dir) is not None else None
    listen = said.listen if said is not None and said.listen else config.listen
    return () if listen.endswith(":0") else (listen,)


def _warn(addresses: tuple[str, ...]) -> None:
    from net.proto.address import is_loopback, split

    if not addresses:
        output.note(
            "note: the invite carries no address, as no daemon of this node listens anywhere yet: name one with "
            "--address, or have those who join use --bootstrap or --udp"
        )
    for address in addresses:
        if is_loopback(split(address)[0]):
            output.note(f"note: {address} is reached from this host only; --address names another")


@add(group, "join", "wattswarm --state-dir guest network join invite.txt")
@click.argument("invite_", metavar="INVITE")
@fresh_option
async def join(session: Session, invite_: str, fresh: bool) -> None:
    """Join the network of an INVITE: the line itself, or a file that holds it. Who is no member observes."""
    from wattswarm.invites import prefix, read_invite
    from wattswarm.networks import enter, remember_addresses

    file = Path(invite_)
    if not invite_.startswith(prefix) and len(invite_) < 256 and file.is_file():
        invite_ = file.read_text(encoding="utf-8", errors="replace")
    said = read_invite(invite_)
    entered = await enter(session.config(), lambda _: said.genesis, fresh)
    remember_addresses(entered.home.path, said.addresses)
    name = said.genesis.said.name
    if entered.already:
        output.note("this node was on that network already; the addresses of the invite are noted")
    _tell_entered(session, entered, f"{'on' if entered.already else 'joined'} {name}")


@add(group, "show", "wattswarm network show", "wattswarm network show --json")
async def show(session: Session) -> None:
    """The network: who its members are, how many decide, and who may be missing. Makes a node where there is none."""
    async with session.node() as node:
        current, me = node.log.network.current, node.home.keys.node_id
        found = _described(node, current)
    if session.as_json:
        output.document(found)
        return
    output.fields({name: value for name, value in found.items() if name != "members"})
    show_members(current, me)
    if me not in current.members:
        output.note(_how_to_become(me))


def show_members(version: Membership, me: bytes, presences: Mapping[bytes, str] | None = None) -> None:
    """A table of members with their roles, and how this node's daemon stands with them."""
    from wattswarm.members import roles_in_order

    click.echo()
    known = presences or {me: "this node"}
    marks = [
        (node.hex(), *("yes" if role in roles else "-" for role in roles_in_order), known.get(node, ""))
        for node, roles in sorted(version.members.items())
    ]
    output.table(("member", *roles_in_order, "now" if presences else ""), marks, _presence_colours)


def _described(node: Node, current: Membership) -> dict[str, Any]:
    from wattswarm.members import tolerance

    genesis = node.home.genesis
    return {
        "name": genesis.said.name,
        "network_id": genesis.network_id.hex(),
        "node_id": node.home.keys.node_id.hex(),
        "roles": ",".join(sorted(current.members.get(node.home.keys.node_id, ()))) or "none: it observes",
        "membership_version": current.number,
        "membership_hash": current.hash.hex(),
        "fault_model": genesis.said.fault_model,
        "finalizers": len(current.having("finalizer")),
        "finality_threshold": current.finality_threshold,
        "verifiers": len(current.having("verifier")),
        "fault_tolerance": tolerance(current),
        "members": {member.hex(): sorted(roles) for member, roles in sorted(current.members.items())},
    }
