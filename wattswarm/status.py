"""What people ask about a node: is it up, what does it hold, whom is it connected to, and what is wrong.

One value for ``node status``, read from the log and from what the daemon says of itself. Knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sel import views
from sel.rows import LogHead
from wattswarm.absence import offline
from wattswarm.kernel.limits import LOCAL_PROTOCOL_VERSION
from wattswarm.kernel.membership import Membership
from wattswarm.members import tolerance
from wattswarm.node import Node
from wattswarm.presence import NodeState, daemon_process, read_state
from wattswarm.recovery import diagnose, told_fence

forked_tasks_max = 100


async def status(node: Node) -> dict[str, Any]:
    """Everything about the node, as JSON-ready values. Times in unix ms."""
    pid, said = daemon_process(node.home.path), read_state(node.home.path)
    now = said if pid is not None else None
    current, me, head = node.log.network.current, node.home.keys.node_id, await node.log.head()
    peers: list[dict[str, Any]] = now.peers if now else []
    forks = await views.forks(node.database)
    forked = [view.json() for view in await views.tasks(node.database, "FORKED", forked_tasks_max)]
    versions = [str(peer["protocol_version"]) for peer in peers if "protocol_version" in peer]
    return {
        "running": pid is not None,
        "process": pid,
        "phase": now.phase if now else None,
        "started_at": now.started_at if now else None,
        "listen": (now.listen or None) if now else None,
        "autopilot": now.autopilot if now else None,
        "open_tasks": now.tasks if now else None,
        "node_id": me.hex(),
        "roles": sorted(current.members.get(me, ())),
        "network_id": node.home.genesis.network_id.hex(),
        "network": node.home.genesis.said.name,
        "membership_version": current.number,
        "members": len(current.members),
        "fault_tolerance": tolerance(current),
        "local_protocol_version": LOCAL_PROTOCOL_VERSION,
        "peer_protocol_distribution": {each: versions.count(each) for each in sorted(set(versions))},
        **_held(head),
        "peers": peers,
        "in_sync": all(peer["in_sync"] for peer in peers) if peers else None,
        "not_connected": dict(now.not_connected) if now else {},
        "offline": {node_id.hex(): since for node_id, since in sorted((await offline(node)).items())},
        "kept_out": now.kept_out if now else [],
        "forks": forks,
        "forked_tasks": forked,
        "recovered": told_fence(await node.log.fence()) or None,
        "alarms": [*await _of_the_node(node, pid, said), *_of_the_network(current, forks, forked)],
    }


def _held(head: LogHead) -> dict[str, Any]:
    def as_hex(number: int) -> str:
        return number.to_bytes(32, "little").hex()

    return {
        "head": head.seq,
        "events": head.events,
        "certificates": head.certificates,
        "fingerprint": f"{head.events}:{as_hex(head.events_sum)}",
        "state_root": as_hex(head.state_root),
    }


async def _of_the_node(node: Node, pid: int | None, said: NodeState | None) -> list[str]:
    guard = await diagnose(node.log, node.guard)
    alarms = [guard.why] if guard.needed else []
    if pid is None and said is not None:
        alarms.append(f"the last daemon (process {said.pid}) ended without saying so")
    return [*alarms, *(alarm for alarm in (said.alarms if said and pid is not None else ()) if alarm not in alarms)]


def _of_the_network(
    current: Membership, forks: Iterable[Mapping[str, Any]], forked: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What other nodes did that no honest node does."""
    alarms = []
    for fork in forks:
        roles = current.members.get(bytes.fromhex(fork["author"]), frozenset())
        a_member = f"a member ({', '.join(sorted(roles))}), to be replaced with a new key" if roles else "no member now"
        alarms.append(
            f"node {fork['author'][:8]}… signed two different chains: its events from {fork['void_from']} on count "
            f"nowhere; it is {a_member}"
        )
    alarms += [
        f"task {task['task_id']} ({task['task'][:8]}…) has two proven decisions, so a third of its finalizers signed "
        "twice; neither is reported as the decision"
        for task in forked
    ]
    return alarms
