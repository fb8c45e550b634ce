"""How nodes and hosts have behaved, and who is kept out for it (docs/network.md §7).

A fault is laid at a node id only once the handshake has proved it; what goes wrong before is the host's. A host stands
for anybody behind it, so it is never kept out while a member is connected from there, and never for what a node of it
did. Everything is bounded: who is forgotten first is who has been quiet longest.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TypeVar

from net.proto.budget import Deed, Score, graylist_below, graylist_ms

Key = TypeVar("Key")
Kept = TypeVar("Kept")
nodes_max = 4_096
hosts_max = 1_024
host_faults_max = 3
host_fault_ms = 600_000
block_ms = 600_000
frame_deeds: dict[str, Deed] = {"oversize": "oversize", "text": "malformed"}
"""What a connection that ended within a frame says of a node that is known."""
host_faults = frozenset({"bad_proof", "other_nonce", "own_nonce"})
"""Refusals of a handshake that no honest program brings about."""


class Ledger:
    """The scores of nodes, the graylist, and the hosts that are blocked."""

    def __init__(self) -> None:
        self._scores: OrderedDict[bytes, Score] = OrderedDict()
        self._graylist: OrderedDict[bytes, int] = OrderedDict()
        self._host_faults: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._blocked: OrderedDict[str, int] = OrderedDict()
        self._members_from: Counter[str] = Counter()

    def remembered(self) -> int:
        """How many nodes and hosts are remembered for something."""
        return len(self._scores) + len(self._graylist) + len(self._host_faults) + len(self._blocked)

    # -- nodes -----------------------------------------------------------------------------------------------------

    def note(self, node_id: bytes, deed: Deed, now_ms: int, times: int = 1) -> bool:
        """Something a proved node did. True: it is graylisted now, so close what is open to it."""
        score = self._scores.get(node_id)
        if score is None:
            score = self._scores[node_id] = Score(now_ms)
        self._scores.move_to_end(node_id)
        _shrink(self._scores, nodes_max)
        if score.note(deed, now_ms, times) < graylist_below:
            _put(self._graylist, node_id, now_ms + graylist_ms, nodes_max)
        return self.graylisted(node_id, now_ms)

    def score(self, node_id: bytes, now_ms: int) -> float:
        """The node's score; 0 for one of whom nothing is known."""
        score = self._scores.get(node_id)
        return 0.0 if score is None else score.value(now_ms)

    def graylisted(self, node_id: bytes, now_ms: int) -> bool:
        """Whether the node is to be kept out."""
        return _lasts(self._graylist, node_id, now_ms, graylist_ms)

    def term_ms(self, node_id: bytes, now_ms: int) -> int:
        """How much longer the node is kept out; 0: it is not."""
        return self._graylist[node_id] - now_ms if self.graylisted(node_id, now_ms) else 0

    def nodes_out(self, now_ms: int) -> dict[bytes, int]:
        """Every node that is kept out, and until when."""
        return {one: self._graylist[one] for one in list(self._graylist) if self.graylisted(one, now_ms)}

    # -- hosts -----------------------------------------------------------------------------------------------------

    def stranger_fault(self, host: str, now_ms: int) -> None:
        """Somebody at ``host`` did wrong before it was known who it is. The third time in 10 min blocks the host."""
        count, since_ms = self._host_faults.pop(host, (0, now_ms))
        if not 0 <= now_ms - since_ms < host_fault_ms:
            count, since_ms = 0, now_ms
        if count + 1 < host_faults_max:
            self._host_faults[host] = (count + 1, since_ms)
            _shrink(self._host_faults, hosts_max)
        else:
            _put(self._blocked, host, now_ms + block_ms, hosts_max)

    def member_came(self, host: str) -> None:
        """A member is connected from ``host``: once for each connection."""
        self._members_from[host] += 1

    def member_left(self, host: str) -> None:
        """One of those connections is gone."""
        self._members_from[host] -= 1
        if self._members_from[host] <= 0:
            del self._members_from[host]

    def blocked(self, host: str, now_ms: int) -> bool:
        """Whether connections from ``host`` are to be refused at once."""
        return host not in self._members_from and _lasts(self._blocked, host, now_ms, block_ms)

    def hosts_out(self, now_ms: int) -> dict[str, int]:
        """Every host that is blocked, and until when."""
        return {host: self._blocked[host] for host in list(self._blocked) if self.blocked(host, now_ms)}


def _put(untils: OrderedDict[Key, int], key: Key, until_ms: int, most: int) -> None:
    untils[key] = until_ms
    untils.move_to_end(key)
    _shrink(untils, most)


def _shrink(table: OrderedDict[Key, Kept], most: int) -> None:
    while len(table) > most:
        table.popitem(last=False)


def _lasts(untils: OrderedDict[Key, int], key: Key, now_ms: int, whole_ms: int) -> bool:
    """Whether a term still runs. A clock that went back does not make it longer than a whole one."""
    until_ms = untils.get(key)
    if until_ms is None:
        return False
    if until_ms - now_ms > whole_ms:
        until_ms = untils[key] = now_ms + whole_ms
    if until_ms <= now_ms:
        del untils[key]
        return False
    return True
