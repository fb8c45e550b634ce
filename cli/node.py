"""``wattswarm node``: this node itself."""

from __future__ import annotations

from functools import partial

import click

from cli import output
from cli.options import Session, add

command = group = click.Group("node", help="This node itself.")


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
