"""``wattswarm peers``: the nodes that this one is connected to."""

from __future__ import annotations

import click

from cli import output
from cli.options import Session, add

command = group = click.Group("peers", help="The nodes that this one is connected to.")


@add(group, "list", "wattswarm peers list", "wattswarm peers list --json")
def listed(session: Session) -> None:
    """Who is connected: node, address, direction, round trip, in sync or not, score; and who is kept out."""
    from wattswarm.presence import daemon_process, read_state

    state_dir = session.config().state_dir
    pid, said = daemon_process(state_dir), read_state(state_dir)
    peers, kept_out = (said.peers, said.kept_out) if pid is not None and said is not None else ([], [])
    if session.as_json:
        output.document({"running": pid is not None, "peers": peers, "kept_out": kept_out})
        return
    if pid is None:
        output.note(f"no daemon runs in {state_dir}: it has no peers; `wattswarm node up` starts it")
    elif not peers:
        output.note("no peer is connected")
    columns = ("node", "address", "direction", "member", "rtt", "in sync", "score")
    rows = [
        (
            f"{peer['node_id'][:8]}…",
            peer["address"],
            peer["direction"],
            "yes" if peer["member"] else "observer",
            "" if peer["rtt_ms"] is None else f"{peer['rtt_ms']} ms",
            "yes" if peer["in_sync"] else "not yet",
            str(peer["score"]),
        )
        for peer in peers
    ]
    if rows:
        output.table(columns, rows)
    for one in kept_out:
        who = f"node {one['node_id'][:8]}…" if "node_id" in one else f"host {one['host']}"
        output.note(f"{who} is kept out until {output.moment(one['until'])} for how it behaved")
