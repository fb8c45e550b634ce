"""A simulated node that comes back: a member's word before it authors, and its own chain from members after a restore.

The rules are those of ``wattswarm.recovery`` (docs/protocol.md §7): how many are asked, and what the fence keeps from,
is its to say. The operator here runs ``node recover`` as soon as it can succeed.
"""

from __future__ import annotations

from typing import Protocol

from net.proto.machine import Machine
from netsim.clock import Timeline
from netsim.disk import Disk, SimGuard
from sel.memory import at_once
from sel.rows import Changes, Fence
from sel.store import Txn
from wattswarm.kernel import chain, hlc
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.membership import Network
from wattswarm.recovery import Quiet, enough, first_word_s_max, others_of, quiet_s, word_s_max

look_ms = 200


class Body(Protocol):
    """What the return of a node needs of it."""

    node_id: bytes
    disk: Disk
    machine: Machine

    @property
    def network(self) -> Network: ...
    def clock(self) -> int: ...
    def recovered(self) -> None: ...


class Return:
    """One start of a node."""

    def __init__(self, body: Body, timeline: Timeline) -> None:
        self._body, self._timeline = body, timeline
        self._began_ms = timeline.now_ms
        self._heard = False
        self._asked: set[bytes] = set()
        self._quiet = Quiet()

    def waits(self) -> bool:
        """Whether a member's word on this node's chain is still waited for. Recovers the chain when that can be."""
        if self._body.disk.guard.foreign:
            self._recover()
        if not self._heard:
            self._heard = not self._waits_for_word()
        return not self._heard

    def _head(self) -> chain.Head:
        line = self._body.disk.store.chain_rows.get(self._body.node_id)
        return line.head if line is not None else chain.Head()

    def _words(self) -> dict[bytes, int]:
        members = self._body.network.current.members
        peers = [peer for peer in self._body.machine.peers.values() if peer.taken is not None]
        told = {peer.taken.node_id: peer.own_seq for peer in peers if peer.taken is not None}
        return {node_id: seq for node_id, seq in told.items() if seq is not None and node_id in members}

    def _waits_for_word(self) -> bool:
        current, me = self._body.network.current, self._body.node_id
        if not others_of(current, me) or me not in current.members:
            return False
        told = self._words()
        if told and max(told.values()) <= self._head().seq:
            return False
        most_s = word_s_max if self._connected() else first_word_s_max
        return self._timeline.now_ms < self._began_ms + most_s * 1000

    def _connected(self) -> bool:
        members = self._body.network.current.members
        return any(peer.taken and peer.taken.node_id in members for peer in self._body.machine.peers.values())

    def _recover(self) -> None:
        """What ``node recover`` does, once enough members hold no more of this node's chain than is here."""
        body, current = self._body, self._body.network.current
        head = self._head()
        self._asked |= {node_id for node_id, seq in self._words().items() if seq <= head.seq}
        others = others_of(current, body.node_id)
        few = len(self._asked & others) < enough(current, body.node_id)
        if self._quiet.lasts(head.seq, self._timeline.now_ms, disturbed=few) < quiet_s * 1000:
            return
        latest_ms = max(body.clock(), hlc.wall_ms(body.disk.store.head.max_hlc))
        unasked = others - self._asked
        fence = Fence(latest_ms + clock_skew_tolerance_ms, current.number if unasked else -1)

        async def work(txn: Txn) -> None:
            await txn.write(Changes(fence=fence, head=txn.head.copy()))

        at_once(body.disk.store.transact(work))
        body.disk.store.took()
        body.disk.guard = SimGuard(head.seq, head.id)
        body.recovered()
