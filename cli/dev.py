"""``wattswarm dev``: a swarm of one's own on this host, until Ctrl-C."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import output
from cli.options import Interrupted, Session, epilog, finish
from wattswarm.kernel.refusal import Refused

if TYPE_CHECKING:
    from wattswarm.local_swarm import LocalSwarm

nodes_max = 16


@click.command(epilog=epilog(("wattswarm dev --nodes 4 --dir swarm",)))
@click.option("--nodes", type=click.IntRange(1, nodes_max), default=3, show_default=True, help="how many")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="where they live, and live on the next time [a temporary directory, removed at the end]",
)
@click.option("--json", "as_json", is_flag=True, help="as JSON")
@click.pass_obj
def command(session: Session, nodes: int, directory: Path | None, as_json: bool) -> int:
    """Keep a swarm of daemons with a runtime on this host until Ctrl-C.

    Each node has a state directory, a log and a Postgres of its own, and all are members of one network. Talk to any of
    them with --state-dir; stop one and start it again. Nothing leaves the loopback interface.
    """
    import_module("wattswarm.local_swarm")  # it takes a moment, in which nothing is there yet that must be removed
    with _place(directory) as place:
        try:
            finish(partial(_serve, place, nodes, as_json or session.as_json, directory is not None))
        except Interrupted:
            output.note("the swarm has ended")
    return 0


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="wattswarm-dev-") as temporary:
            Path(temporary).chmod(0o755)
            yield Path(temporary)
        return
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused("dev_dir", f"{directory} cannot be made: {error.strerror}") from None
    yield directory


async def _serve(directory: Path, nodes: int, as_json: bool, kept: bool) -> None:
    import trio

    from wattswarm.local_swarm import local_swarm

    async with local_swarm(directory, nodes, output.note) as swarm:
        await swarm.meshed()
        if as_json:
            output.line(_document(swarm))
        else:
            _show(swarm, kept)
        await trio.sleep_forever()


def _document(swarm: LocalSwarm) -> dict[str, object]:
    nodes = [
        {
            "name": member.name,
            "node_id": member.home.keys.node_id.hex(),
            "state_dir": str(member.home.path),
            "listen": member.listen,
            "log": str(member.log),
        }
        for member in swarm.members
    ]
    network = swarm.members[0].home.genesis.network_id.hex()
    return {"network_id": network, "runtime": swarm.runtime, "nodes": nodes}


def _show(swarm: LocalSwarm, kept: bool) -> None:
    from wattswarm.kernel.membership import Network
    from wattswarm.members import tolerance

    members, genesis = swarm.members, swarm.members[0].home.genesis
    click.echo(f"A swarm of {len(members)} runs: network {genesis.network_id.hex()}")
    click.echo(f"{tolerance(Network.of(genesis).current)}; the runtime of all is {swarm.runtime}\n")
    columns = ("node", "id", "listens at", "state directory", "log")
    rows = [
        (each.name, output.short(each.home.keys.node_id.hex()), each.listen, str(each.home.path), str(each.log))
        for each in members
    ]
    output.table(columns, rows)
    first, last = members[0].home.path, members[-1].home.path
    again = f"`wattswarm dev --nodes {len(members)} --dir {first.parent}` goes on with it" if kept else "and removes it"
    click.echo(f"""
Talk to any of them from another terminal:
  wattswarm task sample > task.json
  wattswarm --state-dir {first} task submit task.json
  wattswarm --state-dir {last} task watch task-1
  wattswarm --state-dir {last} node status
  wattswarm --state-dir {last} node down    # the others wait for it; `node up` brings it back
Ctrl-C ends the swarm{";" if kept else ""} {again}.""")
    sys.stdout.flush()
