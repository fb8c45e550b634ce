"""Which members cannot be reached, as far as one node can know: who is connected, and who was heard of since.

A node is connected to every member of a small network, so a member that it is not connected to has stopped, or is cut
off - from here. What was authored since then arrives through others, and says that it is well. In a network with more
members than a node keeps connections with, and for an observer, which few let in, not being connected says nothing,
and nothing is said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from net.proto.peers import mesh_full
from sel.views import last_spoke
from wattswarm.node import Node
from wattswarm.presence import daemon_process, read_state

grace_ms = 2_000
"""Not told sooner: connections come back."""
silent_ms = 60_000
"""Who was never connected, or was heard of through others since, is told only after that long."""


def apart(
    me: bytes, members: Collection[bytes], connected: Collection[bytes], before: Mapping[str, int], now_ms: int
) -> dict[str, int]:
    """The daemon's part: members that are not connected -> since when, going on from ``before``."""
    if me not in members or len(members) - 1 > mesh_full:
        return {}
    missing = {node.hex() for node in members if node not in connected and node != me}
    return {name: before.get(name, now_ms) for name in sorted(missing)}


def told(missing: Mapping[str, int], met: Collection[str], now_ms: int) -> dict[str, int]:
    """Those of ``missing`` that are worth a word: whom this daemon had met, or did not meet for long."""
    return {name: since for name, since in missing.items() if name in met or now_ms - since >= silent_ms}


async def offline(node: Node) -> dict[bytes, int]:
    """Members that this node's daemon cannot reach and nobody passed on anything of -> since when (unix ms).

    Empty if no daemon runs here: then nothing is known.
    """
    said = read_state(node.home.path) if daemon_process(node.home.path) is not None else None
    if said is None or not said.not_connected:
        return {}
    lost = {bytes.fromhex(name): since for name, since in said.not_connected.items()}
    return gone(lost, await last_spoke(node.database, lost), node.log.clock())


async def presences(node: Node) -> dict[bytes, str]:
    """Member -> how this node's daemon stands with it, in words. Empty if no daemon runs here."""
    said = read_state(node.home.path) if daemon_process(node.home.path) is not None else None
    if said is None:
        return {}
    me, away = node.home.keys.node_id, await offline(node)
    found = dict.fromkeys(node.log.network.current.members, "not connected")
    found |= {bytes.fromhex(p["node_id"]): "in sync" if p["in_sync"] else "catching up" for p in said.peers}
    return found | dict.fromkeys(away, "offline") | {me: "this node"}


def gone(lost: Mapping[bytes, int], spoke: Mapping[bytes, int], now_ms: int) -> dict[bytes, int]:
    """Who of ``lost`` (member -> when its connection was) is away since when, given when each authored last."""
    away = {}
    for node, lost_at in lost.items():
        heard_of = spoke.get(node, 0) > lost_at
        since, bearable_ms = (spoke[node], silent_ms) if heard_of else (lost_at, grace_ms)
        if now_ms - since >= bearable_ms:
            away[node] = since
    return away
