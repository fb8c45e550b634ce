"""Friends: nodes whose operators both want it. RELATION messages carry what they want to each other's node.

An operator's wish makes this node ask the other, now or when they next meet; the other's operator is shown that it
asks, and says the same, or no. A friend is dialled first and never let go (``peers``). Either operator ends it alone.
What was said is said again on every connection, so a message that was lost is only late; nobody is told more than once
a minute, nor listened to more often. Keeps docs/network.md §4; what is to be remembered over a restart goes out as
``Relate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from net.proto import message as m
from net.proto.budget import Buckets, allowances
from net.proto.hands import Hands
from net.proto.peer import Peer
from net.proto.peers import PeerBook, friends_max
from net.proto.rhythm import never_ms
from net.proto.values import Ordered, Relate, Relation, Report
from wattswarm.kernel.refusal import Refused

told_every_ms = 61_000  # a little more than the other end's minute
asking_max = 64
tellers_max = 1_024
nothing = Relation(0, "", False)
Action = Literal["request", "accept", "reject", "remove"]


class Friends:
    """How this node stands with others. ``relations``: as it was when this node stopped."""

    def __init__(self, hands: Hands, book: PeerBook, relations: Mapping[bytes, Relation]) -> None:
        self._hands = hands
        self._book = book
        self._rows = dict(relations)
        self._owed: dict[bytes, int] = {}
        self._told_ms: dict[bytes, int] = {}
        self._tellers: Buckets[bytes] = Buckets(allowances["relations"], tellers_max)
        self._take: dict[Action, Callable[[bytes, Relation, int], None]] = {
            "request": self._asked,
            "accept": self._accepted,
            "reject": self._ended,
            "remove": self._ended,
        }
        for node_id, row in self._rows.items():
            if row.wish == "yes":
                self._keep(node_id)

    def ordered(self, order: Ordered, now_ms: int) -> None:
        """The operator wants a node for a friend, or does not."""
        node_id, row = order.node_id, self._rows.get(order.node_id, nothing)
        if order.wish == "yes":
            self._rows[node_id] = Relation(order.number, "yes", row.asked)
            self._keep(node_id)
        else:
            self._book.unfriend(node_id)
            self._rows[node_id] = Relation(order.number, "no", row.asked and row.wish != "yes")
        self._owe(node_id, now_ms)

    def joined(self, node_id: bytes, now_ms: int) -> None:
        """A member is connected: what is wished is said again."""
        if self._rows.get(node_id, nothing).wish == "yes":
            self._owe(node_id, now_ms)

    def on_relation(self, peer: Peer, said: m.Relation, now_ms: int) -> None:
        """A member's node says what its operator wants."""
        assert peer.taken is not None
        node_id = peer.taken.node_id
        if peer.taken.member and self._tellers.take(node_id, 1, now_ms):
            self._take[said.action](node_id, self._rows.get(node_id, nothing), now_ms)

    def _asked(self, node_id: bytes, row: Relation, now_ms: int) -> None:
        if row.wish == "no":
            self._owe(node_id, now_ms)
        elif not row.asked and (row.wish or self._room()):
            self._set(node_id, row._replace(asked=True))
            self._hands.tell(Report("is a friend" if row.wish else "asks to be a friend", node_id.hex()))

    def _accepted(self, node_id: bytes, row: Relation, now_ms: int) -> None:
        if row.wish == "yes" or row.asked:
            self._asked(node_id, row, now_ms)
        else:  # what it believes was ended here meanwhile
            self._owe(node_id, now_ms)

    def _ended(self, node_id: bytes, row: Relation, _now_ms: int) -> None:
        if node_id in self._rows:
            self._forget(node_id, row)
            self._hands.tell(Report("is no friend", node_id.hex()))

    # -- what is remembered, and what is said -------------------------------------------------------------------------

    def _room(self) -> bool:
        return sum(not row.wish for row in self._rows.values()) < asking_max

    def _keep(self, node_id: bytes) -> None:
        try:
            self._book.befriend(node_id)
        except Refused as refusal:
            self._hands.tell(Report("refused", node_id.hex(), str(refusal)))

    def _set(self, node_id: bytes, row: Relation) -> None:
        self._rows[node_id] = row
        self._hands.tell(Relate(node_id, row))

    def _forget(self, node_id: bytes, row: Relation) -> None:
        self._book.unfriend(node_id)
        self._rows.pop(node_id, None)
        self._hands.tell(Relate(node_id, Relation(row.number, "", False)))

    def _owe(self, node_id: bytes, now_ms: int) -> None:
        told_ms = min(now_ms, self._told_ms.get(node_id, now_ms - told_every_ms))
        self._owed[node_id] = told_ms + told_every_ms

    def due(self, now_ms: int) -> None:
        """Say what is owed to those who are connected; whoever is not will hear it when they are."""
        if not self._owed:
            return
        here = {peer.taken.node_id: peer for peer in self._hands.peers.values() if peer.taken is not None}
        for node_id, due_ms in list(self._owed.items()):
            if node_id not in here:
                del self._owed[node_id]
            elif due_ms <= now_ms:
                del self._owed[node_id]
                self._say(here[node_id], node_id, now_ms)

    def _say(self, peer: Peer, node_id: bytes, now_ms: int) -> None:
        row = self._rows.get(node_id, nothing)
        yes: Action = "accept" if row.asked else "request"
        no: Action = "reject" if row.asked else "remove"
        self._hands.send(peer, m.Relation(yes if row.wish == "yes" else no))
        self._told_ms[node_id] = now_ms
        if len(self._told_ms) > tellers_max:
            del self._told_ms[next(iter(self._told_ms))]
        if row.wish == "no":
            self._forget(node_id, row)

    def next_ms(self) -> int:
        """When ``due`` has something to say."""
        return min(self._owed.values(), default=never_ms)


assert asking_max <= friends_max
