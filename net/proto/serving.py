"""What a peer asks of this node's log: events by their ids, and parts of chains (docs/network.md §5).

Whoever asks is answered however busy this node is, one question to the log at a time, and within what frames carry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from net.proto import frame
from net.proto import message as m
from net.proto.gossip import owed_max
from net.proto.hands import Hands
from net.proto.peer import Peer
from net.proto.values import EventsOf, Link, Span
from wattswarm.kernel.limits import backfill_batch_events


class Serving:
    """The part of the exchange that answers. ``missed``: told of a link whose other end lacked a push."""

    def __init__(self, hands: Hands, missed: Callable[[Link], None]) -> None:
        self._hands = hands
        self._missed = missed

    def on_want(self, peer: Peer, said: m.Want, now_ms: int) -> None:
        """Whoever asks for what was announced gets it, however busy this node is, and pushes from now on."""
        self._missed(peer.link)
        peer.wanted.extend(said.ids[: owed_max - len(peer.wanted)])
        peer.served_ms = now_ms
        self._serve(peer)

    def _serve(self, peer: Peer) -> None:
        """Answer what a peer wants, one question to the log at a time."""
        if peer.serving or not peer.wanted or peer.link not in self._hands.peers:
            return
        ids = tuple(peer.wanted.popleft() for _ in range(min(m.ids_max, len(peer.wanted))))

        def then(wires: Sequence[m.Wire], _now_ms: int) -> None:
            for events in frame.packed(wires):
                self._hands.send(peer, m.Events(tuple(events)), lane=m.BACKFILL)
            peer.serving = False
            self._serve(peer)

        peer.serving = True
        self._hands.ask(EventsOf(ids), then)

    def on_range_get(self, peer: Peer, said: m.RangeGet, now_ms: int) -> None:
        """Serve a part of a chain, in portions that frames carry."""
        peer.served_ms = now_ms
        last = min(said.last_seq, said.first_seq + backfill_batch_events - 1)

        def then(wires: Sequence[m.Wire], _now_ms: int) -> None:
            portions = [tuple(portion) for portion in frame.packed(wires, m.range_events_max)] or [()]
            for number, portion in enumerate(portions, 1):
                self._hands.send(peer, m.Range(said.author, portion, number < len(portions)))

        self._hands.ask_for(peer, Span(said.author, said.first_seq, last, backfill_batch_events), then)
